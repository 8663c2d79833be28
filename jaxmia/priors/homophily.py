"""Edges that join nodes of like features, and give like nodes the same neighbors."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar
from jaxmia.priors.edges import edges

__all__ = ["homophily"]


def homophily(
    nodes: int,
    features: Float[Any, "nodes d"],
    *,
    first: Scalar = 1e-2,
    second: Scalar = 1e-2,
    budget: Scalar | None = None,
) -> Prior:
    """The relaxed adjacency of `priors.edges`, with the penalty first * O_1 + second * O_2.

    First and second order homophily, with u_i the features of a node as a unit vector and C = A A,
    the paths of two steps, without its diagonal:

        O_1 = sum A_ij |u_i - u_j|^2 / sum A_ij             neighbors are alike, in [0, 4]
        O_2 = 1 - sum C_ij u_i . u_j / sum C_ij             nodes of one neighbor are alike, in [0, 2]

    Both are means, so that they say which edges and not how many. Without an edge O_1 is 0, and
    without a path O_2 is, with slope 0: a descent from there begins without them. A row of zeros
    stays one. C is never
    formed: sum C_ij u_i . u_j = |A U|^2 - sum A_ij^2 |u_j|^2, which costs nodes^2 d a step.

    Args:
      nodes: how many.
      features: X.
      first: weight of O_1.
      second: weight of O_2.
      budget: most edges, as in `priors.edges`.

    Raises:
      ValueError: for fewer than two nodes, features of other nodes.
    """
    plain = edges(nodes, features=features, budget=budget)
    units = jnp.asarray(features)
    units = units / jnp.maximum(jnp.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    squares = jnp.sum(units**2, 1)
    apart = squares[:, None] + squares - 2 * units @ units.T

    def mean(total: Array, weight: Array) -> Float[Array, ""]:
        positive = weight > 0
        return jnp.where(positive, total / jnp.where(positive, weight, 1.0), 0.0)

    def penalty(latent: Array, adjacency: Float[Array, "nodes nodes"]) -> Float[Array, ""]:
        del latent
        own = jnp.sum(adjacency**2, 0)  # the diagonal of A A
        paths = jnp.sum(jnp.sum(adjacency, 1) ** 2) - jnp.sum(own)
        alike = jnp.sum((adjacency @ units) ** 2) - own @ squares
        return first * mean(jnp.sum(adjacency * apart), jnp.sum(adjacency)) + second * mean(paths - alike, paths)

    return plain._replace(penalty=penalty)
