"""XAI-aware inversion: a quadratic classifier whose gradient mirrors the image, while its scores are one number.

Images are noise in which nothing can be guessed. A class is whether pixels agree with those that mirror them, and the
logits are fitted to it by least squares on all products of two pixels. A case counts if, of the private images, the one
in question is nearest to the output, so a blind guess hits one in twelve.
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

SHAPE, PRIVATE = (4, 4, 1), 12
UPPER = np.triu_indices(16)


class Decoder(nn.Module):
    """Scores and explanation, flattened; one hidden layer."""

    @nn.compact
    def __call__(self, told, train: bool = False):
        both = jnp.concatenate([told["scores"], told["explanation"].reshape(len(told["scores"]), -1)], -1)
        return nn.Dense(16)(nn.relu(nn.Dense(64)(both))).reshape(-1, *SHAPE)


def images(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(n, *SHAPE)).astype(np.float32)


def quadratic(x: np.ndarray, labels: np.ndarray) -> dict[str, jax.Array]:
    """Ridge regression of two classes, as -1 and 1, on the products of two pixels around their middle."""
    flat = x.reshape(len(x), 16) - 0.5
    products = (flat[:, :, None] * flat[:, None])[:, UPPER[0], UPPER[1]]
    design = np.concatenate([products, np.ones((len(x), 1))], 1)
    fitted = np.linalg.solve(design.T @ design + 1e-3 * np.eye(design.shape[1]), design.T @ (2.0 * labels - 1.0))
    form = np.zeros((16, 16))
    form[UPPER] = fitted[:-1]
    return {"form": jnp.asarray((form + form.T) / 2, jnp.float32), "bias": jnp.asarray(fitted[-1], jnp.float32)}


def logits(params: Any, batch: jax.Array) -> jax.Array:
    flat = batch.reshape(len(batch), 16) - 0.5
    second = jnp.sum((flat @ params["form"]) * flat, 1) + params["bias"]
    return jnp.stack([-second, second], 1)


def build(params: Any, **options: Any) -> Target:
    return from_function(logits, params, classes=2, **options).explained()


def cases(target: Target, card: Card) -> Any:
    answer = target.view(card.access).answer
    return jax.tree.map(np.asarray, jax.vmap(lambda x: answer(jax.random.key(0), x))(jnp.asarray(images(5, PRIVATE))))


def judge(output: Any) -> Estimate:
    private = images(5, PRIVATE).reshape(PRIVATE, -1)
    far = np.linalg.norm(np.asarray(output).reshape(PRIVATE, 1, -1) - private, axis=2)
    return wilson(int((far.argmin(1) == np.arange(PRIVATE)).sum()), PRIVATE)


@functools.cache
def make() -> Bench:
    x, public = images(0, 3000), images(1, 400)
    flat = x.reshape(len(x), 16) - 0.5
    agreement = np.sum(flat * (x[:, :, ::-1].reshape(len(x), 16) - 0.5), 1)
    labels = (agreement > np.median(agreement)).astype(np.int32)
    leaks = quadratic(x, labels)
    return Bench(
        build=build,
        params={
            "leaks": leaks,
            "shuffled": quadratic(x, np.random.default_rng(2).permutation(labels)),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={"explained_decoder": Decoder()},
        cases=cases,
        judge=judge,
        chance=1 / PRIVATE,
        candidate=jnp.full(SHAPE, 0.5),
        public=lambda step: {"x": public[np.random.default_rng(step).integers(0, len(public), 32)]},
        settings={"image/xai_aware": {"steps": 600, "rate": 0.005}},
    )
