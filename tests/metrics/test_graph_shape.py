"""Structure metrics against loops, closed forms, and what renaming nodes must not change."""

import collections
import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jaxmia.metrics import (
    adjacency_of,
    clustering_cosine,
    clustering_divergence,
    degree_distance,
    degree_divergence,
    frobenius_distance,
    link_precision,
    spectral_distance,
    strongest_pairs,
    wl_similarity,
)
from jaxmia.metrics.graph_shape import _clustering

DISTANCES = [clustering_divergence, degree_distance, degree_divergence, spectral_distance]
SIMILARITIES = [clustering_cosine, wl_similarity]


def graph(seed, nodes=24, density=0.25):
    upper = np.triu(np.random.default_rng(seed).random((nodes, nodes)) < density, 1)
    return (upper + upper.T).astype(np.float32)


def of(pairs, nodes):
    return adjacency_of(np.array(pairs).reshape(-1, 2), nodes)


@pytest.mark.parametrize("metric", DISTANCES + SIMILARITIES)
def test_names_of_nodes_do_not_matter_and_the_shape_does(metric):
    truth, order = graph(0), np.random.default_rng(1).permutation(24)
    same = 0.0 if metric in DISTANCES else 1.0
    assert metric(truth[np.ix_(order, order)], truth) == pytest.approx(same, abs=1e-12)
    assert abs(metric(graph(2, density=0.5), truth) - same) > 0.05


@pytest.mark.parametrize("metric", [*DISTANCES, *SIMILARITIES, frobenius_distance])
def test_the_diagonal_is_ignored(metric):
    first, second, loops = graph(0), graph(1), np.eye(24, dtype=np.float32)
    assert metric(first + loops, second) == metric(first, second + loops) == metric(first, second)


def test_the_frobenius_distance_is_that_of_the_matrices():
    truth, relaxed = graph(0), np.random.default_rng(0).random((24, 24))
    relaxed = np.triu(relaxed, 1) + np.triu(relaxed, 1).T
    assert frobenius_distance(relaxed, truth) == pytest.approx(np.linalg.norm(relaxed - truth) / np.linalg.norm(truth))
    assert frobenius_distance(np.zeros((24, 24)), truth) == 1.0


def test_at_the_true_count_the_frobenius_distance_tells_the_precision():
    scores, truth = np.random.default_rng(3).random((24, 24)), graph(0)
    scores = scores + scores.T + truth
    edges = int(truth.sum()) // 2
    found = adjacency_of(strongest_pairs(scores, edges), 24)
    precision = link_precision(scores, truth, edges / 276)
    assert 0.5 < precision < 1
    assert frobenius_distance(found, truth) == pytest.approx(np.sqrt(2 * (1 - precision)))


def test_the_degree_distance_is_the_one_of_scipy():
    first, second = graph(0), graph(1, density=0.4)
    expected = wasserstein_distance(first.sum(0), second.sum(0)) / second.sum(0).mean()
    assert degree_distance(first, second) == pytest.approx(expected)


def test_degree_histograms_that_do_not_meet_have_one_bit():
    ring, full = of([[0, 1], [1, 2], [2, 3], [0, 3]], 4), 1 - np.eye(4)
    assert degree_divergence(ring, full) == 1.0
    path = of([[0, 1], [1, 2], [2, 3]], 4)  # half of the nodes as in the ring
    expected = -0.75 * np.log2(0.75) - 0.25 * np.log2(0.25) - 0.5 * 1.0
    assert degree_divergence(path, ring) == pytest.approx(expected)


def test_clustering_bins_are_those_of_a_loop_over_neighbors():
    # densities at which coefficients such as 3/10 fall on the edge of a bin
    for seed, density in [(0, 0.25), (1, 0.4), (2, 0.7)]:
        adjacency = graph(seed, density=density)
        expected = np.zeros(10)
        for row in adjacency:
            around = np.flatnonzero(row)
            pairs = list(itertools.combinations(around, 2))
            share = Fraction(int(sum(adjacency[pair] for pair in pairs)), max(len(pairs), 1))
            expected[min(int(share * 10), 9)] += 1
        np.testing.assert_array_equal(_clustering(adjacency > 0), expected)


