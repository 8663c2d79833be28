"""The targets of an audit of texts: language models over characters."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from jaxmia.adapters.linen import from_linen
from jaxmia.audit import networks
from jaxmia.audit.modality import Fitted, Training
from jaxmia.audit.networks import Network
from jaxmia.compiling import jit
from jaxmia.metrics.estimate import bootstrap
from jaxmia.modalities.text.data import Corpus
from jaxmia.models.language import LSTMLanguageModel
from jaxmia.oracle import Access

__all__ = ["TARGETS", "accuracy", "fit"]


class Recipe(NamedTuple):
    """A language model, and how it is trained.

    Attributes:
      module: `vocabulary -> Linen module`.
      epochs: over the training rows.
      batch_size: rows in a minibatch.
      rate: of Adam.
      schedule: how the rate falls: "cosine" to zero, or "constant".
    """

    module: Callable[[int], Any]
    epochs: int
    batch_size: int
    rate: float
    schedule: str


def lstm(
    *,
    width: int = 64,
    layers: int = 1,
    epochs: int = 20,
    batch_size: int = 64,
    rate: float = 5e-3,
    schedule: Literal["cosine", "constant"] = "cosine",
) -> Recipe:
    """A small LSTM (Carlini et al. 2019 have two layers of 200)."""
    module = lambda vocabulary: LSTMLanguageModel(vocabulary, width=width, layers=layers)  # noqa: E731
    return Recipe(module, epochs, batch_size, rate, schedule)


TARGETS: dict[str, Callable[..., Recipe]] = {"lstm": lstm}


def fit(recipe: Recipe, corpus: Corpus, how: Training) -> Fitted:
    """A target, which serves the logarithms of its next-token probabilities."""
    batch_size = min(recipe.batch_size, len(corpus.rows))
    steps = recipe.epochs * len(corpus.rows) // batch_size
    rate = optax.cosine_decay_schedule(recipe.rate, steps) if recipe.schedule == "cosine" else recipe.rate
    network = Network(recipe.module(len(corpus.characters)), optax.adam(rate), steps, batch_size)
    arrays = {"x": corpus.rows[:, :-1], "y": corpus.rows[:, 1:]}
    module, variables, defense, spent = networks.train(network, arrays, corpus.contents, how)
    target = from_linen(
        module, variables, classes=len(corpus.characters), defense=defense, secret=(how.seed + 3000) % 2**32,
        serve=lambda outputs: jax.nn.log_softmax(outputs.logits),
        example=corpus.held_out[:4, :-1] if how.real else None,
    )  # fmt: skip
    return Fitted(target, module, spent)


def accuracy(fitted: Fitted, corpus: Corpus) -> dict[str, Any]:
    """Of the next character that it serves on held-out rows, with an interval over documents."""
    view = fitted.target.view(Access.LABELS)
    asked = jit(lambda rows: jax.lax.map(lambda x: view.answer(jax.random.key(0), x), rows, batch_size=256))
    right = (np.asarray(asked(corpus.held_out[:, :-1])) == corpus.held_out[:, 1:]).mean(1)
    return {**bootstrap(right, corpus.documents)._asdict(), "unit": "share"}
