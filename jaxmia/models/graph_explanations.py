"""What an explainer says of every node of a graph: which features its class rests on, one row per node.

For networks of node features, whose graph is fixed: `model(x)`, `x [n, d]`, gives `logits [n, classes]` of
all nodes. Both explain the loss -log p_i of the class that node i is given, and both are functions that
`Target.explained` takes. (`target.saliency` is of one candidate's largest logit, and so of one node alone.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["gradient_input", "mask_gradient"]

SLICE = 2**26
"""Numbers that are held side by side for columns or nodes: 256 MB."""


def mask_gradient(model: Callable[[Any], Any], x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The gradient by a mask of the features that all nodes share, without its sign ("Grad").

    e_i = |sum over v of x_v * d(-log p_i) / d x_v|: not the gradient by node i's own features. For a graph
    convolution it counts the words of the neighborhood (Olatunji, Rathee, Funke, Khosla, PETS 2023; their
    mask is of the 2-hop neighborhood, beyond which a network of two layers has no gradient).

    Args:
      model: from x to a value with `logits [n, classes]`.
      x: features.

    >>> from jaxmia import Outputs
    >>> x = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> [[round(float(v), 3) for v in row] for row in mask_gradient(lambda x: Outputs(x, {}), x)]
    [[0.238, 0.0], [0.0, 0.269]]
    """
    n, d = x.shape
    losses = _losses(model, x)
    # Forward: there are as many columns as features, and one pass tells a column for all nodes.
    _, tangent = jax.linearize(lambda mask: losses(x * mask), jnp.ones(d, x.dtype))
    columns = jax.lax.map(lambda k: tangent(jax.nn.one_hot(k, d, dtype=x.dtype)), jnp.arange(d), batch_size=_size(x, d))
    return jnp.abs(columns).T


def gradient_input(model: Callable[[Any], Any], x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The mean over nodes v of |x_v * d(-log p_i) / d x_v| ("GradInput").

    The released mean is over the nodes that the explainer is handed with node i, here over all n; that is a
    factor of the row.

    Args:
      model: from x to a value with `logits [n, classes]`.
      x: features.

    >>> from jaxmia import Outputs
    >>> x = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> [[round(float(v), 3) for v in row] for row in gradient_input(lambda x: Outputs(x, {}), x)]
    [[0.119, 0.0], [0.0, 0.134]]
    """
    n = len(x)
    _, back = jax.vjp(_losses(model, x), x)

    def row(i: Array) -> Float[Array, " d"]:
        (slope,) = back(jax.nn.one_hot(i, n, dtype=x.dtype))
        return jnp.mean(jnp.abs(x * slope), 0)

    return jax.lax.map(row, jnp.arange(n), batch_size=_size(x, n))


def _losses(model: Callable[[Any], Any], x: Any) -> Callable[[Any], Float[Array, " n"]]:
    """-log p of the class that each node is given at x, as a function of other features."""
    given = jnp.argmax(model(x).logits, -1)

    def losses(features: Any) -> Float[Array, " n"]:
        told = jax.nn.log_softmax(model(features).logits)
        return -jnp.take_along_axis(told, given[:, None], 1)[:, 0]

    return losses


def _size(x: Any, most: int) -> int:
    return min(most, max(1, SLICE // x.size))
