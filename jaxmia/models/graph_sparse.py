"""The node classifiers of `models.graph` on lists of edges: time and memory go with the edges, not with all pairs.

All map `(edges [m, 2], features [n, d])` to logits `[n, classes]`. Edges are node pairs, each undirected edge once and
none from a node to itself, as in `data.Graph`; they have no weights, hence no gradient. Parameters are those of the
dense network, and so is what is sown: what one was trained as, the other can serve.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxmia.models.graph import GAT, GCN, SAGE, attention_scores, most_attention, weighted_mean, with_ones

__all__ = ["SparseGAT", "SparseGCN", "SparseSAGE"]

Sum = Callable[[Float[Array, "m2 ..."]], Float[Array, "n ..."]]


def _directed(edges: Int[Any, "m 2"], nodes: int) -> tuple[Int[Array, " m2"], Int[Array, " m2"], Sum]:
    """Of each edge in both directions: who receives, who sends, and the sum over what every node receives."""
    edges = jnp.asarray(edges)
    receiver, sender = jnp.concatenate([edges, edges[:, ::-1]]).T
    return receiver, sender, lambda x: jax.ops.segment_sum(x, receiver, nodes)


class SparseGCN(GCN):
    """`models.GCN` on a list of edges."""

    def __call__(
        self, edges: Int[Any, "m 2"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node."""
        _, sender, total = _directed(edges, len(features))
        scale = lax.rsqrt(total(jnp.ones(len(sender), features.dtype)) + 1)[:, None]
        return self.layers(lambda x: scale * (total((scale * x)[sender]) + scale * x), features)


class SparseSAGE(SAGE):
    """`models.SAGE` on a list of edges."""

    def __call__(
        self, edges: Int[Any, "m 2"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node."""
        _, sender, total = _directed(edges, len(features))
        scale = 1 / jnp.maximum(total(jnp.ones(len(sender), features.dtype)), 1)[:, None]
        return self.layers(lambda x: scale * total(x[sender]), features)


class SparseGAT(GAT):
    """`models.GAT` on a list of edges."""

    def __call__(
        self, edges: Int[Any, "m 2"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node."""
        receiver, sender, total = _directed(edges, len(features))

        def attend(z: Float[Array, "n h k"], receive: Float[Array, "n h"], send: Float[Array, "n h"]) -> Any:
            most, rows = most_attention(receive, send), with_ones(z)
            links = jnp.exp(attention_scores(receive[receiver], send[sender]) - most[receiver])
            own = jnp.exp(attention_scores(receive, send) - most)
            return weighted_mean(total(links[..., None] * rows[sender]) + own[..., None] * rows)

        return self.layers(attend, features, train)
