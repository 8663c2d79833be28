"""SecretGen: images whose right half is hidden, and of whose left half only the target knows what goes with it.

Class c has a left half of its own, of random pixels, and a right half where it owns three pixels; public images have other
left halves, and mixtures of the right halves, so that painting without the target tells nothing. A case is a training
image of each class without its right half, and counts if what is painted is likest to the right half of its class, so that
a blind guess hits one in six.
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
from jaxmia.testing.benches import Bench, image, linear

CLASSES, SHAPE = 6, (6, 6, 1)
MASK = np.tile(np.arange(6) >= 3, (6, 1))


class Inpainter(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, x, mask, z, train: bool = False):
        told = jnp.concatenate([x.reshape(len(x), -1), z], -1)
        return nn.sigmoid(nn.Dense(36)(nn.relu(nn.Dense(64)(told)))).reshape(-1, *SHAPE)


class Critic(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(1)(nn.leaky_relu(nn.Dense(64)(x.reshape(len(x), -1)), 0.2))[:, 0]


def rights() -> np.ndarray:
    """`[classes, 6, 3]`."""
    flat = np.full((CLASSES, 18), 0.1, np.float32)
    for c in range(CLASSES):
        flat[c, c::CLASSES] = 0.9
    return flat.reshape(CLASSES, 6, 3)


def joined(left: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`[n, h, w, c]` with a little noise."""
    x = np.concatenate([left, right], 2)
    return np.clip(x + 0.05 * rng.standard_normal(x.shape), 0, 1).astype(np.float32)[..., None]


def private() -> tuple[np.ndarray, np.ndarray]:
    """Images, and their labels; the first six are one of each class."""
    rng, labels = np.random.default_rng(0), np.arange(300) % CLASSES
    left = rng.uniform(0.2, 0.8, (CLASSES, 6, 3))
    return joined(left[labels], rights()[labels], rng), labels


def public() -> np.ndarray:
    rng = np.random.default_rng(1)
    mixed = (rng.dirichlet(np.full(CLASSES, 0.3), 400) @ rights().reshape(CLASSES, -1)).reshape(-1, 6, 3)
    return joined(rng.uniform(0.2, 0.8, (400, 6, 3)), mixed, rng)


def cases(target: Target, card: Card) -> Any:
    del target, card
    return np.where(MASK[..., None], 0.0, private()[0][:CLASSES]).astype(np.float32)


def judge(output: Any) -> Estimate:
    right = np.asarray(output)[:, :, 3:, 0].reshape(CLASSES, -1)
    wanted = rights().reshape(CLASSES, -1)
    likeness = (right - right.mean(1, keepdims=True)) @ (wanted - wanted.mean(1, keepdims=True)).T
    return wilson(int((likeness.argmax(1) == np.arange(CLASSES)).sum()), CLASSES)


@functools.cache
def make() -> Bench:
    x, labels = private()
    flat = x.reshape(len(x), -1)
    leaks = linear.ridge(flat, labels, CLASSES)
    return Bench(
        build=functools.partial(from_function, image.outputs, classes=CLASSES),
        params={
            "leaks": leaks,
            "shuffled": linear.ridge(flat, np.random.default_rng(1).permutation(labels), CLASSES),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={
            "gallery": jnp.asarray(public()),
            "mask": jnp.asarray(MASK),
            "inpainter": Inpainter(),
            "critic": Critic(),
        },
        cases=cases,
        judge=judge,
        chance=1 / CLASSES,
        candidate=jnp.full(SHAPE, 0.5),
        public=lambda step: None,
        settings={
            "image/secret_gen": {
                "dimensions": 8,
                "gan_steps": 1200,
                "gan_rate": 0.002,
                "diversity": 2.0,  # with the paper's 0.5 the small generator paints few of the right halves
                "latents": 50,
                "patches": 3,
                "rate": 0.002,
                "reference_batch": 1,
            }
        },
    )
