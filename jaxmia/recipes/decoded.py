"""The decoder of a graph auto-encoder: like rows are likely neighbors."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["DECODERS", "decoded"]

DECODERS = ("sigmoid", "cosine")


def decoded(rows: Float[Array, "n d"], decoder: str = "cosine") -> Float[Array, "n n"]:
    """Scores of all pairs of rows, in [0, 1], symmetric with a zero diagonal.

    Args:
      rows: of the nodes.
      decoder: "sigmoid" of the inner product, which in float32 is 1 from 17 on and so ties the
        pairs it should rank; or "cosine", where it is positive. That of a zero row is 0.

    Raises:
      ValueError: for another decoder.

    >>> decoded(jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder: {decoder!r}; legal is one of {', '.join(DECODERS)}")
    if decoder == "cosine":
        squares = jnp.sum(rows**2, 1, keepdims=True)
        rows = rows * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))  # the slope of a norm is not defined at zero
    products = rows @ rows.T
    upper = jnp.triu(jnp.clip(products, 0.0, 1.0) if decoder == "cosine" else jax.nn.sigmoid(products), 1)
    return upper + upper.T  # a product of floats is symmetric but for rounding
