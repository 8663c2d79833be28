"""UnSplit: a convolution and a rectifier, of which the adversary sees the answers and knows the architecture.

It asks nothing, so that a control is in what it sees: a client that permutes pixels before its convolution, as its known
architecture does not, and one that answers zeros. A case counts if, of the private images, the output is likest to the
one in question by the size of the correlation, since a negative is explained as well; a blind guess hits one in eight.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Target, from_function
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate, wilson
from jaxmia.testing.benches import Bench

SHAPE, PRIVATE = (8, 8, 1), 8


class Client(nn.Module):
    """Images to eight maps."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.relu(nn.Conv(8, (3, 3))(x))


@functools.cache
def images() -> np.ndarray:
    """Smooth noise."""
    coarse = np.random.default_rng(0).uniform(size=(PRIVATE, 4, 4, 1))
    return np.asarray(jax.image.resize(jnp.asarray(coarse, jnp.float32), (PRIVATE, *SHAPE), "linear"))


def apply(params: Any, batch: Any) -> Any:
    shown = batch.reshape(len(batch), -1)[:, params["order"]].reshape(batch.shape)
    return Client().apply(params["client"], shown)


def cases(target: Target, card: Card) -> Any:
    del card
    return np.asarray(jax.vmap(lambda x: target.apply(target.params, x).logits)(jnp.asarray(images())))  # type: ignore[misc]


def judge(output: Any) -> Estimate:
    def standard(x: Any) -> np.ndarray:
        flat = np.asarray(x, np.float64).reshape(PRIVATE, -1)
        flat = flat - flat.mean(1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)

    likeness = np.abs(standard(output) @ standard(images()).T)
    return wilson(int((likeness.argmax(1) == np.arange(PRIVATE)).sum()), PRIVATE)


@functools.cache
def make() -> Bench:
    client = Client().init(jax.random.key(1), jnp.zeros((1, *SHAPE)))
    identity = jnp.arange(64)
    return Bench(
        build=functools.partial(from_function, apply, classes=8),
        params={
            "leaks": {"client": client, "order": identity},
            "shuffled": {"client": client, "order": jax.random.permutation(jax.random.key(2), identity)},
            "constant": {"client": jax.tree.map(jnp.zeros_like, client), "order": identity},
        },
        inputs={"client": Client(), "shape": SHAPE},
        cases=cases,
        judge=judge,
        chance=1 / PRIVATE,
        candidate=jnp.full(SHAPE, 0.5),
        settings={
            "image/unsplit": {"rounds": 20, "image_steps": 10, "clone_steps": 10, "rate": 0.01, "variation": 0.1}
        },
    )
