"""What two nodes of a graph have in common: distances and other features of a pair, and a score of every pair.

He, Jia, Backes, Gong, Zhang, "Stealing Links from Graph Neural Networks", USENIX Security 2021
(https://arxiv.org/abs/2005.02131): eight distances, four operations by elements, and entropies. All are of
ONE node or pair, batch by vmap; those of a pair are the same both ways.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = [
    "DISTANCES", "Vector", "distance", "distances", "entropy", "every_pair", "operations", "some_pairs", "vector",
]  # fmt: skip

ROWS, PAIRS = 4, 256  # so many nodes with all their pairs, or pairs, are held at once


class Vector(NamedTuple):
    """One node's vector, and what distances need of it alone.

    Attributes:
      plain: the vector.
      unit: over its length; zero where that is zero.
      centered: less its own mean, then over its length; zero where that is zero.
      lengths: of the vector, and of it less its mean.
    """

    plain: Float[Array, " k"]
    unit: Float[Array, " k"]
    centered: Float[Array, " k"]
    lengths: Float[Array, "2"]


def vector(plain: Float[Array, " k"]) -> Vector:
    """Makes a `Vector`."""
    centered = plain - jnp.mean(plain)
    lengths = jnp.stack([jnp.linalg.norm(plain), jnp.linalg.norm(centered)])
    return Vector(plain, _ratio(plain, lengths[0]), _ratio(centered, lengths[1]), lengths)


def _ratio(top: Any, bottom: Any) -> Any:
    """top / bottom, 0 where that is not defined."""
    return jnp.where(bottom > 0, top / jnp.where(bottom > 0, bottom, 1.0), 0.0)


def _angle(u: Array, v: Array, lengths: Array) -> Array:
    """1 - cos as half the squared distance of unit vectors, since in float32 the difference keeps no digit of near ones."""
    return jnp.where(jnp.min(lengths) > 0, jnp.sum((u - v) ** 2) / 2, 0.0)


_DISTANCES: dict[str, Callable[[Vector, Vector], Any]] = {
    "cosine": lambda u, v: _angle(u.unit, v.unit, jnp.stack([u.lengths[0], v.lengths[0]])),
    "euclidean": lambda u, v: jnp.linalg.norm(u.plain - v.plain),
    "correlation": lambda u, v: _angle(u.centered, v.centered, jnp.stack([u.lengths[1], v.lengths[1]])),
    "chebyshev": lambda u, v: jnp.max(jnp.abs(u.plain - v.plain)),
    "braycurtis": lambda u, v: _ratio(jnp.sum(jnp.abs(u.plain - v.plain)), jnp.sum(jnp.abs(u.plain + v.plain))),
    "canberra": lambda u, v: jnp.sum(_ratio(jnp.abs(u.plain - v.plain), jnp.abs(u.plain) + jnp.abs(v.plain))),
    "cityblock": lambda u, v: jnp.sum(jnp.abs(u.plain - v.plain)),
    "sqeuclidean": lambda u, v: jnp.sum((u.plain - v.plain) ** 2),
}
DISTANCES = tuple(_DISTANCES)
"""Names of the distances, as in scipy."""


def distance(name: str, u: Vector, v: Vector) -> Float[Array, ""]:
    """One of `DISTANCES`, 0 or more; where it is not defined, as the cosine of a zero vector, 0 as in the released code.

    The correlation takes each vector less its own mean, so that of two numbers it is 0 or 2 alone.

    Raises:
      ValueError: for a name that is none of them.

    >>> float(distance("canberra", vector(jnp.asarray([1.0, 0.0])), vector(jnp.asarray([3.0, 0.0]))))
    0.5
    """
    if name not in _DISTANCES:
        raise ValueError(f"distance: {name!r}; legal is one of {', '.join(DISTANCES)}")
    return _DISTANCES[name](u, v)


def distances(u: Vector, v: Vector) -> Float[Array, "8"]:
    """All of `DISTANCES`, in that order."""
    return jnp.stack([distance(name, u, v) for name in DISTANCES])


def operations(u: Float[Array, " k"], v: Float[Array, " k"]) -> Float[Array, " 4*k"]:
    """Mean, product, distance and squared distance of each element.

    >>> operations(jnp.asarray([1.0]), jnp.asarray([4.0])).tolist()
    [2.5, 4.0, 3.0, 9.0]
    """
    return jnp.concatenate([(u + v) / 2, u * v, jnp.abs(u - v), (u - v) ** 2])


def entropy(p: Float[Array, " k"]) -> Float[Array, ""]:
    """-sum of (p + 1e-5) ln(p + 1e-5), in nats, of probabilities."""
    p = p + 1e-5
    return -jnp.sum(p * jnp.log(p))


def some_pairs(fn: Callable[[Any, Any], Any], nodes: Any, pairs: Int[Any, "p 2"]) -> Any:
    """`fn(node, other)` of the pairs named, leaves `[p, ...]`; `nodes` is a tree of arrays `[n, ...]`."""
    pairs = jnp.asarray(pairs)
    return _in_blocks(lambda i: fn(_node(nodes, pairs[i, 0]), _node(nodes, pairs[i, 1])), len(pairs), PAIRS)


def every_pair(score: Callable[[Any, Any], Float[Array, ""]], nodes: Any) -> Float[Array, "n n"]:
    """`score(node, other)` of every two nodes, symmetric with a zero diagonal; few rows are computed at once.

    Args:
      score: of two nodes, the one of lower number first.
      nodes: a tree of arrays `[n, ...]`.

    >>> every_pair(lambda u, v: u + v, jnp.arange(3.0)).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]]
    """
    count = jax.tree.leaves(nodes)[0].shape[0]
    rows = _in_blocks(lambda i: jax.vmap(lambda other: score(_node(nodes, i), other))(nodes), count, ROWS)
    upper = jnp.triu(rows, 1)
    return upper + upper.T


def _node(nodes: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], nodes)


def _in_blocks(fn: Callable[[Any], Any], count: int, size: int) -> Any:
    """`fn(i)` of 0 to count - 1, `size` at once. The last block begins anew: a smaller one would be compiled for itself."""
    blocks = (jnp.arange(-(-count // size) * size) % count).reshape(-1, size)
    found = jax.lax.map(jax.vmap(fn), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)
