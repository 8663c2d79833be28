"""Temper: punish large logits in training, and serve scores that are mixed with their mean.

Authors, "Title", Venue Year (https://example.org/paper), equation 1: cross entropy + weight * mean over logits of their
square; equation 2: served = (1 - share) f(x) + share * mean f(x). What differs from the paper. Here: nothing.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmia.core import Card, Defense, Scalar

CARD = Card(
    title="Temper",
    paper="Authors. Title. Venue Year",
    url="https://example.org/paper",
    year=2026,
    modality="any",
    hook="loss, answer",
)


def temper(*, weight: Scalar = 0.1, share: Scalar = 0.1) -> Defense:
    """The defense; a hook that is not named here stays the identity.

    Args:
      weight: of the squared logits.
      share: of the mean in what is served, 0 to 1.
    """

    def loss(plain: Callable) -> Callable:
        return lambda outputs, batch: plain(outputs, batch) + weight * jnp.mean(outputs.logits**2)

    def answer(key: Any, served: Any) -> Any:
        return (1 - share) * served + share * jnp.mean(served)

    return Defense(loss=loss, answer=answer)
