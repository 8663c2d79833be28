"""Whether a reconstructed graph has the shape of the true one: degrees, triangles, spectrum.

An attack may miss the edges and still tell how the graph is built (DeepWalking backwards,
Chanpuriya et al., ICML 2021; MNEMON, Shen et al., CCS 2022). None of this asks the network. But for
the Frobenius distance nothing changes when nodes are renamed. Two graphs are compared, each a
symmetric 0/1 matrix whose diagonal is ignored; `strongest_pairs` and `adjacency_of` make one from
scores.

A graph of random edges already shares some of the shape. Report the same numbers for one with as
many edges, and for `data.rewire.rewired`, whose degrees are right by construction.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from jaxmia.metrics.arrays import as_classes, require_finite, require_same_length

__all__ = [
    "adjacency_of",
    "clustering_cosine",
    "clustering_divergence",
    "degree_distance",
    "degree_divergence",
    "frobenius_distance",
    "spectral_distance",
    "strongest_pairs",
    "wl_similarity",
]

_BINS = 10  # of the clustering coefficients, on [0, 1]


def strongest_pairs(scores: Real[Any, "n n"], count: int) -> Int[np.ndarray, "count 2"]:
    """The pairs i < j of the highest scores: a reconstructed graph with `count` edges.

    With as many as the truth has, the share of edges among them is precision and recall in one.
    Equal scores come in the order of the pairs, (0, 1), (0, 2), ..., (1, 2), ...: a score with many
    ties thus favors the nodes in front, where `link_precision` takes the mean over the ties. Look
    at `tied_share` first.

    Args:
      scores: symmetric and finite; the diagonal is ignored.
      count: 0 to the number of pairs.

    Returns:
      Pairs by falling score.

    >>> strongest_pairs(np.array([[0, 1, 3], [1, 0, 3], [3, 3, 0]]), 2).tolist()
    [[0, 2], [1, 2]]
    """
    values = _square("scores", scores)
    rows, columns = np.triu_indices(len(values), 1)
    upper, lower = values[rows, columns], values[columns, rows]
    if not np.allclose(upper, lower, rtol=1e-5, atol=1e-8):
        worst = int(np.argmax(np.abs(upper - lower)))
        place = (int(rows[worst]), int(columns[worst]))
        raise ValueError(f"scores: {upper[worst]} and {lower[worst]} of the pair {place}; legal is symmetric")
    if not 0 <= count <= len(upper):
        raise ValueError(f"count: {count}; legal is 0 to {len(upper)}, the pairs of {len(values)} nodes")
    best = np.argsort(-upper, kind="stable")[:count]
    return np.stack([rows[best], columns[best]], axis=1)


def adjacency_of(pairs: Int[Any, "m 2"], nodes: int) -> Float[np.ndarray, "n n"]:
    """The symmetric 0/1 matrix, float32, of pairs of two of the nodes, in any order.

    >>> adjacency_of(np.array([[2, 0]]), 3).tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    first, second = np.asarray(pairs).T
    if len(first) and (min(first.min(), second.min()) < 0 or max(first.max(), second.max()) >= nodes):
        raise ValueError(f"pairs: nodes beyond 0 to {nodes - 1}; legal are two of these")
    if (first == second).any():
        raise ValueError("pairs: a node with itself; legal are two different nodes")
    adjacency = np.zeros((nodes, nodes), np.float32)
    adjacency[first, second] = adjacency[second, first] = 1
    return adjacency


def frobenius_distance(found: Real[Any, "n n"], truth: Shaped[Any, "n n"]) -> float:
    """|found - truth| / |truth| in the Frobenius norm, diagonals left out; `found` may be relaxed.

    0 is the truth and 1 the empty graph. A 0/1 graph with as many edges as the truth, of which a
    share p is right, has sqrt(2 (1 - p)): worse than the empty graph below p = 1/2.
    """
    values, edges = _square("found", found), _adjacency("truth", truth)
    require_same_length("found", values, "truth", edges)
    gap = values - edges
    np.fill_diagonal(gap, 0)
    return float(np.linalg.norm(gap) / np.sqrt(_some(edges)))


def degree_distance(found: Shaped[Any, "n n"], truth: Shaped[Any, "n n"]) -> float:
    """Wasserstein-1 distance of the degree sequences over the mean degree of the truth.

    It is the mean of |d_k - d'_k| over the sorted degrees; with equal edge counts it is below 2.
    """
    first, second = _two(found, truth)
    gap = np.abs(np.sort(first.sum(1)) - np.sort(second.sum(1)))
    return float(gap.sum() / _some(second))


def degree_divergence(found: Shaped[Any, "n n"], truth: Shaped[Any, "n n"]) -> float:
    """Jensen-Shannon divergence of the degree histograms (one bin per degree), in bits, 0 to 1.

    Degrees that differ by one count as any others: two narrow peaks side by side have 1.
    """
    degrees = [graph.sum(1) for graph in _two(found, truth)]
    bins = int(max(d.max() for d in degrees)) + 1
    return _divergence(*(np.bincount(d, minlength=bins) for d in degrees))


