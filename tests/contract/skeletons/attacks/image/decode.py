"""Decode: train the inverse of the target on public images, then decode the scores it served for a private one.

Authors, "Title", Venue Year (https://example.org/paper), equation 1: min over theta of E |I_theta(f(x)) - x|^2.
What differs from the paper, or in the paper from its released code. Here: nothing.
"""

from typing import Any

import optax

from jaxmia.core import Attack, Card, Scalar
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import regress, score

CARD = Card(
    title="Decode",
    paper="Authors. Title. Venue Year",
    url="https://example.org/paper",
    year=2026,
    modality="image",
    access=Access.SCORES,
    recovers="the image behind a served score vector",
    knows="public images, and the scores of the victim's image",
    observes="scores",
)


def decode(oracle: Oracle, decoder: Any, *, steps: int = 300, rate: Scalar = 3e-3) -> Attack:
    """The attack; a case is a served score vector, the output what `decoder` makes of it.

    Args:
      oracle: score access, queried with public images while training.
      decoder: a Linen module from score vectors `[n, classes]` to images.
      steps: training minibatches.
      rate: Adam's learning rate.
    """
    view: Scores = lower(oracle, CARD.access, "image/decode")
    train = lambda fitted: regress(decoder, view.answer, optax.adam(rate), steps=steps)  # noqa: E731
    solve = lambda fitted: score(lambda key, scores: decoder.apply(fitted[0], scores[None])[0])  # noqa: E731
    return Attack(solve, (train,), observes=CARD.observes)
