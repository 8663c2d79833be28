"""Optimize: descend on a latent until the target believes that it shows a class.

Authors, "Title", Venue Year (https://example.org/paper), equation 1: min over z of lambda * CE(f(G(z)), y) + R(z).
What differs from the paper, or in the paper from its released code. Here: nothing.
"""

import optax

from jaxmia.core import Attack, Card, Prior, Scalar
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import descend

CARD = Card(
    title="Optimize",
    paper="Authors. Title. Venue Year",
    url="https://example.org/paper",
    year=2026,
    modality="image",
    access=Access.WEIGHTS,
    recovers="an image of a class, as the prior can draw it",
    knows="public images",
)


def optimize(oracle: Oracle, prior: Prior, *, steps: int = 100, rate: Scalar = 0.1, weight: Scalar = 10.0) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: white-box access.
      prior: where candidates live; its penalty is R.
      steps: iterations.
      rate: Adam's learning rate.
      weight: lambda.
    """
    view: Weights = lower(oracle, CARD.access, "image/optimize")
    return Attack(
        lambda fitted: descend(view, cross_entropy, prior, optax.adam(rate), steps=steps, weight=weight),
        observes=CARD.observes,
    )
