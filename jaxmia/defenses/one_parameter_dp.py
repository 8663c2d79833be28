"""One parameter defense: serve scores through the weights of an exponential mechanism.

Ye, Shen, Zhu, Liu, Zhou, "One Parameter Defense: Defending Against Data Inference Attacks via
Differential Privacy", IEEE TIFS 2022 (https://arxiv.org/abs/2203.06580). Its abstract: score
vectors are modified and normalized by a mechanism of differential privacy, the order of scores is
kept, and the privacy budget epsilon is all that is tuned. Only the abstract could be read. Our
reconstruction is the exponential mechanism whose utilities are the scores:

    served_k = exp(epsilon p_k / 2) / sum_j exp(epsilon p_j / 2)

If that is the mechanism, it is a map that can be undone. From log served_i - log served_j =
epsilon (p_i - p_j) / 2 and sum_k p_k = 1 follow all scores (`inverse`):

    p_k = 1 / classes + (2 / epsilon) (log served_k - mean_j log served_j)

And the guarantee of the mechanism is one of drawing a class from these weights. To publish the
weights is another thing, and no differential privacy of the answers follows.

What differs. No code was released, and the formula is our reading. Since it has no noise, the paper
may well draw or round somewhere: what is concluded here is of this formula alone. epsilon = 10 is a
choice of this library.

What it costs and does not do. Confidences are squeezed: the largest share of two classes is
1 / (1 + exp(-epsilon / 2)), and with epsilon 1 and 10 classes a score of 1 is served as 0.155. The
label stays. An adversary who knows epsilon gets the scores back, in float32 to about 1e-5 for
epsilon from 0.1 to 150, and goes on with any attack on scores; who does not know it sees a fixed
map. Only together with rounding, after it, does it cost an adversary anything, and then honest
clients as well. Beyond 150 small shares vanish in float32. White-box access is untouched.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import above_zero

__all__ = ["CARD", "inverse", "one_parameter_dp"]

CARD = Card(
    title="One parameter defense",
    paper="Ye, Shen, Zhu, Liu, Zhou. One Parameter Defense. IEEE TIFS 2022",
    url="https://arxiv.org/abs/2203.06580",
    year=2022,
    modality="any",
    hook="answer",
)


def one_parameter_dp(*, epsilon: Scalar = 10.0) -> Defense:
    """The defense: answers at serving time through the exponential mechanism's weights.

    Args:
      epsilon: the budget, above 0; the smaller, the flatter are answers. No value changes nothing.

    Raises:
      ValueError: if epsilon is not above 0 and finite.

    >>> served = one_parameter_dp(epsilon=1.0).answer(jax.random.key(0), jnp.array([1.0, 0.0]))
    >>> [round(float(p), 4) for p in served]
    [0.6225, 0.3775]
    """
    above_zero(epsilon=epsilon)

    def answer(key: Any, served: Any) -> Any:
        del key
        return jax.nn.softmax(epsilon * served / 2)

    return Defense(answer=answer, keeps_label=True)


def inverse(served: Float[Array, "*n classes"], epsilon: Scalar) -> Float[Array, "*n classes"]:
    """The scores that were served so: what an adversary who knows of the defense computes.

    >>> [round(float(p), 3) for p in inverse(jnp.array([0.575, 0.425]), 1.0)]
    [0.802, 0.198]
    """
    logs = jnp.log(served)
    apart = logs - jnp.mean(logs, -1, keepdims=True)
    return 1 / served.shape[-1] + 2 / epsilon * apart
