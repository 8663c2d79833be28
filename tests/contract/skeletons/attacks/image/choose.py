"""Choose: of a gallery, the image that the target is surest shows a class. Zero steps: a score, computed at once.

Authors, "Title", Venue Year (https://example.org/paper), equation 1: argmax over x of f_y(x). What differs: nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmia.core import Attack, Card
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import score

PAPER, URL, YEAR = "Authors. Title. Venue Year", "https://example.org/paper", 2026
CARD = Card("Choose", PAPER, URL, YEAR, "image", Access.SCORES, recovers="the likest public image", knows="a gallery")


class Choice(NamedTuple):
    image: Any
    queries: Any  # without a step there is no Info: a score reads out what it spent


def choose(oracle: Oracle, gallery: Any) -> Attack:
    """The attack; a case is a class index, the output a `Choice`.

    Args:
      oracle: score access, one query per image.
      gallery: public images `[n, h, w, c]`.
    """
    view: Scores = lower(oracle, CARD.access, "image/choose")

    def best(key: Any, label: Any) -> Choice:
        served = jax.vmap(view.answer)(jax.random.split(key, len(gallery)), gallery)
        return Choice(gallery[jnp.argmax(served[:, label])], jnp.asarray(len(gallery), jnp.int32))

    return Attack(lambda fitted: score(best), observes=CARD.observes)
