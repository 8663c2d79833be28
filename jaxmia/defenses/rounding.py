"""Rounding: serve every confidence as a multiple of r, so that small changes of a query change no answer.

Fredrikson, Jha, Ristenpart, "Model Inversion Attacks that Exploit Confidence Information and Basic
Countermeasures", CCS 2015, section 6 and figure 8 (https://doi.org/10.1145/2810103.2813677):

    served_k = r * round(f_k(x) / r)

Almost everywhere the served scores are constant in x, so an attack that estimates gradients from score
differences sees zero; in the paper the black-box face attack gives no image at r = 0.1.

What differs: nothing; no code was released. As in the paper the served scores need not sum to one. Ties go to
the even multiple.

What it costs and does not do. Under label access the label is that of the served scores, and where the two
largest round to the same multiple the lower class index wins: for r = 0.1 that can happen to pictures whose two
best confidences are closer than 0.1, and always does where every confidence is below r / 2 (many classes).
What a client sends in split inference is no score and is not rounded.
White-box access is untouched: weights are served, not answers. Attacks that need labels only, or a network
trained on rounded scores, are known to survive it.
"""

from typing import Any

import jax.numpy as jnp

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import above_zero

__all__ = ["CARD", "rounding"]

CARD = Card(
    title="Rounding",
    paper="Fredrikson, Jha, Ristenpart. Model Inversion Attacks that Exploit Confidence Information. CCS 2015",
    url="https://doi.org/10.1145/2810103.2813677",
    year=2015,
    modality="any",
    hook="answer",
)


def rounding(*, level: Scalar = 0.1) -> Defense:
    """The defense: answers at serving time rounded to multiples of `level`.

    Args:
      level: r, in the units of what is served (probabilities by default; embeddings or logits round as well).
        The paper tries 0.001 to 0.1; 0.1 is its level at which the attack fails.

    Raises:
      ValueError: if the level is not above 0 and finite.

    >>> import jax
    >>> rounding(level=0.25).answer(jax.random.key(0), jnp.array([0.55, 0.15, 0.3])).tolist()
    [0.5, 0.25, 0.25]
    """
    above_zero(level=level)

    def answer(key: Any, served: Any) -> Any:
        del key
        return level * jnp.round(served / level)

    return Defense(answer=answer)