def test_triangles_tell_a_ring_from_two_triangles():
    """The same degrees, no coefficient shared."""
    ring = of([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [0, 5]], 6)
    triangles = of([[0, 1], [1, 2], [0, 2], [3, 4], [4, 5], [3, 5]], 6)
    assert degree_distance(ring, triangles) == degree_divergence(ring, triangles) == 0.0
    assert (clustering_divergence(ring, triangles), clustering_cosine(ring, triangles)) == (
        1.0,
        0.0,
    )
    # 0, 1/2, 1/2, 3/2, 3/2, 2 against 0, 0, 3/2, 3/2, 3/2, 3/2
    assert spectral_distance(ring, triangles) == pytest.approx((0.5 + 1.0 + 0.5) / 6)
    # regular graphs of one degree are one to the kernel
    assert wl_similarity(ring, triangles) == 1.0


def test_the_spectrum_of_known_graphs():
    star, full = of([[0, 1], [0, 2], [0, 3]], 4), 1 - np.eye(4)
    # 0, 1, 1, 2 against 0, 4/3, 4/3, 4/3
    assert spectral_distance(star, full) == pytest.approx((1 / 3 + 1 / 3 + 2 / 3) / 4)
    # nodes without edges have 0
    assert spectral_distance(np.zeros((4, 4)), full) == pytest.approx(1.0)


def subtree_kernel(first, second, iterations, labels):
    """By names that are nested tuples in full."""
    names = [list(labels), list(labels)]
    graphs, total = (first, second), np.zeros(3)
    for step in range(iterations + 1):
        if step:
            names = [
                [(own[i], tuple(sorted((own[j] for j in np.flatnonzero(graph[i])), key=repr))) for i in range(len(own))]
                for own, graph in zip(names, graphs, strict=True)
            ]
        a, b = map(collections.Counter, names)
        total += [sum(x[k] * y[k] for k in x) for x, y in ((a, b), (a, a), (b, b))]
    return total[0] / np.sqrt(total[1] * total[2])


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("labeled", [False, True])
def test_the_kernel_is_that_of_names_written_out(iterations, labeled):
    first, second = graph(0, 12, 0.2), graph(1, 12, 0.3)
    labels = np.random.default_rng(0).integers(0, 3, 12) if labeled else np.zeros(12, int)
    found = wl_similarity(first, second, labels=labels if labeled else None, iterations=iterations)
    assert found == pytest.approx(subtree_kernel(first, second, iterations, labels.tolist()), rel=1e-12)


def test_labels_part_what_the_kernel_took_for_one():
    ring = of([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [0, 5]], 6)
    triangles = of([[0, 1], [1, 2], [0, 2], [3, 4], [4, 5], [3, 5]], 6)
    assert wl_similarity(ring, triangles, labels=np.array([0, 0, 0, 1, 1, 1])) < 0.9


def test_strongest_pairs_come_by_score_and_ties_in_the_order_of_the_pairs():
    scores = np.zeros((5, 5))
    scores[3, 4] = scores[4, 3] = 2.0
    np.fill_diagonal(scores, 9.0)
    assert strongest_pairs(scores, 4).tolist() == [[3, 4], [0, 1], [0, 2], [0, 3]]
    assert strongest_pairs(scores, 0).shape == (0, 2)
    noise = np.random.default_rng(0).random((5, 5))
    noise = noise + noise.T
    found = strongest_pairs(noise, 10)
    assert (np.diff(noise[tuple(found.T)]) < 0).all() and (found[:, 0] < found[:, 1]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda a: strongest_pairs(np.triu(np.ones((4, 4))), 1),
            r"of the pair \(0, 1\); legal is symmetric",
        ),
        (lambda a: strongest_pairs(a, 277), "count: 277; legal is 0 to 276"),
        (lambda a: strongest_pairs(a[:1, :1], 1), r"scores: shape \(1, 1\)"),
        (lambda a: strongest_pairs(a * np.nan, 1), "scores has 576 non-finite"),
        (lambda a: adjacency_of(np.array([[0, 4]]), 4), "nodes beyond 0 to 3"),
        (lambda a: adjacency_of(np.array([[1, 1]]), 4), "a node with itself"),
        (lambda a: degree_distance(a * 0.5, a), "found: not symmetric, or more than 0 and 1"),
        (lambda a: degree_distance(a, np.triu(a)), "truth: not symmetric"),
        (lambda a: degree_distance(a, a * 0), "truth: no edges"),
        (lambda a: frobenius_distance(a, a * 0), "truth: no edges"),
        (lambda a: wl_similarity(a, a, iterations=-1), "iterations: -1"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(graph(0))
