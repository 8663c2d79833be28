"""Edges of an undirected graph, relaxed to [0, 1]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar

__all__ = ["edges"]


def edges(nodes: int, *, features: Float[Array, "nodes d"] | None = None, smoothness: Scalar = 0.0) -> Prior:
    """A symmetric adjacency without self loops, each entry in [0, 1], with feature smoothness believed.

    The latent is the full matrix of which the upper triangle counts; decode mirrors it. The penalty is
    smoothness * tr(X' L X) with the normalized Laplacian L = I - D^-1/2 A D^-1/2 (GraphMI, Zhang et al., IJCAI 2021,
    eq. 5, with the released code's normalization).

    Args:
      nodes: how many.
      features: X, needed when smoothness is not zero.
      smoothness: alpha of the paper.

    Raises:
      ValueError: for fewer than two nodes.
    """
    if nodes < 2:
        raise ValueError(f"nodes: {nodes}; legal is 2 or more")

    def decode(latent: Float[Array, "nodes nodes"]) -> Float[Array, "nodes nodes"]:
        upper = jnp.triu(latent, 1)
        return upper + upper.T

    def penalty(latent: Array, adjacency: Float[Array, "nodes nodes"]) -> Float[Array, ""]:
        if features is None:
            return jnp.zeros(())
        scale = jax.lax.rsqrt(jnp.sum(adjacency, 1) + 1e-3)
        scaled = features * scale[:, None]
        return smoothness * (jnp.sum(features**2) - jnp.sum(scaled * (adjacency @ scaled)))

    return Prior(
        lambda key: jnp.zeros((nodes, nodes)), decode, penalty, lambda latent: jnp.clip(latent, 0.0, 1.0)
    )
