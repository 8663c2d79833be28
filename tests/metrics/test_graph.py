"""Link metrics on hand-made graphs, against scikit-learn, and the node bootstrap in simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxmia.metrics import (
    candidate_pairs,
    link_auc,
    link_auc_difference,
    link_average_precision,
    link_interval,
    link_precision,
    link_scores,
)


def random_graph(seed=0, n=20, density=0.25, signal=1.0, uneven=0.0):
    """Adjacency and scores; `uneven` makes the edges of some nodes easier to see than those of others."""
    rng = np.random.default_rng(seed)
    adjacency = np.triu(rng.random((n, n)) < density, 1).astype(int)
    adjacency = adjacency + adjacency.T
    noise = np.triu(rng.normal(size=(n, n)), 1)
    node = uneven * rng.normal(size=n)
    scores = adjacency * (signal + node[:, None] + node[None]) + noise + noise.T
    return scores, adjacency


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_all_pairs_match_scikit_learn(seed):
    scores, adjacency = random_graph(seed)
    upper = np.triu_indices(20, 1)
    assert link_auc(scores, adjacency) == pytest.approx(roc_auc_score(adjacency[upper], scores[upper]))
    assert link_average_precision(scores, adjacency) == pytest.approx(
        average_precision_score(adjacency[upper], scores[upper])
    )


def test_precision_at_the_true_density_is_the_overlap():
    scores, adjacency = random_graph()
    upper = np.triu_indices(20, 1)
    edges = adjacency[upper].sum()
    best = np.argsort(-scores[upper])[:edges]
    assert link_precision(scores, adjacency, edges / 190) == pytest.approx(adjacency[upper][best].mean())


def test_diagonal_is_ignored():
    scores, adjacency = random_graph()
    loops = adjacency + np.eye(20, dtype=int)
    assert link_auc(scores + 100 * np.eye(20), loops) == link_auc(scores, adjacency)


def test_balanced_pairs_hold_all_edges_and_as_many_others():
    scores, adjacency = random_graph()
    pairs = candidate_pairs(adjacency, negatives="balanced", seed=3)
    links = link_scores(scores, adjacency, pairs)
    assert links.labels.sum() == np.triu(adjacency).sum() == (~links.labels).sum()
    assert (links.pairs[:, 0] < links.pairs[:, 1]).all() and len(np.unique(links.pairs, axis=0)) == len(pairs)
    np.testing.assert_array_equal(pairs, candidate_pairs(adjacency, negatives="balanced", seed=3))
    assert (pairs != candidate_pairs(adjacency, negatives="balanced", seed=4)).any()


def test_average_precision_of_noise_is_the_share_of_edges_of_the_convention():
    rng = np.random.default_rng(50)
    adjacency = random_graph(5, n=120, density=0.05)[1]
    noise = rng.random((120, 120))
    noise = noise + noise.T
    balanced = candidate_pairs(adjacency, negatives="balanced")
    assert link_average_precision(noise, adjacency) == pytest.approx(0.05, abs=0.02)
    assert link_average_precision(noise, adjacency, balanced) == pytest.approx(0.5, abs=0.06)
    assert link_auc(noise, adjacency, balanced) == pytest.approx(link_auc(noise, adjacency), abs=0.06)


def test_pairs_may_come_in_any_order():
    scores, adjacency = random_graph()
    pairs = candidate_pairs(adjacency)[:50]
    turned = pairs[::-1, ::-1]
    assert link_auc(scores, adjacency, turned) == link_auc(scores, adjacency, pairs)


def covers(over, uneven, truth, repeats=60):
    hits = 0
    for seed in range(repeats):
        links = link_scores(*random_graph(seed, n=30, uneven=uneven))
        estimate = link_interval(links, over=over, resamples=150, seed=seed)
        hits += estimate.low <= truth <= estimate.high
    return hits / repeats


@pytest.mark.nightly
def test_node_interval_covers_where_nodes_differ_and_pair_interval_does_not():
    truth = np.mean([link_auc(*random_graph(seed, n=30, uneven=1.0)) for seed in range(1000, 1300)])
    assert covers("nodes", 1.0, truth) >= 0.90
    assert covers("pairs", 1.0, truth) <= 0.85


@pytest.mark.nightly
def test_pair_interval_covers_where_pairs_are_independent():
    truth = np.mean([link_auc(*random_graph(seed, n=30)) for seed in range(1000, 1300)])
    assert covers("pairs", 0.0, truth) >= 0.85


@pytest.mark.parametrize(
    ("metric", "options"), [("auc", {}), ("average_precision", {}), ("precision", {"density": 0.2})]
)
@pytest.mark.parametrize("over", ["nodes", "pairs"])
def test_interval_holds_the_value(metric, options, over):
    scores, adjacency = random_graph()
    links = link_scores(scores, adjacency)
    estimate = link_interval(links, metric, over=over, resamples=200, **options)
    expected = {
        "auc": link_auc(scores, adjacency),
        "average_precision": link_average_precision(scores, adjacency),
        "precision": link_precision(scores, adjacency, 0.2),
    }[metric]
    assert estimate.value == expected
    assert estimate.low < estimate.value < estimate.high
    assert (estimate.n, estimate.groups) == (190, 20 if over == "nodes" else 190)
    assert estimate == link_interval(links, metric, over=over, resamples=200, **options)


@pytest.mark.parametrize(
    ("metric", "options", "method"),
    [
        ("auc", {}, "Newcombe score"),
        ("average_precision", {}, "Wilson score"),
        ("precision", {"density": 0.1}, "Wilson score"),
    ],
)
def test_perfect_recovery_is_no_point(metric, options, method):
    _, adjacency = random_graph()
    estimate = link_interval(link_scores(adjacency * 1.0, adjacency), metric, **options)
    assert (estimate.value, estimate.high, estimate.method) == (1.0, 1.0, method)
    assert estimate.low < 0.95


def test_sparse_graph_is_refused_over_nodes():
    adjacency = np.zeros((12, 12), dtype=int)
    adjacency[4, 7] = adjacency[7, 4] = 1
    scores = np.add.outer(np.arange(12.0), np.arange(12.0))
    with pytest.raises(ValueError, match="too small or too sparse"):
        link_interval(link_scores(scores, adjacency))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, a: link_auc(s + np.triu(np.ones_like(s)), a), "scores is not symmetric: pair"),
        (lambda s, a: link_auc(np.where(np.eye(20)[::-1] > 0, np.nan, s), a), "scores of the pairs has"),
        (lambda s, a: link_auc(s, np.triu(a)), "must be symmetric"),
        (lambda s, a: link_auc(s, a * 2), "only 0 and 1"),
        (lambda s, a: link_auc(s, a, np.array([[0, 1], [1, 0]])), "pair twice"),
        (lambda s, a: link_auc(s, a, np.array([[3, 3]])), "two different nodes"),
        (lambda s, a: link_auc(s, a, np.array([[0, 20]])), "two different nodes of 0 to 19"),
        (lambda s, a: candidate_pairs(1 - np.eye(5), negatives="balanced"), "0 non-edges for 10 edges"),
        (lambda s, a: candidate_pairs(a, negatives="some"), "negatives is 'some'"),
        (lambda s, a: link_interval(link_scores(s, a), "f1"), "metric is 'f1'"),
        (lambda s, a: link_interval(link_scores(s, a), "precision"), "density is None"),
        (lambda s, a: link_interval(link_scores(s, a), "auc", density=0.1), "density is 0.1"),
        (lambda s, a: link_interval(link_scores(s, a), over="edges"), "over is 'edges'"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(*random_graph())


def test_a_difference_of_aucs_is_paired():
    """What moves both alike does not widen the interval; the value is that of the two AUCs."""
    scores, adjacency = random_graph(n=40, uneven=1.0)
    other = scores + 0.1 * np.add.outer(np.arange(40), np.arange(40)) / 40
    first, second = link_scores(scores, adjacency), link_scores(other, adjacency)
    found = link_auc_difference(first, second, resamples=300)
    assert found.value == pytest.approx(link_auc(scores, adjacency) - link_auc(other, adjacency))
    alone = link_interval(first, resamples=300)
    assert found.low <= found.value <= found.high and found.high - found.low < (alone.high - alone.low) / 3
    same = link_auc_difference(first, first, resamples=100)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_scorings_of_other_pairs_have_no_difference():
    scores, adjacency = random_graph()
    balanced = link_scores(scores, adjacency, candidate_pairs(adjacency, negatives="balanced"))
    with pytest.raises(ValueError, match="are of other pairs or edges"):
        link_auc_difference(link_scores(scores, adjacency), balanced)
