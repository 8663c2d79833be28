"""Counts by blocks against the same metrics on the full matrix of scores, ties and all."""

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxmia.metrics import (
    PairCodes,
    balanced_links,
    candidate_pairs,
    link_auc,
    link_average_precision,
    link_counts,
    link_interval,
    link_precision,
    link_scores,
    link_tpr,
    pair_codes,
    pair_scores,
)

KINDS = ["dot", "cosine", "correlation", "negative_euclidean"]


def tied_codes(kind, nodes=50, width=4, seed=0):
    """Codes of small whole numbers, of which many are equal, and a random graph: adjacency and edges."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (nodes, width))
    rows[:3], rows[3:5] = 0, 1  # no direction, and none once the mean is gone
    adjacency = np.triu(rng.random((nodes, nodes)) < 0.15, 1)
    return (
        PairCodes(rows, rows, kind),
        (adjacency + adjacency.T).astype(int),
        np.argwhere(adjacency),
    )


def matrix(codes):
    """All scores from whole matrices in float64, where what ties in truth ties to 12 digits."""
    left, right = np.asarray(codes.left, float), np.asarray(codes.right, float)
    if codes.kind == "negative_euclidean":
        return np.round(-cdist(left, right), 12)
    if codes.kind == "correlation":
        left, right = left - left.mean(1, keepdims=True), right - right.mean(1, keepdims=True)
    if codes.kind != "dot":
        left, right = (side / np.maximum(np.linalg.norm(side, axis=1), 1e-9)[:, None] for side in (left, right))
    return np.round(left @ right.T, 12)


@pytest.mark.parametrize("rows", [1, 7, 49, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_any_size_give_the_metrics_of_the_full_matrix(kind, rows, monkeypatch):
    monkeypatch.setattr(pair_codes, "_BLOCK_ELEMENTS", rows * 50)
    codes, adjacency, edges = tied_codes(kind)
    scores, counts = matrix(codes), link_counts(codes, edges)
    assert len(np.unique(scores)) < 60 and 0.3 < link_auc(scores, adjacency) < 0.7
    assert counts.auc() == link_auc(scores, adjacency)
    assert counts.average_precision() == pytest.approx(link_average_precision(scores, adjacency), rel=1e-12)
    for density in (0.01, 0.15, 0.6, 1.0):
        assert counts.precision(density) == pytest.approx(link_precision(scores, adjacency, density), rel=1e-12)
    for rate in (0.01, 0.1, 0.9):
        value = link_tpr(link_scores(scores, adjacency), rate, resamples=100).value
        assert counts.tpr(rate) == pytest.approx(value, rel=1e-12)


def test_counts_are_those_of_a_loop_over_pairs():
    codes, adjacency, edges = tied_codes("dot")
    scores, counts = matrix(codes), link_counts(codes, edges[::-1, ::-1])
    negatives = [scores[i, j] for i in range(50) for j in range(i + 1, 50) if not adjacency[i, j]]
    positives = [scores[i, j] for i, j in edges]
    assert counts.scores.tolist() == sorted(set(positives), reverse=True)
    assert counts.edges.tolist() == [positives.count(score) for score in counts.scores]
    assert counts.tied.tolist() == [negatives.count(score) for score in counts.scores]
    assert counts.above.tolist() == [sum(other > score for other in negatives) for score in counts.scores]
    assert counts.non_edges == len(negatives)


def test_equal_rows_tie_wherever_they_stand():
    """In float32 a product of matrices may differ in the last bit between the middle and the rim of a block."""
    rng = np.random.default_rng(1)
    rows = np.tile(rng.normal(size=(1, 33)), (301, 1))
    for kind in KINDS:
        counts = link_counts(PairCodes(rows, rows, kind), np.array([[0, 300], [7, 150], [299, 300]]))
        assert len(counts.scores) == 1 and counts.above.tolist() == [0] and counts.auc() == 0.5


def test_rows_at_right_angles_tie_at_zero():
    """Rounding leaves 1e-17 of either sign, other for an edge by itself than in a block."""
    rng = np.random.default_rng(4)
    plane = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    rows = np.concatenate([np.tile(plane[k], (10, 1)) * rng.uniform(1, 9, (10, 1)) for k in range(20)])
    across = np.array([[0, 11], [4, 199], [35, 180], [120, 133]])
    for kind in ("dot", "cosine"):
        counts = link_counts(PairCodes(rows, rows, kind), across)
        assert (counts.scores.tolist(), counts.above.tolist()) == ([0.0], [20 * 45])


def test_codes_of_two_sides_are_the_product_of_both():
    rng = np.random.default_rng(2)
    rows, (_, adjacency, edges) = rng.normal(size=(50, 3)), tied_codes("dot")
    mixed = np.array([1.0, -2.0, 0.5])
    codes = PairCodes(rows * mixed, rows, "dot")
    assert link_counts(codes, edges).auc() == link_auc((rows * mixed) @ rows.T, adjacency)


def test_pairs_left_out_are_in_no_metric():
    codes, adjacency, edges = tied_codes("cosine")
    pairs = candidate_pairs(adjacency)
    known = np.random.default_rng(3).random(len(pairs)) < 0.3
    counts = link_counts(codes, edges, without=pairs[known][:, ::-1])
    assert counts.auc() == link_auc(matrix(codes), adjacency, pairs[~known])
    assert counts.edges.sum() + counts.non_edges == (~known).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_given_pairs_have_the_scores_of_the_matrix(kind):
    codes, adjacency, _ = tied_codes(kind)
    pairs = candidate_pairs(adjacency)[::3, ::-1]
    np.testing.assert_array_equal(pair_scores(codes, pairs), matrix(codes)[tuple(pairs.T)].astype(np.float32))


def test_balanced_pairs_hold_all_edges_and_as_many_others():
    codes, adjacency, edges = tied_codes("cosine")
    links = balanced_links(codes, edges, seed=1)
    assert links.labels.sum() == len(edges) == (~links.labels).sum()
    expected = link_scores(matrix(codes), adjacency, links.pairs)
    np.testing.assert_array_equal(links.labels, expected.labels)
    np.testing.assert_array_equal(links.scores, expected.scores.astype(np.float32))
    assert not np.array_equal(links.pairs, balanced_links(codes, edges, seed=2).pairs)
    assert link_interval(links, resamples=100).n == 2 * len(edges)


def test_every_non_edge_is_drawn_alike():
    edges = np.array([[0, 1], [2, 5]])
    codes = PairCodes(np.eye(6), np.eye(6), "dot")
    drawn = np.zeros((6, 6), int)
    for seed in range(390):
        links = balanced_links(codes, edges, seed=seed)
        drawn[tuple(links.pairs[~links.labels].T)] += 1
    seen = drawn[np.triu_indices(6, 1)]
    assert np.count_nonzero(seen) == 13 and abs(seen[seen > 0] - 60).max() < 4 * np.sqrt(60)


def test_memory_is_that_of_a_block(monkeypatch):
    monkeypatch.setattr(pair_codes, "_BLOCK_ELEMENTS", 1 << 16)
    rows = np.random.default_rng(0).normal(size=(1500, 4))
    tracemalloc.start()
    try:
        link_counts(PairCodes(rows, rows, "cosine"), np.stack([np.arange(1499), np.arange(1, 1500)], axis=1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20  # the matrix in float32 is 9 MB


RING = np.array([[0, 1], [1, 2], [2, 3]])


@pytest.mark.parametrize(
    ("codes", "edges", "message"),
    [
        (
            PairCodes(np.eye(5), np.eye(5), "hamming"),
            RING,
            "kind: 'hamming'; legal are 'dot', 'cosine'",
        ),
        (PairCodes(np.eye(5), np.eye(5)[:, :4]), RING, r"right: shape \(5, 4\); legal is \(5, 5\)"),
        (PairCodes(np.full((5, 2), np.nan), np.eye(5)), RING, "left has 10 non-finite"),
        (
            PairCodes(np.full((5, 2), 1e30), np.full((5, 2), 1e30), "dot"),
            RING,
            "legal are scores within float32",
        ),
        (PairCodes(np.eye(5), np.roll(np.eye(5), 1, 0)), RING, r"codes: .* of the pair \(0, 1\)"),
        (PairCodes(np.eye(5), np.eye(5)), np.array([[0, 1], [1, 0]]), "one is there twice"),
        (PairCodes(np.eye(5), np.eye(5)), np.array([[0, 5]]), "nodes beyond 0 to 4"),
        (PairCodes(np.eye(5), np.eye(5)), np.array([[2, 2]]), "a loop"),
        (PairCodes(np.eye(5), np.eye(5)), np.zeros((0, 2), int), "edges: 0 to find"),
        (PairCodes(np.eye(3), np.eye(3)), np.array([[0, 1], [1, 2], [0, 2]]), "among 0 non-edges"),
    ],
)
def test_refuses(codes, edges, message):
    with pytest.raises(ValueError, match=message):
        link_counts(codes, edges)


def test_a_rate_below_one_non_edge_is_refused():
    with pytest.raises(ValueError, match="false_positive_rate: 0.001, 0.007 of 7 non-edges"):
        link_counts(PairCodes(np.eye(5), np.eye(5)), RING).tpr(1e-3)
    with pytest.raises(ValueError, match="edges: 8 among 2 non-edges"):
        balanced_links(PairCodes(np.eye(5), np.eye(5)), candidate_pairs(np.zeros((5, 5)))[:8])
