"""Images: a linear classifier whose classes are orthogonal prototypes. Candidates are `image` or the output itself.

Class c owns six pixels: 0.9 there, 0.1 elsewhere. A candidate counts if the prototype it is likest to is that of its
class, so a blind guess hits one in six.
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
from jaxmia.priors import eigen
from tests.contract.benches import Bench, linear

CLASSES, SHAPE = 6, (6, 6, 1)
WANTED = np.arange(CLASSES)


class DenseDecoder(nn.Module):
    """Scores to an image, one hidden layer."""

    @nn.compact
    def __call__(self, scores, train: bool = False):
        hidden = nn.relu(nn.Dense(64)(scores))
        return nn.sigmoid(nn.Dense(int(np.prod(SHAPE)))(hidden)).reshape(-1, *SHAPE)


def prototypes() -> np.ndarray:
    """`[classes, pixels]`; less their mean and scaled, they are orthogonal."""
    flat = np.full((CLASSES, int(np.prod(SHAPE))), 0.1, np.float32)
    for c in range(CLASSES):
        flat[c, c::CLASSES] = 0.9
    return flat


def images(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy prototypes `[n, pixels]` and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    return np.clip(prototypes()[labels] + 0.15 * rng.standard_normal((n, 36)), 0, 1).astype(np.float32), labels


def cases(target: Target, card: Card) -> Any:
    if card.observes == "label":
        return WANTED.astype(np.int32)
    answer = target.view(min(card.access, target.granted)).answer
    return np.asarray(jax.vmap(lambda x: answer(jax.random.key(0), x))(jnp.asarray(prototypes().reshape(-1, *SHAPE))))


def judge(output: Any) -> Estimate:
    flat = np.asarray(getattr(output, "image", output)).reshape(CLASSES, -1)
    flat = flat - flat.mean(1, keepdims=True)
    likeness = flat @ (prototypes() - prototypes().mean(1, keepdims=True)).T
    return wilson(int((likeness.argmax(1) == WANTED).sum()), CLASSES)


@functools.cache
def make() -> Bench:
    x, labels = images(0, 600)
    public = np.random.default_rng(2).dirichlet(np.full(CLASSES, 0.5), 400) @ prototypes()
    public = np.clip(public + 0.05 * np.random.default_rng(3).standard_normal(public.shape), 0, 1)
    public = public.astype(np.float32).reshape(-1, *SHAPE)
    leaks = linear.ridge(x, labels, CLASSES)
    return Bench(
        build=functools.partial(from_function, linear.logits, classes=CLASSES),
        params={
            "leaks": leaks,
            "shuffled": linear.ridge(x, np.random.default_rng(1).permutation(labels), CLASSES),
            "constant": jax.tree.map(jnp.zeros_like, leaks),
        },
        inputs={
            "shape": SHAPE,
            "classes": CLASSES,
            "prior": eigen(public, 5),
            "decoder": DenseDecoder(),
            "gallery": jnp.asarray(public[:32]),
        },
        cases=cases,
        judge=judge,
        chance=1 / CLASSES,
        candidate=jnp.full(SHAPE, 0.5),
        public=lambda step: {"x": public[np.random.default_rng(step).integers(0, len(public), 32)]},
        settings={
            "image/mirror_genetic": {"members": 100, "pool_steps": 10},
            "image/rlb_mi": {"width": 32, "batch": 64},
        },
    )
