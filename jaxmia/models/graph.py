"""Node classifiers on a dense adjacency, so that the gradient with respect to every possible edge exists.

All map `(adjacency [n, n], features [n, d])` to logits `[n, classes]`, by two layers. Entries of an adjacency lie in
[0, 1], its diagonal is zero. On lists of edges they are in `models.graph_sparse`, with the same parameters.

What a network does with edges, a function of rows `[n, k]`, is apart from its layers, which both forms share.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxmia.models.features import expose

__all__ = [
    "GAT",
    "GCN",
    "SAGE",
    "MeanConvolution",
    "NodeMLP",
    "attention_scores",
    "most_attention",
    "neighbor_mean",
    "normalize_adjacency",
    "weighted_mean",
    "with_ones",
]


def normalize_adjacency(adjacency: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Returns `D^-1/2 (A + I) D^-1/2` with `D = diag(sum_j (A + I)_ij)` (Kipf and Welling 2017, section 2.2).

    Differentiable in `adjacency`, whose entries lie in [0, 1] and whose diagonal is zero; each node then has a
    degree of at least 1, and no division needs a guard.

    >>> normalize_adjacency(jnp.array([[0.0, 1.0], [1.0, 0.0]])).round(4).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    looped = adjacency + jnp.eye(adjacency.shape[0], dtype=adjacency.dtype)
    scale = lax.rsqrt(jnp.sum(looped, axis=1))
    return scale[:, None] * looped * scale[None, :]


class GCN(nn.Module):
    """Two-layer graph convolutional network, `A' relu(A' X W1) W2` (Kipf and Welling 2017, eq. 9), without dropout.

    Sows the hidden layer, `[n, hidden]`, into "features" as "embedding".

    Attributes:
      hidden: units of the hidden layer.
      classes: number of classes.
    """

    hidden: int
    classes: int

    def __call__(
        self, adjacency: Float[Array, "n n"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node; `adjacency` is neither normalized nor looped, see `normalize_adjacency`."""
        scale = lax.rsqrt(jnp.sum(adjacency, axis=1) + 1)[:, None]

        def spread(x: Float[Array, "n k"]) -> Float[Array, "n k"]:
            # A' x without A', through which gradients on CPU take five times as long under vmap.
            return scale * (adjacency @ (scale * x) + scale * x)

        return self.layers(spread, features)

    @nn.compact
    def layers(self, spread: Callable[[Any], Any], features: Float[Array, "n d"]) -> Float[Array, "n classes"]:
        """The network; `spread` is x -> A' x."""
        x = spread(nn.Dense(self.hidden, use_bias=False)(features))
        x = nn.relu(x + self.param("bias1", nn.initializers.zeros_init(), (self.hidden,)))
        expose(self, "embedding", x)
        x = spread(nn.Dense(self.classes, use_bias=False)(x))
        return x + self.param("bias2", nn.initializers.zeros_init(), (self.classes,))


def neighbor_mean(adjacency: Float[Array, "... n n"]) -> Callable[[Float[Array, "... n k"]], Float[Array, "... n k"]]:
    """`x -> A x / max(A 1, 1)`: the mean over neighbors, zero for a node without any.

    On a 0/1 graph this is the mean. Between 0 and 1, weights that sum to less than 1 are not scaled up to it: the mean
    proper does not depend on the weight of a node's only edge, so it jumps where that weight gets to zero, and there
    its gradient has no bound. Attacks that relax a graph begin at the empty one.
    """
    scale = 1 / jnp.maximum(jnp.sum(adjacency, axis=-1, keepdims=True), 1)
    return lambda x: scale * (adjacency @ x)


class MeanConvolution(nn.Module):
    """`X W + mean(X) V + b` (Hamilton et al. 2017, Algorithm 1 with the mean aggregator), without activation.

    Attributes:
      width: columns of the result.
    """

    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "... n k"], mean: Callable[[Float[Array, "... n w"]], Float[Array, "... n w"]]
    ) -> Float[Array, "... n width"]:
        """Returns one row per node; `mean` is over neighbors, see `neighbor_mean`."""
        own = nn.Dense(self.width, name="own")(x)
        # mean(X V) = mean(X) V, over fewer columns than X has.
        return own + mean(nn.Dense(self.width, use_bias=False, name="neighbors")(x))


