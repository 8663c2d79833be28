"""Slope: the signal that a linear classifier of a person grows with. Zero steps: its weights are read.

Authors, "Title", Venue Year (https://example.org/paper). What differs: nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmia.core import Attack, Card
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import score

PAPER, URL = "Authors. Title. Venue Year", "https://example.org/paper"
CARD = Card("Slope", PAPER, URL, 2026, "signals", Access.WEIGHTS, recovers="a signal of a person", knows="its length")


def slope(oracle: Oracle, length: int) -> Attack:
    """The attack; a case is a class index, the output a signal `[length]`.

    Args:
      oracle: white-box access.
      length: of a signal.
    """
    view: Weights = lower(oracle, CARD.access, "signals/slope")

    def steepest(key: Any, label: Any) -> Any:
        logits = lambda x: jax.nn.log_softmax(view.apply(view.params, x).logits)[label]  # noqa: E731
        return jax.grad(logits)(jnp.zeros(length))

    return Attack(lambda fitted: score(steepest), observes=CARD.observes)
