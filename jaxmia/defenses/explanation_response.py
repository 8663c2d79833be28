"""Randomized response on explanations: each bit of which features a class rests on may be flipped.

Olatunji, Rathee, Funke, Khosla, "Private Graph Extraction via Feature Explanations", PETS 2023
(https://arxiv.org/abs/2206.14724), its defense. An explanation of a node is a vector of d bits, 1
for the features that its class rests on, and tells of the node's neighbors. Each bit is served
through a randomized response of its own, with p = e^epsilon / (1 + e^epsilon):

    ours (default)    the bit with probability p, else the other one
    released=True     the bit with probability p, else 1 with probability 1 - p and 0 with p

The first has epsilon for each bit, and d epsilon for an explanation of d bits that may be any
other.

What differs. The second is that of the released code (iyempissy/graph-stealing-attacks-with-
explanation). A 1 comes out of a 1 with p + (1 - p)^2 and of a 0 with (1 - p)^2, and the logarithm
of that ratio is the true epsilon of a bit: ln 3 = 1.10 where 0.0001 is claimed, 1.20 for 0.1, 2.41
for 1, 4.14 for 2 (`bit_epsilon`). Stated per bit, either number is small and says little: bits add
up.

Where it acts. `Target.explained` serves its explanation without any defense. The hook here is
`send`, of what is served beside the answer: an explanation that is a named feature of the network
meets it through `Target.until`, and whoever makes a table of explanations calls `send` on it once,
or `response`, and hands out that table. What is not 0 counts as 1, so that a mask of real numbers
is served as the bits of where it is not 0.

What it costs and does not do. One draw belongs to one query and is kept (`Target`); for another
query about the same nodes bits are drawn anew, and averaging over such queries undoes it. False
ones outnumber true ones where explanations are sparse. Similar nodes still have similar
explanations; who knows epsilon shrinks the noise and compares then: set that attack beside it. It
does not act on scores, and those who see weights explain for themselves.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import at_least_zero

__all__ = ["CARD", "bit_epsilon", "explanation_epsilon", "explanation_response", "response"]

CARD = Card(
    title="Randomized explanations",
    paper="Olatunji, Rathee, Funke, Khosla. Private Graph Extraction via Explanations. PETS 2023",
    url="https://arxiv.org/abs/2206.14724",
    year=2023,
    modality="graph",
    hook="send, spent",
)


def explanation_response(*, epsilon: Scalar = 1.0, released: bool = False) -> Defense:
    """The defense: bits that are sent, each through randomized response.

    Args:
      epsilon: of one bit, 0 or more; the larger, the fewer flip. With `released` it is what that
        code claims.
      released: whether the response is that of the released code, see above.

    Raises:
      ValueError: for an epsilon that is negative or not finite.

    >>> explanation_response(epsilon=2.0).spent(1, 1, 0)
    'epsilon 2 for one bit of an explanation, and d times that for all d bits'
    """
    at_least_zero(epsilon=epsilon)

    def send(key: Any, feature: Any) -> Any:
        return response(key, feature, epsilon, released=released)

    def spent(size: int, examples: int, steps: int) -> str:
        bit = float(bit_epsilon(epsilon, released=released))
        return f"epsilon {bit:.3g} for one bit of an explanation, and d times that for all d bits"

    return Defense(send=send, spent=spent)


def response(key: Any, bits: Any, epsilon: Scalar, *, released: bool = False) -> Any:
    """Bits of the same shape and dtype, 0 or 1, each randomized by itself.

    Args:
      key: consumed.
      bits: any shape; what is not 0 is a 1.
      epsilon: of a bit; with `released` what is claimed of it.
      released: as in `explanation_response`.

    >>> response(jax.random.key(0), jnp.array([0, 1, 5]), 40.0).tolist()
    [0, 1, 1]
    """
    bits = jnp.asarray(bits)
    one = bits != 0
    first, second = jax.random.split(key)
    flip = jax.nn.sigmoid(-jnp.asarray(epsilon, jnp.float32))
    changed = jax.random.uniform(first, bits.shape) < flip
    other = jax.random.uniform(second, bits.shape) < flip if released else ~one
    return jnp.where(changed, other, one).astype(bits.dtype)


def bit_epsilon(epsilon: Scalar, *, released: bool = False) -> Float[Array, ""]:
    """What one bit truly has: the largest log-ratio of the odds of an answer, of a 1 against a 0.

    >>> [round(float(bit_epsilon(e, released=True)), 2) for e in (1e-4, 0.1, 1.0, 2.0)]
    [1.1, 1.2, 2.41, 4.14]
    """
    epsilon = jnp.asarray(epsilon, jnp.float32)
    if not released:
        return epsilon
    flip = jax.nn.sigmoid(-epsilon)
    # (p + (1 - p)^2) / (1 - p)^2; the ratio of the zeros, (2 - p) / (1 - p), is no larger: p is a half or more.
    return jnp.log1p(jax.nn.sigmoid(epsilon) / flip**2)


def explanation_epsilon(epsilon: Scalar, bits: int, *, released: bool = False) -> Float[Array, ""]:
    """What an explanation of so many bits has, if it may be replaced by any other.

    >>> float(explanation_epsilon(0.5, 1433))
    716.5
    """
    return bits * bit_epsilon(epsilon, released=released)
