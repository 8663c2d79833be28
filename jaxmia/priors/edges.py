"""Edges of an undirected graph, relaxed to [0, 1]."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar

__all__ = ["edges"]

_BISECTIONS = 26  # halvings of [0, largest entry]: below the spacing of float32


def edges(
    nodes: int,
    *,
    features: Float[Any, "nodes d"] | None = None,
    smoothness: Scalar = 0.0,
    sparsity: Scalar = 0.0,
    norm: int = 1,
    budget: Scalar | None = None,
    offset: Scalar = 1e-3,
) -> Prior:
    """A symmetric adjacency without self loops, each entry in [0, 1], sparse and joining nodes of like features.

    The latent is a full matrix of which the part above the diagonal, a, counts; decode mirrors it. It starts at zero.
    The penalty is that of GraphMI (Zhang et al., IJCAI 2021),

        smoothness * tr(X' D^-1/2 (D - A) D^-1/2 X) + sparsity * |a|,

    whose first term is the sum over edges of A_ij |x_i / sqrt(d_i) - x_j / sqrt(d_j)|^2, so that a node without edges
    costs nothing. The degrees under the root are d_i + offset. Near A = 0 the slope of that term is
    |x_i - x_j|^2 / offset, against every edge: a descent that starts there with it does not move.

    Args:
      nodes: how many.
      features: X, needed when smoothness is not zero.
      smoothness: alpha of the paper.
      sparsity: beta of the paper.
      norm: 1 is the paper's sum of the entries; 2 the Euclidean norm of the released code, with slope 0 at zero.
      budget: most edges; the projection is then onto {0 <= a <= 1, sum a <= budget} (Xu et al., IJCAI 2019, proposition
        1), by bisection. None has no bound.
      offset: added to degrees, above 0; the released code's value.

    Raises:
      ValueError: for fewer than two nodes, another norm, smoothness without features, features of other nodes.
    """
    if nodes < 2:
        raise ValueError(f"nodes: {nodes}; legal is 2 or more")
    if norm not in (1, 2):
        raise ValueError(f"norm: {norm}; legal is 1 or 2")
    if features is None and not (isinstance(smoothness, int | float) and smoothness == 0):
        raise ValueError(f"features: None; smoothness {smoothness} needs them, legal is an array [{nodes}, d]")
    if features is not None and jnp.shape(features)[0] != nodes:
        raise ValueError(f"features: {jnp.shape(features)[0]} rows; legal is one for each of {nodes} nodes")
    # tr(X' A X) is the sum of A * (X X'): O(nodes^2) a step instead of O(nodes^2 d).
    likeness = None if features is None else jnp.asarray(features) @ jnp.asarray(features).T

    def decode(latent: Float[Array, "nodes nodes"]) -> Float[Array, "nodes nodes"]:
        upper = jnp.triu(latent, 1)
        return upper + upper.T

    def penalty(latent: Array, adjacency: Float[Array, "nodes nodes"]) -> Float[Array, ""]:
        total = jnp.zeros(())
        if likeness is not None:
            degrees = jnp.sum(adjacency, 1)
            scale = jax.lax.rsqrt(degrees + offset)
            across = scale @ ((adjacency * likeness) @ scale)  # not A * K * ss', whose gradient is slow under vmap
            total += smoothness * (jnp.sum(jnp.diagonal(likeness) * degrees * scale**2) - across)
        if norm == 1:
            return total + sparsity * jnp.sum(jnp.abs(adjacency)) / 2
        return total + sparsity * jnp.sqrt(jnp.sum(adjacency**2) / 2 + 1e-12)

    def project(latent: Float[Array, "nodes nodes"]) -> Float[Array, "nodes nodes"]:
        return jnp.clip(latent if budget is None else latent - _shift(latent, budget), 0.0, 1.0)

    def init(key: Any) -> Float[Array, "nodes nodes"]:
        del key
        # Without the barrier XLA takes half a minute to fold what is done with 2,708^2 zeros.
        return jax.lax.optimization_barrier(jnp.zeros((nodes, nodes)))

    return Prior(init, decode, penalty, project)


def _shift(latent: Float[Array, "nodes nodes"], budget: Scalar) -> Float[Array, ""]:
    """What to take from every pair so that, once clipped, they sum to the budget; 0 where they are below it."""

    def excess(shift: Array) -> Array:
        return jnp.sum(jnp.triu(jnp.clip(latent - shift, 0.0, 1.0), 1)) - budget

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        over = excess(middle) > 0
        return jnp.where(over, middle, ends[0]), jnp.where(over, ends[1], middle)

    zero = jnp.zeros((), latent.dtype)
    _, shift = jax.lax.fori_loop(0, _BISECTIONS, halve, (zero, jnp.maximum(jnp.max(latent), zero)))
    return jnp.where(excess(zero) > 0, shift, zero)
