"""Sparse model inversion: a small vision transformer, trained on the noisy prototypes of the image bench."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmia import from_linen
from jaxmia.models.vit import ViT
from jaxmia.testing.benches import Bench, image

NETWORK = ViT(image.CLASSES, patch=2, width=16, depth=1, heads=2)


@jax.jit
def trained(x: jax.Array, labels: jax.Array) -> Any:
    """Variables after 400 minibatches of 60."""
    adam = optax.adamw(3e-3, weight_decay=0.1)

    def step(i: Any, state: Any) -> Any:
        variables, opt = state
        which, disturb = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        rows = jax.random.randint(which, (60,), 0, len(x))
        batch = x[rows] + 0.3 * jax.random.normal(disturb, (60, *image.SHAPE))

        def loss(variables: Any) -> Any:
            logits = NETWORK.apply(variables, batch)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()  # type: ignore[arg-type]

        updates, opt = adam.update(jax.grad(loss)(variables), opt, variables)
        return optax.apply_updates(variables, updates), opt

    start = NETWORK.init(jax.random.key(0), x[:1])
    return jax.lax.fori_loop(0, 400, step, (start, adam.init(start)))[0]


@functools.cache
def make() -> Bench:
    x, labels = image.images(0, 600)
    x, shuffled = jnp.asarray(x.reshape(-1, *image.SHAPE)), np.random.default_rng(1).permutation(labels)
    leaks = trained(x, jnp.asarray(labels))
    return Bench(
        build=functools.partial(from_linen, NETWORK, classes=image.CLASSES),
        params={
            "leaks": leaks,
            "shuffled": trained(x, jnp.asarray(shuffled)),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={"shape": image.SHAPE},
        cases=image.cases,
        judge=image.judge,
        chance=1 / image.CLASSES,
        candidate=jnp.full(image.SHAPE, 0.5),
        # A class is a column of pixels here, so that neither rolling nor mirroring leaves it what it is.
        settings={
            "image/smi": {
                "steps": 400,
                "variation": 1e-5,
                "stops": (50, 100),
                "shares": (0.3, 0.3),
                "jitter": 0,
                "flip": 0.0,
                "rate": 0.1,
            }
        },
    )