def clustering_divergence(found: Shaped[Any, "n n"], truth: Shaped[Any, "n n"]) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1, of clustering coefficients in 10 bins.

    The coefficient of a node is the share of pairs of its neighbors that are linked; 0 for less
    than two.
    """
    return _divergence(*(_clustering(graph) for graph in _two(found, truth)))


def clustering_cosine(found: Shaped[Any, "n n"], truth: Shaped[Any, "n n"]) -> float:
    """Cosine of the same two histograms, 0 to 1, as papers report it.

    Sparse graphs share the bin of 0, which holds most nodes: a random graph is often above 0.9.
    """
    first, second = (_clustering(graph) for graph in _two(found, truth))
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def spectral_distance(found: Shaped[Any, "n n"], truth: Shaped[Any, "n n"]) -> float:
    """Mean of |l_k - l'_k| over the sorted eigenvalues of the normalized Laplacians, 0 to 2.

    L = I - D^-1/2 A D^-1/2, whose row of a node without edges is 0. Takes n^3 operations.
    """
    from scipy.linalg import eigvalsh
    from scipy.sparse.csgraph import laplacian

    first, second = (eigvalsh(laplacian(graph.astype(np.float64), normed=True)) for graph in _two(found, truth))
    return float(np.abs(first - second).mean())


def wl_similarity(
    found: Shaped[Any, "n n"],
    truth: Shaped[Any, "n n"],
    *,
    labels: Int[Any, " n"] | None = None,
    iterations: int = 10,
) -> float:
    """Normalized Weisfeiler-Lehman subtree kernel k(G, G') / sqrt(k(G, G) k(G', G')), 0 to 1.

    Shervashidze et al., JMLR 12, 2011. Each iteration names a node anew by its name and the sorted
    names of its neighbors; k is the sum, over iterations from 0 on and over names, of how often a
    name is in the one graph times how often in the other. Without labels all nodes start with one
    name, which adds n^2 to each kernel: a random graph with as many edges as Cora then has 0.98.

    Args:
      labels: class of every node, of both graphs.
      iterations: after the first names, 0 or more.
    """
    if iterations < 0:
        raise ValueError(f"iterations: {iterations}; legal is 0 or more")
    graphs = _two(found, truth)
    nodes = len(graphs[0])
    start = np.zeros(nodes, np.int64) if labels is None else as_classes("labels", labels)
    require_same_length("labels", start, "found", graphs[0])
    # both graphs as one of 2 n nodes, so that a name means the same in both
    rows, neighbors = np.concatenate([np.argwhere(graph) + k * nodes for k, graph in enumerate(graphs)]).T
    ends = np.cumsum(np.bincount(rows, minlength=2 * nodes))[:-1]
    _, names = np.unique(np.tile(start, 2), return_inverse=True)
    counts = [_counts(names)]
    for _ in range(iterations):
        around = names[neighbors]
        around = np.split(around[np.lexsort((around, rows))], ends)
        seen: dict[tuple[int, bytes], int] = {}
        pairs = zip(names.tolist(), around)
        names = np.array([seen.setdefault((own, near.tobytes()), len(seen)) for own, near in pairs])
        counts.append(_counts(names))
    first, second = np.concatenate(counts, axis=1)
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _counts(names: np.ndarray) -> Float[np.ndarray, "2 names"]:
    return np.stack([np.bincount(half, minlength=names.max() + 1) for half in np.split(names, 2)]).astype(np.float64)


def _clustering(graph: np.ndarray) -> Float[np.ndarray, " bins"]:
    from scipy.sparse import csr_array

    sparse = csr_array(graph, dtype=np.int64)
    closed = np.asarray(csr_array(sparse @ sparse).multiply(sparse).sum(axis=1)).ravel()
    degrees = graph.sum(1)
    pairs = np.maximum(degrees * (degrees - 1), 1)
    # whole numbers: 3/10 as a float is below the edge of its bin
    return np.bincount(np.minimum(_BINS * closed // pairs, _BINS - 1), minlength=_BINS).astype(np.float64)


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    from scipy.special import rel_entr

    p, q = first / first.sum(), second / second.sum()
    bits = np.sum(rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)) / (2 * np.log(2))
    return max(float(bits), 0.0)


def _two(found: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    graphs = _adjacency("found", found), _adjacency("truth", truth)
    require_same_length("found", graphs[0], "truth", graphs[1])
    return graphs


def _some(truth: np.ndarray) -> int:
    total = int(truth.sum())
    if total == 0:
        raise ValueError("truth: no edges; legal is one or more")
    return total


def _adjacency(name: str, adjacency: Any) -> Shaped[np.ndarray, "n n"]:
    matrix = _square(name, adjacency)
    graph = matrix != 0
    np.fill_diagonal(graph, False)
    if not np.isin(matrix, (0.0, 1.0)).all() or not np.array_equal(graph, graph.T):
        raise ValueError(f"{name}: not symmetric, or more than 0 and 1; legal is a symmetric 0/1 matrix")
    return graph


def _square(name: str, values: Any) -> Float[np.ndarray, "n n"]:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"{name}: shape {matrix.shape}; legal is [n, n] with n >= 2")
    require_finite(name, matrix)
    return matrix
