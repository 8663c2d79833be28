"""Link metrics of graphs too large for a matrix of scores: pairs of codes, a block at a time.

The 194 million pairs of 19,717 nodes are never in memory at once. The scores of the m edges are
sorted; each block of pairs is sorted too, and a binary search counts how many of its non-edges lie
between two edges. These counts are whole numbers, so the metrics are those of `link_auc` and its
relatives on the full matrix, exactly.

A score is formed in float64 and rounded to float32, and to 0 below 1e-12 of the lengths of its
codes. Rows that are equal or at right angles then tie wherever they stand in a block, which a
product of matrices does not promise.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from jaxmia.metrics.arrays import as_matrix
from jaxmia.metrics.graph import LinkScores
from jaxmia.metrics.link_tails import check_rate, ranking_tpr
from jaxmia.metrics.ranking import (
    Ranking,
    ranking_auc,
    ranking_average_precision,
    ranking_precision,
)

__all__ = ["LinkCounts", "PairCodes", "balanced_links", "link_counts", "pair_scores"]

_BLOCK_ELEMENTS = 1 << 22  # scores at a time, 32 MiB in float64
_NOISE = 2.0**-40  # of |left_i| |right_j|; rounding leaves less in a product of 8,000 numbers
_KINDS = ("dot", "cosine", "correlation", "negative_euclidean")


class PairCodes(NamedTuple):
    """Scores of all pairs of n nodes: that of (i, j) is kind(left_i, right_j), and so is (j, i)'s.

    Attributes:
      left, right: a code of k numbers per node; often the same.
      kind: "dot"; "cosine", 0 with a row of zeros; "correlation", the cosine once each row has lost
        its own mean, 0 with a constant row; "negative_euclidean", minus the distance, which takes k
        operations a pair without a product of matrices.
    """

    left: Real[Any, "n k"]
    right: Real[Any, "n k"]
    kind: str = "cosine"


class LinkCounts(NamedTuple):
    """How the edges lie among all pairs; what the metrics are computed from.

    Attributes:
      scores: the distinct scores of edges, falling.
      edges: edges of that score.
      tied: non-edges of that score.
      above: non-edges above that score.
      non_edges: all of them.
    """

    scores: Float[np.ndarray, " t"]
    edges: Int[np.ndarray, " t"]
    tied: Int[np.ndarray, " t"]
    above: Int[np.ndarray, " t"]
    non_edges: int

    def auc(self) -> float:
        """ROC AUC, as `link_auc` over the same pairs."""
        return float(ranking_auc(*self._ranking()))

    def average_precision(self) -> float:
        """Average precision, as `link_average_precision` over the same pairs."""
        return float(ranking_average_precision(*self._ranking()))

    def precision(self, density: float) -> float:
        """Precision among the round(density * pairs) best pairs, as `link_precision`."""
        ranking, weights = self._ranking()
        return ranking_precision(ranking, density, weights)

    def tpr(self, false_positive_rate: float) -> float:
        """Share of the edges found at a false positive rate, as the value of `link_tpr`."""
        check_rate(false_positive_rate, self.non_edges)
        ranking, weights = self._ranking()
        return ranking_tpr(ranking, false_positive_rate, weights)

    def _ranking(self) -> tuple[Ranking, Float[np.ndarray, " n"]]:
        # A score has three cases: non-edges since the last one, its edges, non-edges tied with them.
        size = len(self.scores)
        between = self.above - np.concatenate([[0], (self.above + self.tied)[:-1]])
        cases = np.stack([between, self.edges, self.tied], axis=1).ravel()
        rest = self.non_edges - self.above[-1] - self.tied[-1]
        positive = np.append(np.tile([False, True, False], size), False)
        starts = np.append(np.stack([3 * np.arange(size), 3 * np.arange(size) + 1], axis=1).ravel(), 3 * size)
        return Ranking(np.arange(3 * size + 1), positive, starts), np.append(cases, rest).astype(np.float64)


def pair_scores(codes: PairCodes, pairs: Int[Any, "p 2"]) -> Float[np.ndarray, " p"]:
    """Scores, float32, of the given pairs, in any order.

    Raises:
      ValueError: codes of two shapes, not finite, of no known kind, beyond float32, or whose score
        of (i, j) is not that of (j, i); pairs that do not join two different nodes.
    """
    left, right, kind = _prepared(codes)
    first, second = _ends(pairs, len(left)).T
    found = np.concatenate([_score_rows(left[i], right[j], kind) for i, j in _slices(first, second, left.shape[1])])
    turned = np.concatenate([_score_rows(left[j], right[i], kind) for i, j in _slices(first, second, left.shape[1])])
    # what cancels in a dot product leaves an error of the size of its terms
    if not np.allclose(found, turned, rtol=1e-5, atol=1e-6 * float(np.abs(found).max(initial=0))):
        worst = int(np.argmax(np.abs(found - turned)))
        raise ValueError(
            f"codes: {found[worst]} and {turned[worst]} of the pair {(int(first[worst]), int(second[worst]))}; "
            "legal is one score for (i, j) and (j, i)"
        )
    return found


def link_counts(codes: PairCodes, edges: Int[Any, "m 2"], *, without: Int[Any, "q 2"] | None = None) -> LinkCounts:
    """Counts over all pairs i < j, in the memory of a block; n^2 k operations and a sort.

    19,717 nodes with codes of 64 numbers take half a minute on two cores, and 130 MB.

    Args:
      codes: scores of the pairs.
      edges: those of the true graph, each once.
      without: pairs that are left out, edges or not, such as those that the adversary knew.

    Raises:
      ValueError: as `pair_scores`; edges that repeat; no edge or no non-edge left.
    """
    left, right, kind = _prepared(codes)
    nodes = len(left)
    linked = _keys(edges, nodes)
    hidden = np.zeros(0, np.int64) if without is None else _keys(without, nodes)
    linked, removed = np.setdiff1d(linked, hidden), np.union1d(linked, hidden)
    non_edges = nodes * (nodes - 1) // 2 - len(removed)
    if len(linked) == 0 or non_edges == 0:
        raise ValueError(f"edges: {len(linked)} to find among {non_edges} non-edges; legal is 1 or more of each")
    edge_scores = pair_scores(codes, np.stack(np.divmod(linked, nodes), axis=1))
    values, counts = np.unique(edge_scores, return_counts=True)
    below, upto = np.zeros((2, len(values)), np.int64)
    rows = max(1, _BLOCK_ELEMENTS // nodes)
    for start in range(0, nodes - 1, rows):
        stop = min(start + rows, nodes - 1)
        block = _score_block(left[start:stop], right[start:], kind)
        # Non-edges alone are counted. The rest is moved below all of them.
        block[np.tril_indices(stop - start, 0, nodes - start)] = -np.inf
        first, second = np.divmod(removed[slice(*np.searchsorted(removed, (start * nodes, stop * nodes)))], nodes)
        block[first - start, second - start] = -np.inf
        skipped = (stop - start) * (stop - start + 1) // 2 + len(first)
        flat = block.reshape(-1)
        flat.sort()
        below += np.searchsorted(flat, values, side="left") - skipped
        upto += np.searchsorted(flat, values, side="right") - skipped
    order = slice(None, None, -1)
    return LinkCounts(values[order], counts[order], (upto - below)[order], (non_edges - upto)[order], non_edges)


def balanced_links(codes: PairCodes, edges: Int[Any, "m 2"], *, seed: int = 0) -> LinkScores:
    """All edges and as many non-edges: `candidate_pairs`, "balanced", without a matrix.

    Non-edges are drawn without replacement; not those of `candidate_pairs` at the same seed. For
    `link_interval`, whose bootstrap over nodes is too dear on all pairs.
    """
    nodes = len(np.asarray(codes.left))
    linked = _keys(edges, nodes)
    absent = nodes * (nodes - 1) // 2 - len(linked)
    if not 0 < len(linked) <= absent:
        raise ValueError(f"edges: {len(linked)} among {absent} non-edges; legal is 1 to as many as non-edges")
    rng, drawn = np.random.default_rng(seed), np.zeros(0, np.int64)
    while len(drawn) < len(linked):
        first, second = rng.integers(0, nodes, (2, 4 * len(linked)))
        fresh = (first * nodes + second)[first < second]
        fresh = np.concatenate([drawn, fresh[~np.isin(fresh, linked)]])
        # the first of each, in the order of the draw
        drawn = fresh[np.sort(np.unique(fresh, return_index=True)[1])][: len(linked)]
    keys = np.sort(np.concatenate([linked, drawn]))
    pairs = np.stack(np.divmod(keys, nodes), axis=1)
    return LinkScores(pairs, pair_scores(codes, pairs).astype(np.float64), np.isin(keys, linked))


def _prepared(codes: PairCodes) -> tuple[np.ndarray, np.ndarray, str]:
    """Codes in float64 whose dot product, or distance, is the score."""
    if codes.kind not in _KINDS:
        raise ValueError(f"kind: {codes.kind!r}; legal are {', '.join(map(repr, _KINDS))}")
    left, right = (
        as_matrix("left", codes.left, minimum_rows=2),
        as_matrix("right", codes.right, minimum_rows=2),
    )
    if left.shape != right.shape:
        raise ValueError(f"right: shape {right.shape}; legal is {left.shape}, that of left")
    if codes.kind in ("cosine", "correlation"):
        left, right = (_unit_rows(side, codes.kind == "correlation") for side in (left, right))
    first, second = (float(np.linalg.norm(side, axis=1).max()) for side in (left, right))
    if (first + second if codes.kind == "negative_euclidean" else first * second) > float(np.finfo(np.float32).max):
        raise ValueError(f"codes: rows of length {first:g} and {second:g}; legal are scores within float32")
    return left, right, codes.kind


def _unit_rows(rows: np.ndarray, center: bool) -> np.ndarray:
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    moved = rows - rows.mean(axis=1, keepdims=True) if center else rows
    norm = np.linalg.norm(moved, axis=1, keepdims=True)
    # of a constant row rounding leaves 1e-17
    return np.divide(moved, norm, out=np.zeros_like(moved), where=norm > 1e-12 * size)


def _score_rows(first: np.ndarray, second: np.ndarray, kind: str) -> Float[np.ndarray, " p"]:
    if kind == "negative_euclidean":
        return -np.linalg.norm(first - second, axis=1).astype(np.float32)
    size = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1) if kind == "dot" else 1.0
    return _rounded(np.einsum("pk,pk->p", first, second), size)


def _score_block(first: np.ndarray, second: np.ndarray, kind: str) -> Float[np.ndarray, "r c"]:
    if kind == "negative_euclidean":
        from scipy.spatial.distance import cdist

        return -cdist(first, second).astype(np.float32)
    size = np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)) if kind == "dot" else 1.0
    return _rounded(first @ second.T, size)


def _rounded(products: np.ndarray, size: Any) -> np.ndarray:
    # What is 0 but for rounding has the sign of noise, which depends on where in the block it is.
    products[np.abs(products) < _NOISE * size] = 0
    return products.astype(np.float32)


def _slices(first: np.ndarray, second: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows = max(1, _BLOCK_ELEMENTS // width)
    for start in range(0, len(first), rows):
        yield first[start : start + rows], second[start : start + rows]


def _keys(pairs: Any, nodes: int) -> Int[np.ndarray, " p"]:
    """i * nodes + j of each pair i < j, sorted."""
    first, second = np.sort(_ends(pairs, nodes), axis=1).T
    keys = np.sort(first * nodes + second)
    if (np.diff(keys) == 0).any():
        raise ValueError("pairs: one is there twice, perhaps as (i, j) and (j, i); legal is each once")
    return keys


def _ends(pairs: Any, nodes: int) -> Int[np.ndarray, "p 2"]:
    ends = np.asarray(pairs)
    if ends.ndim != 2 or ends.shape[1] != 2 or not np.issubdtype(ends.dtype, np.integer):
        raise ValueError(f"pairs: shape {ends.shape}, {ends.dtype}; legal are integers [p, 2]")
    if len(ends) and (ends.min() < 0 or ends.max() >= nodes or (ends[:, 0] == ends[:, 1]).any()):
        raise ValueError(f"pairs: a loop, or nodes beyond 0 to {nodes - 1}; legal are two different nodes")
    return ends.astype(np.int64)
