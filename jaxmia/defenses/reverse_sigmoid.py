"""Reverse sigmoid: take from large scores and give to small ones, by a curve of their log odds.

Lee, Edwards, Molloy, Su, "Defending Against Machine Learning Model Stealing Attacks Using Deceptive
Perturbations", IEEE SPW 2019 (https://arxiv.org/abs/1806.00054). For every class,

    r = beta * (sigmoid(gamma * log(p / (1 - p))) - 1/2)
    served = clip(p - r, 0, 1) / sum of clip(p - r, 0, 1)

with p and 1 - p not below 1e-9 in the logarithm. The formula, beta = 1 and gamma = 0.1 were read in
the postprocessor of Trusted-AI/adversarial-robustness-toolbox, not in the paper. Near 0 the curve
is far from monotone: a score of 1e-9 becomes 0.39 before the division, one of 0.01 becomes 0.12,
and one of 0.5 stays. So the same served value can stand for two scores, by which the paper means to
mislead a thief's training.

What differs. There 1 - p is computed in double precision; here, in float32, it is bounded by
itself, since 1 - 1e-9 is 1. An answer of a single column, for two classes, is not known here. With
beta = 0 answers come back to the bit.

What it costs and does not do. The paper meant it against model stealing, not against inversion.
With many classes of which most are near 0, answers are almost flat: with 1000 classes and a score
of 1 the label is served with 0.0016. The label moves where the largest score is below about 0.37
and another is near 0, which is served as the larger one; so labels are not promised. It is a
fixed map without noise: an inverse network that is trained on served scores learns it, and score
differences lead an attack as before, in places with the opposite sign. White-box access is
untouched.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import above_zero, at_least_zero

__all__ = ["CARD", "reverse_sigmoid"]

CARD = Card(
    title="Reverse sigmoid",
    paper="Lee, Edwards, Molloy, Su. Defending Against Model Stealing Attacks. IEEE SPW 2019",
    url="https://arxiv.org/abs/1806.00054",
    year=2019,
    modality="any",
    hook="answer",
)

LEAST = 1e-9


def reverse_sigmoid(*, beta: Scalar = 1.0, gamma: Scalar = 0.1) -> Defense:
    """The defense: answers at serving time with the curve taken off.

    Args:
      beta: height of the curve, 0 or more; 0 changes nothing.
      gamma: how steep it is in log odds, above 0.

    Raises:
      ValueError: for a negative beta, or a gamma that is not above 0.

    >>> served = reverse_sigmoid().answer(jax.random.key(0), jnp.array([1.0, 0.0, 0.0]))
    >>> [round(float(p), 3) for p in served]
    [0.441, 0.28, 0.28]
    """
    at_least_zero(beta=beta)
    above_zero(gamma=gamma)

    def answer(key: Any, served: Any) -> Any:
        del key
        odds = jnp.log(jnp.maximum(served, LEAST)) - jnp.log(jnp.maximum(1 - served, LEAST))
        taken = beta * (jax.nn.sigmoid(gamma * odds) - 0.5)
        left = jnp.clip(served - taken, 0, 1)
        return jnp.where(beta > 0, left / jnp.sum(left, -1, keepdims=True), served)

    return Defense(answer=answer)