class SAGE(nn.Module):
    """Two-layer GraphSAGE with the mean aggregator over all neighbors (Hamilton et al. 2017), without dropout.

    Rows are not scaled to unit length, unlike in the paper. Sows the hidden layer, `[n, hidden]`, into "features" as
    "layer1" and "embedding", which is the last hidden layer of every network here.

    Attributes:
      hidden: units of the hidden layer.
      classes: number of classes.
    """

    hidden: int
    classes: int

    def __call__(
        self, adjacency: Float[Array, "n n"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node."""
        return self.layers(neighbor_mean(adjacency), features)

    @nn.compact
    def layers(self, mean: Callable[[Any], Any], features: Float[Array, "n d"]) -> Float[Array, "n classes"]:
        """The network; `mean` is over neighbors."""
        x = nn.relu(MeanConvolution(self.hidden, name="convolution1")(features, mean))
        expose(self, "layer1", x)
        expose(self, "embedding", x)
        return MeanConvolution(self.classes, name="convolution2")(x, mean)


def attention_scores(receive: Float[Array, "..."], send: Float[Array, "..."]) -> Float[Array, "..."]:
    """`LeakyReLU(receive + send)` of slope 0.2, Velickovic et al. 2018, eq. 3."""
    return nn.leaky_relu(receive + send, 0.2)


def most_attention(receive: Float[Array, "n ..."], send: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """The largest score that each node has with any node, linked or not: less it, no score overflows in an exponential.

    The largest over neighbors would not do: the gradient with respect to an edge that is not there needs its score.
    """
    return lax.stop_gradient(attention_scores(receive, jnp.max(send, axis=0)))


def weighted_mean(sums: Float[Array, "... weighted"]) -> Float[Array, "... k"]:
    """All columns but the last over the last, the sum of weights."""
    # Where all scores of a node are 41 or more below the largest, weights sum to next to nothing: no 0/0, and below 1e-19
    # the square that the gradient divides by would be 0 in float32.
    return sums[..., :-1] / jnp.maximum(sums[..., -1:], 1e-18)


def with_ones(x: Float[Array, "... k"]) -> Float[Array, "... extended"]:
    """A column of ones behind the others, so that one sum gives that of the weights too."""
    return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)


class GAT(nn.Module):
    """Two-layer graph attention network (Velickovic et al. 2018).

    The weight of j for i is `B_ij exp(e_ij) / sum_k B_ik exp(e_ik)` with B = A + I and `e_ij = LeakyReLU(p . z_i +
    q . z_j)`: on a 0/1 graph that of the paper; an edge of weight near 0 counts little, and one of 0 not at all.

    Sows the hidden layer, `[n, heads * hidden]`, after ELU, into "features" as "layer1" and "embedding".

    Attributes:
      hidden: units of each head of the hidden layer.
      classes: number of classes.
      heads: of the hidden layer, side by side.
      last_heads: of the last layer, whose mean are the logits; the paper has 1, and 8 for PubMed.
      dropout: share of the inputs of each layer that is left out in training, by the rng "dropout". The paper drops
        weights of attention as well, which on a dense adjacency takes as many random numbers as it has pairs.
    """

    hidden: int
    classes: int
    heads: int = 8
    last_heads: int = 1
    dropout: float = 0.6

    def __call__(
        self, adjacency: Float[Array, "n n"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node."""

        def attend(z: Float[Array, "n h k"], receive: Float[Array, "n h"], send: Float[Array, "n h"]) -> Any:
            @jax.checkpoint  # [n, n] weights are made again, so that gradients keep none of them
            def head(one: tuple[Any, Any, Any]) -> Float[Array, "n k"]:
                z, receive, send = one
                most = most_attention(receive, send)
                links = adjacency * jnp.exp(attention_scores(receive[:, None], send) - most[:, None])
                own = jnp.exp(attention_scores(receive, send) - most)
                return weighted_mean(links @ with_ones(z) + own[:, None] * with_ones(z))

            # One head after another: 8 matrices [n, n] of weights at a time are 0.5 GB at n = 4,000.
            return jnp.moveaxis(lax.map(head, (jnp.moveaxis(z, 1, 0), receive.T, send.T)), 0, 1)

        return self.layers(attend, features, train)

    @nn.compact
    def layers(self, attend: Callable[[Any, Any, Any], Any], features: Float[Array, "n d"], train: bool) -> Any:
        """The network; `attend` is `(z [n, heads, k], p . z [n, heads], q . z [n, heads]) -> [n, heads, k]`."""
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        x = self._attention(attend, x, 1, self.heads, self.hidden)
        x = x.reshape(len(features), self.heads * self.hidden)
        x = nn.elu(x + self.param("bias1", nn.initializers.zeros_init(), (self.heads * self.hidden,)))
        expose(self, "layer1", x)
        expose(self, "embedding", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = jnp.mean(self._attention(attend, x, 2, self.last_heads, self.classes), axis=1)
        return x + self.param("bias2", nn.initializers.zeros_init(), (self.classes,))

    def _attention(self, attend: Callable[[Any, Any, Any], Any], x: Any, layer: int, heads: int, width: int) -> Any:
        z = nn.Dense(heads * width, use_bias=False, name=f"dense{layer}")(x).reshape(len(x), heads, width)
        draw = nn.initializers.lecun_normal(in_axis=1, out_axis=0)
        receive, send = (self.param(f"{name}{layer}", draw, (heads, width)) for name in ("receive", "send"))
        return attend(z, jnp.sum(z * receive, -1), jnp.sum(z * send, -1))


class NodeMLP(nn.Module):
    """A node classifier that never sees edges: what seems to leak from it, it does not know. The control of the others.

    Sows the hidden layer, `[n, hidden]`, into "features" as "layer1" and "embedding".

    Attributes:
      hidden: units of the hidden layer.
      classes: number of classes.
    """

    hidden: int
    classes: int

    @nn.compact
    def __call__(
        self, adjacency: Float[Array, "n n"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node, the same for every adjacency."""
        del adjacency
        x = nn.relu(nn.Dense(self.hidden)(features))
        expose(self, "layer1", x)
        expose(self, "embedding", x)
        return nn.Dense(self.classes)(x)
