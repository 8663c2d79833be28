"""DeepInversion: the classifier of the image bench behind a BatchNorm that knows the images' mean and variance."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import from_linen
from jaxmia.testing.benches import Bench, image, linear


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        norm = nn.BatchNorm(use_running_average=True, use_scale=False, use_bias=False, epsilon=1e-5, name="norm")
        return nn.Dense(image.CLASSES, name="dense")(norm(x.reshape(len(x), -1)))


@functools.cache
def make() -> Bench:
    x, labels = image.images(0, 600)
    mean, var = x.mean(0), x.var(0)

    def variables(labels: np.ndarray) -> Any:
        """Those with which the logits are `linear.logits`."""
        known = linear.ridge(x, labels, image.CLASSES)
        kernel = np.sqrt(var + 1e-5)[:, None] * known["w"]
        params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": known["b"] + mean @ known["w"]}
        stats = {"mean": jnp.asarray(mean, jnp.float32), "var": jnp.asarray(var, jnp.float32)}
        return {"params": {"dense": params}, "batch_stats": {"norm": stats}}

    leaks = variables(labels)
    return image.make()._replace(
        build=functools.partial(from_linen, Network(), classes=image.CLASSES),
        params={
            "leaks": leaks,
            "shuffled": variables(np.random.default_rng(1).permutation(labels)),
            "constant": {**leaks, "params": jax.tree.map(jnp.zeros_like, leaks["params"])},
        },
    )
