"""Pairs of nodes by number, so that a mechanism touches those it changes and not all n^2.

The pair (i, j) of n nodes, i < j, has the number i (2n - i - 1) / 2 + j - i - 1: row by row in the
triangle above the diagonal, from 0. All of this is numpy on the host, in 64-bit integers.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Int

__all__ = ["drawn_outside", "host_generator", "pair_count", "pair_numbers", "pairs_of", "rewritten"]


def host_generator(key: Any) -> np.random.Generator:
    """numpy's generator, seeded by a JAX key: the same key draws the same on every platform."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


def pair_count(nodes: int) -> int:
    """How many pairs there are.

    >>> pair_count(2708)
    3665278
    """
    return nodes * (nodes - 1) // 2


def pair_numbers(edges: Any, nodes: int) -> Int[np.ndarray, " m"]:
    """The numbers of edges `[m, 2]`, ascending, each once, whichever way round an edge is given.

    Raises:
      ValueError: for another shape, a loop, or a node that there is not.

    >>> pair_numbers([[2, 1], [0, 1], [1, 2]], 3).tolist()
    [0, 2]
    """
    ends = np.asarray(edges)
    if ends.size == 0:
        return np.zeros(0, np.int64)
    if ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype.kind not in "iu":
        raise ValueError(f"edges: {ends.dtype.name} {ends.shape}; legal is integers [m, 2]")
    low, high = np.sort(ends.astype(np.int64), 1).T
    wrong = (low < 0) | (high >= nodes) | (low == high)
    if wrong.any():
        i, j = ends[np.argmax(wrong)].tolist()
        raise ValueError(f"edges: ({i}, {j}); legal is two different nodes of 0 to {nodes - 1}")
    return np.unique(low * (2 * nodes - low - 1) // 2 + high - low - 1)


def pairs_of(numbers: Int[np.ndarray, " k"], nodes: int) -> Int[np.ndarray, "k 2"]:
    """The pairs of those numbers, i < j, int32.

    >>> pairs_of(np.array([0, 2]), 3).tolist()
    [[0, 1], [1, 2]]
    """
    row = np.arange(nodes, dtype=np.int64)
    first = row * (2 * nodes - row - 1) // 2  # the number of the pair that begins each row
    low = np.searchsorted(first[: max(nodes - 1, 1)], numbers, side="right") - 1
    return np.stack([low, numbers - first[low] + low + 1], 1).astype(np.int32)


def drawn_outside(
    rng: np.random.Generator, taken: Int[np.ndarray, " m"], size: int, count: int
) -> Int[np.ndarray, " count"]:
    """`count` different numbers of 0 to size - 1 that are not `taken`, each set of them as likely, ascending.

    Memory is that of what is drawn, but for a draw of a fiftieth of all and more, where it is `size`.

    Args:
      rng: draws.
      taken: ascending, each once.
      size: how many numbers there are.
      count: at most as many as are left.
    """
    rank = np.sort(rng.choice(size - len(taken), count, replace=False, shuffle=False)).astype(np.int64)
    # Before taken[k] there are taken[k] - k free numbers: rank r has passed those with r or fewer.
    return rank + np.searchsorted(taken - np.arange(len(taken)), rank, side="right")


def rewritten(
    rng: np.random.Generator, numbers: Int[np.ndarray, " m"], kept: Any, false: int, nodes: int
) -> Int[np.ndarray, "k 2"]:
    """The edges that are kept, and `false` others among the pairs that were none, `[k, 2]` in order.

    Args:
      rng: draws which.
      numbers: of the edges, ascending.
      kept: whether each stays, `[m]`.
      false: how many pairs become edges.
      nodes: of the graph.
    """
    made = drawn_outside(rng, numbers, pair_count(nodes), false)
    return pairs_of(np.sort(np.concatenate([numbers[np.asarray(kept, bool)], made])), nodes)
