"""Analytic targets, one bench per modality: what can be recovered is known, and a control from which nothing can be.

A bench supplies every input an attack may name. A new attack of a known modality needs no edit here unless it asks for
an input no attack before it asked for.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Target, from_function
from jaxmia.core import Card
from jaxmia.discovery import Method
from jaxmia.priors import eigen

CLASSES, SHAPE = 6, (6, 6, 1)


class Bench(NamedTuple):
    """One modality's analytic problem.

    Attributes:
      target: leaks by construction; its optimum is known.
      control: the same model trained on shuffled labels (or otherwise made to know nothing).
      inputs: every factory input by name, but the oracle.
      cases: `(target, card) -> cases`, by what the card observes.
      success: `(output, cases) -> float [n]` in [0, 1], from the truth.
      chance: mean success of a blind guess.
      public: `step -> minibatch`.
    """

    target: Target
    control: Target
    inputs: dict[str, Any]
    cases: Callable[[Target, Card], Any]
    success: Callable[[Any], np.ndarray]
    chance: float
    public: Callable[[int], Any]


class DenseDecoder(nn.Module):
    """Scores to an image, one hidden layer."""

    @nn.compact
    def __call__(self, scores, train: bool = False):
        hidden = nn.relu(nn.Dense(64)(scores))
        return nn.sigmoid(nn.Dense(int(np.prod(SHAPE)))(hidden)).reshape(-1, *SHAPE)


def prototypes() -> np.ndarray:
    """Class c owns six pixels: 0.9 there, 0.1 elsewhere. Less their mean and scaled, the prototypes are orthogonal."""
    flat = np.full((CLASSES, int(np.prod(SHAPE))), 0.1, np.float32)
    for c in range(CLASSES):
        flat[c, c::CLASSES] = 0.9
    return flat


def _images(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    return np.clip(prototypes()[labels] + 0.15 * rng.standard_normal((n, 36)), 0, 1).astype(np.float32), labels


def _ridge(x: np.ndarray, labels: np.ndarray) -> dict[str, jax.Array]:
    """Least squares on one-hot labels in closed form, with the logits scaled to be confident."""
    center = x.mean(0)
    onehot = np.eye(CLASSES)[labels] - 1 / CLASSES
    w = np.linalg.solve((x - center).T @ (x - center) + 1.0 * np.eye(x.shape[1]), (x - center).T @ onehot)
    return {"w": jnp.asarray(12.0 * w, jnp.float32), "b": jnp.asarray(-12.0 * center @ w, jnp.float32)}


def _linear(params, batch):
    return batch.reshape(batch.shape[0], -1) @ params["w"] + params["b"]


@functools.cache
def image() -> Bench:
    x, labels = _images(0, 600)
    shuffled = np.random.default_rng(1).permutation(labels)
    public_x = np.random.default_rng(2).dirichlet(np.full(CLASSES, 0.5), 400) @ prototypes()
    public_x = np.clip(public_x + 0.05 * np.random.default_rng(3).standard_normal(public_x.shape), 0, 1)
    public_x = public_x.astype(np.float32).reshape(-1, *SHAPE)
    wanted = np.arange(CLASSES)

    def cases(target: Target, card: Card) -> Any:
        if card.observes == "label":
            return wanted.astype(np.int32)
        view = target.view(min(card.access, target.granted))
        victims = jnp.asarray(prototypes().reshape(-1, *SHAPE))
        return np.asarray(jax.vmap(lambda x: view.answer(jax.random.key(0), x))(victims))

    def success(output: Any) -> np.ndarray:
        flat = np.asarray(output).reshape(CLASSES, -1)
        flat = flat - flat.mean(1, keepdims=True)
        likeness = flat @ (prototypes() - prototypes().mean(1, keepdims=True)).T
        return (likeness.argmax(1) == wanted).astype(float)

    return Bench(
        target=from_function(_linear, _ridge(x, labels), classes=CLASSES),
        control=from_function(_linear, _ridge(x, shuffled), classes=CLASSES),
        inputs={"shape": SHAPE, "classes": CLASSES, "prior": eigen(public_x, 5), "decoder": DenseDecoder()},
        cases=cases,
        success=success,
        chance=1 / CLASSES,
        public=lambda step: {"x": public_x[np.random.default_rng(step).integers(0, len(public_x), 32)]},
    )


def bench(method: Method) -> Bench:
    """The bench of a method's modality: `image` here, others in a module `bench_<modality>` of their own."""
    modality = method.card.modality
    if modality == "image":
        return image()
    return getattr(importlib.import_module(f"tests.contract.bench_{modality}"), modality)()
