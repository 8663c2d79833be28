"""A random graph in which every node has the degree that it has in the true one."""

from typing import Any

import numpy as np
from jaxtyping import Int

__all__ = ["rewired"]

_TRIES = 100  # per accepted swap, before the graph counts as one that cannot be rewired
_BLOCK = 1 << 16  # tries drawn at a time


def rewired(edges: Int[Any, "m 2"], nodes: int, *, swaps: int | None = None, seed: int = 0) -> Int[np.ndarray, "m 2"]:
    """Edges after accepted double-edge swaps: {a, b}, {c, d} become {a, d}, {c, b}.

    Every degree stays; triangles, classes that keep to themselves and components do not. A swap
    that would make a loop or an edge twice is not accepted (Maslov and Sneppen, Science 296, 2002).
    10 swaps per edge leave little but the degrees: of Cora's 5,278 edges 34 are in the new graph as
    well, and the degrees alone give 42.

    A network that is trained and served on this graph is the control of a link attack. Against the
    ORIGINAL edges the attack must not beat what is known without the graph. Against the rewired
    ones it may well succeed: it is they that the network holds.

    Args:
      edges: node pairs, each once, no loop.
      nodes: how many the graph has.
      swaps: to accept; 10 per edge by default.
      seed: of the draws, at least 0.

    Returns:
      Pairs (i, j) with i < j, sorted, in the dtype of `edges`, as `Graph.edges`.

    Raises:
      ValueError: edges that are no such pairs, an option out of range, or a graph of whose degrees
        there are so few others (a star, a complete graph) that swaps are all but never accepted.

    >>> rewired(np.array([[0, 1], [2, 3]]), 4, swaps=1, seed=1).tolist()
    [[0, 3], [1, 2]]
    """
    pairs = np.asarray(edges)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"edges: shape {pairs.shape}, {pairs.dtype}; legal are integers [m, 2]")
    if len(pairs) and not (0 <= pairs.min() and pairs.max() < nodes):
        raise ValueError(f"edges: nodes {pairs.min()} to {pairs.max()}; legal is 0 to {nodes - 1}")
    wanted = 10 * len(pairs) if swaps is None else swaps
    if wanted < 0 or seed < 0:
        raise ValueError(f"swaps: {wanted}, seed: {seed}; legal is 0 or more")
    first, second = (np.sort(pairs, axis=1).astype(np.int64).T).tolist()
    present = {i * nodes + j for i, j in zip(first, second)}
    if len(present) < len(first) or any(i == j for i, j in zip(first, second)):
        raise ValueError("edges: a loop or a pair twice, perhaps as (i, j) and (j, i); legal is each pair once")
    rng = np.random.default_rng(seed)
    accepted = tries = 0
    block = min(2 * wanted + 64, _BLOCK)
    while accepted < wanted:
        if len(first) < 2 or tries > _TRIES * (wanted + _TRIES):
            raise ValueError(
                f"swaps: {wanted}, but {accepted} of {tries} tries were accepted; legal is a graph whose degrees "
                "leave others to swap to"
            )
        tries += block
        chosen = rng.integers(0, len(first), (2, block)).tolist()
        turned = rng.random(block) < 0.5
        for one, other, turn in zip(*chosen, turned.tolist()):
            a, b = first[one], second[one]
            c, d = (second[other], first[other]) if turn else (first[other], second[other])
            near = a * nodes + d if a < d else d * nodes + a
            far = c * nodes + b if c < b else b * nodes + c
            # An edge drawn twice has d = a, a loop, or d = b, which stands already.
            if a == d or c == b or near in present or far in present:
                continue
            present.difference_update((min(a, b) * nodes + max(a, b), min(c, d) * nodes + max(c, d)))
            present.update((near, far))
            second[one], first[other], second[other] = d, c, b
            accepted += 1
            if accepted == wanted:
                break
    keys = np.sort(np.fromiter(present, np.int64, len(present)))
    return np.stack(np.divmod(keys, nodes), axis=1).astype(pairs.dtype)
