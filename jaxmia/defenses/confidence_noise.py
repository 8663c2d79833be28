"""Noise on confidences: add long-tailed noise to every score, and leave the label where it was.

Alves, Franca, Kundu, "MLPrivacyGuard: Defeating Confidence Information based Model Inversion
Attacks on Machine Learning Systems", GLSVLSI 2019 (https://doi.org/10.1145/3299874.3319457). Its
abstract: controlled noise is added to the output of the confidence function; with a long-tailed
distribution few labels change, and gradient ascent on numerical gradients does not converge. Only
the abstract could be read. As we understand it, and in full as this library defines it:

    q = p + scale * t,    t drawn for each class by itself
    exchange q at its largest entry with q at the largest entry of p
    served = max(q, 0) / sum of max(q, 0)

t is Student's t with 2 degrees of freedom, Laplace with scale 1, or Gaussian with deviation 1.
Where no entry is above 0, the label gets 1 and the others 0. Student's t is drawn from a uniform u
by its quantile function, (2u - 1) / sqrt(2u (1 - u)), and ends at about 2000 in float32.

What differs. The paper trades label errors against protection; here the exchange keeps all labels,
so that what is left to compare is the protection. The kinds of noise beside the long-tailed one,
the numbers of all and scale = 0.05 are choices of this library. So is that an adversary gains
nothing by asking again: the noise is drawn from a secret of the target and from the query
(`jaxmia.target`), and equal queries get equal answers.

What it costs and does not do. The confidence that honest clients see is as noisy as that of the
adversary. An adversary who averages over neighbors of a query, by a gray level or more, averages
the noise away, as do attacks that take many samples for one step (evolution strategies, policies).
Labels are told as before, so that attacks by labels see no difference. White-box access is
untouched.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import at_least_zero
from jaxmia.recipes.exchanged import exchanged

__all__ = ["CARD", "confidence_noise"]

CARD = Card(
    title="MLPrivacyGuard",
    paper="Alves, Franca, Kundu. MLPrivacyGuard: Defeating Confidence Information. GLSVLSI 2019",
    url="https://doi.org/10.1145/3299874.3319457",
    year=2019,
    modality="any",
    hook="answer",
)

Distribution = Literal["student_t", "laplace", "gaussian"]


def _student_t(key: Any, shape: Any, dtype: Any) -> Any:
    """With 2 degrees of freedom, whose quantile function is closed."""
    u = jax.random.uniform(key, shape, dtype, minval=1e-7)
    return (2 * u - 1) / jnp.sqrt(2 * u * (1 - u))


_DRAW: dict[str, Callable[[Any, Any, Any], Any]] = {
    "student_t": _student_t,
    "laplace": jax.random.laplace,
    "gaussian": jax.random.normal,
}


def confidence_noise(*, scale: Scalar = 0.05, distribution: Distribution = "student_t") -> Defense:
    """The defense: answers at serving time with noise added and their label kept.

    Args:
      scale: what the noise is multiplied with, in units of probability; 0 changes nothing.
      distribution: "student_t", "laplace" or "gaussian".

    Raises:
      ValueError: for a scale that is negative or not finite, or another distribution.

    >>> served = confidence_noise().answer(jax.random.key(0), jnp.array([0.25, 0.625, 0.125]))
    >>> int(jnp.argmax(served)), round(float(jnp.sum(served)), 6)
    (1, 1.0)
    """
    at_least_zero(scale=scale)
    if distribution not in get_args(Distribution):
        legal = "'student_t', 'laplace' or 'gaussian'"
        raise ValueError(f"distribution: {distribution!r}; legal is {legal}")

    def answer(key: Any, served: Any) -> Any:
        drawn = _DRAW[distribution](key, served.shape, served.dtype)
        noisy = jnp.maximum(exchanged(served + scale * drawn, served), 0)
        total = jnp.sum(noisy, -1, keepdims=True)
        label = jax.nn.one_hot(jnp.argmax(served, -1), served.shape[-1], dtype=served.dtype)
        whole = jnp.where(total > 0, noisy / jnp.where(total > 0, total, 1), label)
        return jnp.where(scale > 0, whole, served)  # a sum of 1 may be off by a bit

    return Defense(answer=answer, keeps_label=True)
