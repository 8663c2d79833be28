"""GAP's network: an encoder without a graph, sums over neighbors that are made once, and a classifier of these.

Sajadmanesh, Shamsabadi, Bellet, Gatica-Perez, "GAP: Differentially Private Graph Neural Networks with Aggregation
Perturbation", USENIX Security 2023. With A the adjacency and every x_k scaled to rows of norm 1:

    x_0 = encoder(X),   x_k = unit rows of (A x_{k-1} + deviation * N(0, I)),   logits = classifier([x_0 .. x_K])

The classifier never sees A, so that the x_k can be drawn once, before its training (`Aggregation.private`), and serve as
its data. Without noise it is the paper's GAP-infinity. How much noise protects an edge is no matter of this module.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxmia.models.features import expose

__all__ = ["Aggregation", "HopClassifier", "HopEncoder", "aggregates", "no_noise", "unit_rows"]


def unit_rows(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Each row divided by its norm; a row of zeros stays one.

    >>> unit_rows(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), 1e-24))


def no_noise(hops: int) -> float:
    """The standard deviation of no noise."""
    del hops
    return 0.0


def aggregates(
    encoded: Float[Array, "*b n d"],
    sums: Callable[[Any], Any],
    hops: int,
    *,
    key: Any = None,
    deviation: Any = 0.0,
) -> Float[Array, "*b hops_and_one n d"]:
    """x_0 to x_K as above, stacked before the nodes.

    Args:
      encoded: of the nodes; rows are scaled to norm 1.
      sums: `x -> A x`, over the neighbors of each node.
      hops: K, 1 or more.
      key: of the noise, consumed; None adds none.
      deviation: of the noise of each number.
    """
    x = unit_rows(encoded)
    stack = [x]
    for hop in range(hops):
        total = sums(x)
        if key is not None:
            total = total + deviation * jax.random.normal(jax.random.fold_in(key, hop), total.shape, total.dtype)
        x = unit_rows(total)
        stack.append(x)
    return jnp.stack(stack, -3)


class HopEncoder(nn.Module):
    """Features of nodes to logits, without the graph; two layers of `width`, sown as "encoded" with rows of norm 1.

    As released: batch normalization over the nodes and SELU between the layers and after the second, then one layer.

    Attributes:
      classes: of the nodes.
      width: numbers of an encoded node.
    """

    classes: int
    width: int = 16

    @nn.compact
    def __call__(self, features: Float[Array, "*b n d"], train: bool = False) -> Float[Array, "*b n classes"]:
        """Returns logits."""
        x = nn.selu(_norm(train)(nn.Dense(self.width)(features)))
        x = unit_rows(nn.Dense(self.width)(x))
        expose(self, "encoded", x)
        return nn.Dense(self.classes)(nn.selu(_norm(train)(x)))


class HopClassifier(nn.Module):
    """x_0 to x_K to logits: one layer for each, concatenated and scaled to norm 1, batch normalization, SELU, one layer.

    Sows what the last layer sees, `[*b, n, (K + 1) * width]`, as "embedding".

    Attributes:
      classes: of the nodes.
      width: numbers that are made of each x_k.
    """

    classes: int
    width: int = 16

    @nn.compact
    def __call__(self, hops: Float[Array, "*b k n d"], train: bool = False) -> Float[Array, "*b n classes"]:
        """Returns logits."""
        parts = [nn.Dense(self.width)(hops[..., k, :, :]) for k in range(hops.shape[-3])]
        x = nn.selu(_norm(train)(unit_rows(jnp.concatenate(parts, -1))))
        expose(self, "embedding", x)
        return nn.Dense(self.classes)(x)


class Aggregation(nn.Module):
    """The network of adjacencies `[*b, n, n]` for who asks about a graph of their own: no noise is added to theirs.

    It holds neither the private graph nor the key of its noise. Train `classifier` on `private(key, edges)[None]`; its
    variables are those of this module with "classifier" put before them.

    Attributes:
      encoded: of the nodes `[n, d]`, by an encoder that never saw the graph.
      classifier: a `HopClassifier`.
      hops: K.
      deviation: `hops -> ` the standard deviation of the noise of each sum; a defense puts its own here.
    """

    encoded: Any
    classifier: nn.Module
    hops: int = 2
    deviation: Callable[[int], float] = no_noise

    def __call__(self, adjacencies: Float[Array, "*b n n"], train: bool = False) -> Float[Array, "*b n classes"]:
        """Returns the logits of every node."""
        encoded = jnp.broadcast_to(self.encoded, (*adjacencies.shape[:-1], self.encoded.shape[-1]))
        return self.classifier(aggregates(encoded, lambda x: adjacencies @ x, self.hops), train)

    @nn.nowrap
    def private(self, key: Any, edges: Int[Any, "m 2"]) -> Float[Array, "hops_and_one n d"]:
        """The sums over the private graph, with noise: call it once, and train and answer from what it returns.

        Args:
          key: of the noise, as secret as the graph; consumed.
          edges: each once, in one direction.
        """
        ends = jnp.asarray(edges, jnp.int32)
        into, out = jnp.concatenate([ends, ends[:, ::-1]]).T
        encoded = jnp.asarray(self.encoded)

        def sums(x: Any) -> Any:
            return jnp.zeros_like(x).at[into].add(x[out])

        return aggregates(encoded, sums, self.hops, key=key, deviation=self.deviation(self.hops))


def _norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)
