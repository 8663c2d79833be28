"""Graph convolutions on a dense matrix of learned edge weights, and where such a matrix starts."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["WeightedGCN", "degree_normalized", "learned_edges", "nearest"]


def nearest(x: Float[Array, "n d"], neighbors: int) -> Float[Array, "n n"]:
    """1 in row i for node i and for the `neighbors` others of largest cosine, of equal ones the first; else 0.

    A row of zeros has cosine 0 with all.

    >>> nearest(jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0]]), 1).tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    """
    unit = x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    own = jnp.eye(len(x), dtype=bool)
    _, chosen = jax.lax.top_k(jnp.where(own, -jnp.inf, unit @ unit.T), neighbors)
    return jnp.sum(jax.nn.one_hot(chosen, len(x)), 1) + own


def learned_edges(latent: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The edge weights that a free matrix W stands for, above 0, symmetric and normalized by degrees.

    An entry is elu(W) + 1 (1 at 0, linear above, exponential below), averaged with that of the other direction.
    """
    above = jax.nn.elu(latent) + 1.0
    return degree_normalized((above + above.T) / 2)


def degree_normalized(weights: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """D^-1/2 S D^-1/2 of a symmetric S, 0 or more, whose loops are its own; D holds the sums of the rows.

    >>> degree_normalized(jnp.array([[1.0, 3.0], [3.0, 1.0]])).tolist()
    [[0.25, 0.75], [0.75, 0.25]]
    """
    scale = jax.lax.rsqrt(jnp.maximum(jnp.sum(weights, 1), 1e-20))
    return scale[:, None] * weights * scale[None, :]


class WeightedGCN(nn.Module):
    """Two layers A (X W + b), with a ReLU between them; A is taken as it is.

    While it is trained, `dropout` of the hidden units and `edge_dropout` of the entries of A are zero, by the
    random stream "dropout", and the others are scaled up.

    Attributes:
      hidden: units of the hidden layer.
      outputs: numbers of a node's result.
      dropout: share of hidden units, in [0, 1].
      edge_dropout: share of entries, in [0, 1].
    """

    hidden: int
    outputs: int
    dropout: Any = 0.5
    edge_dropout: Any = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "n d"], adjacency: Float[Array, "n n"], train: bool = False
    ) -> Float[Array, "n outputs"]:
        """Returns the second layer."""

        def dropped(value: Array, share: Any) -> Array:  # nn.Dropout takes no share that is traced
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - share, value.shape)
            return jnp.where(kept, value / jnp.maximum(1.0 - share, 1e-6), 0.0)

        if train:
            adjacency = dropped(adjacency, self.edge_dropout)
        x = nn.relu(adjacency @ nn.Dense(self.hidden)(x))
        if train:
            x = dropped(x, self.dropout)
        return adjacency @ nn.Dense(self.outputs)(x)
