"""The head of the list against scikit-learn's ROC curve, parts of the pairs against masks of the matrix."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from jaxmia.metrics import (
    LinkScores,
    candidate_pairs,
    link_auc,
    link_interval,
    link_scores,
    link_tpr,
    links_by_class,
    links_by_influence,
    roc_auc,
    tied_share,
)
from tests.metrics.test_graph import random_graph


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_without_ties_it_is_the_highest_point_of_the_roc_curve_at_that_rate(rate):
    links = link_scores(*random_graph(3, n=40))
    false, true, _ = roc_curve(links.labels, links.scores, drop_intermediate=False)
    assert 0 < true[false <= rate].max() < 1
    assert link_tpr(links, rate, resamples=100).value == true[false <= rate].max()


def test_a_tie_at_the_cut_counts_as_if_it_were_broken_at_random():
    rng = np.random.default_rng(0)
    scores, adjacency = random_graph(3, n=40)
    links = link_scores(np.round(2 * scores), adjacency)
    negatives, found = int((~links.labels).sum()), []
    for _ in range(2000):
        order = np.lexsort((rng.random(len(links.scores)), -links.scores))
        passed = np.cumsum(~links.labels[order])
        # a cut at so many non-edges, and no further: what the next one brings is not in
        found.append(links.labels[order][passed <= 20].mean() * (passed <= 20).sum() / links.labels.sum())
    below = link_tpr(links, 20 / negatives, resamples=100).value
    above = link_tpr(links, 21 / negatives, resamples=100).value
    # the random break also counts the edges that follow before the next non-edge: at most one step more
    assert below - 0.005 < np.mean(found) < above + 0.005


def test_chance_is_the_rate():
    links = link_scores(*random_graph(1, n=100, signal=0.0))
    assert link_tpr(links, 0.1, resamples=100).value == pytest.approx(0.1, abs=0.02)
    constant = links._replace(scores=np.zeros(len(links.scores)))
    assert link_tpr(constant, 0.1, resamples=100).value == pytest.approx(0.1, abs=1e-9)


def test_one_high_non_edge_is_within_the_rate_and_two_are_not():
    labels = np.array([False] * 2 + [True] * 10 + [False] * 98)
    pairs = np.stack(np.triu_indices(16, 1), axis=1)[:110]
    links = LinkScores(pairs, -np.arange(110.0), labels)
    assert link_tpr(links, 0.01).value == 0.0
    assert link_tpr(links, 0.02).value == 1.0


def test_the_interval_holds_the_value_and_the_seed_repeats_it():
    links = link_scores(*random_graph(3, n=40))
    estimate = link_tpr(links, 0.05, resamples=200, seed=4)
    assert estimate.low < estimate.value < estimate.high
    assert (estimate.n, estimate.groups, estimate.method) == (780, 40, "bootstrap over nodes")
    assert estimate == link_tpr(links, 0.05, resamples=200, seed=4)


def test_the_interval_covers_what_further_graphs_give():
    truth = np.mean([link_tpr(graph(seed), 0.05, resamples=100).value for seed in range(1000, 1020)])
    hits = [covered(link_tpr(graph(seed), 0.05, resamples=100), truth) for seed in range(20)]
    assert np.mean(hits) >= 0.8


def graph(seed):
    return link_scores(*random_graph(seed, n=30, uneven=0.5))


def covered(estimate, truth):
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize(("sign", "value"), [(1.0, 1.0), (-1.0, 0.0)])
def test_all_or_nothing_is_no_point(sign, value):
    _, adjacency = random_graph()
    estimate = link_tpr(link_scores(sign * adjacency, adjacency), 0.05)
    assert (estimate.value, estimate.method, estimate.groups) == (value, "Wilson score", 20)
    assert estimate.high - estimate.low > 0.05


def test_the_share_of_ties_counts_pairs_and_not_values():
    _, adjacency = random_graph()
    links = link_scores(*random_graph())
    assert tied_share(links) == 0.0
    assert tied_share(links._replace(scores=np.zeros(190))) == 1.0
    assert tied_share(links._replace(scores=np.maximum(np.arange(190) - 95, 0))) == 96 / 190


def test_within_and_across_are_the_auc_of_the_masked_pairs():
    scores, adjacency = random_graph(2, n=40)
    classes = np.random.default_rng(0).integers(-1, 3, 40)
    links = link_scores(scores, adjacency)
    pairs = candidate_pairs(adjacency)
    first, second = classes[pairs].T
    for part, mask in zip(links_by_class(links, classes), [first == second, first != second], strict=True):
        chosen = pairs[mask & (first >= 0) & (second >= 0)]
        np.testing.assert_array_equal(part.pairs, chosen)
        assert roc_auc(part.scores, part.labels) == link_auc(scores, adjacency, chosen)
        assert link_interval(part, resamples=100).n == len(chosen)


def test_a_score_that_knows_the_class_alone_has_one_half_in_each_part():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, 60)
    same = classes[:, None] == classes
    adjacency = np.triu(rng.random((60, 60)) < np.where(same, 0.3, 0.05), 1)
    adjacency = adjacency + adjacency.T
    links = link_scores(same * 1.0, adjacency)
    assert roc_auc(links.scores, links.labels) > 0.7
    assert [roc_auc(part.scores, part.labels) for part in links_by_class(links, classes)] == [
        0.5,
        0.5,
    ]


def test_terciles_share_the_non_edges_and_part_the_edges():
    scores, adjacency = random_graph(2, n=40)
    influence = np.abs(scores)
    links = link_scores(scores, adjacency)
    values = link_scores(influence, adjacency).scores
    low, middle, high = links_by_influence(links, values)
    edges = int(links.labels.sum())
    assert [int(part.labels.sum()) for part in (low, middle, high)] == [
        len(a) for a in np.array_split(np.arange(edges), 3)
    ]
    for part in (low, middle, high):
        np.testing.assert_array_equal(part.pairs[~part.labels], links.pairs[~links.labels])
    taken = np.concatenate([part.pairs[part.labels] for part in (low, middle, high)])
    assert len(np.unique(taken, axis=0)) == edges
    at = [influence[tuple(part.pairs[part.labels].T)] for part in (low, middle, high)]
    assert at[0].max() <= at[1].min() and at[1].max() <= at[2].min()


def test_the_auc_rises_over_terciles_where_the_score_is_the_influence():
    scores, adjacency = random_graph(2, n=40, signal=0.0)
    links = link_scores(scores, adjacency)
    found = [roc_auc(part.scores, part.labels) for part in links_by_influence(links, links.scores)]
    assert found[0] < 0.3 and found[2] > 0.7 and found == sorted(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda links: link_tpr(links, 1e-3), "false_positive_rate: 0.001, 0.1"),
        (lambda links: link_tpr(links, 1.0), "false_positive_rate: 1.0"),
        (lambda links: link_tpr(links, 0.1, resamples=3), "resamples is 3"),
        (
            lambda links: links_by_class(links, np.zeros(19, int)),
            "classes: 19 nodes; legal is 20 or more",
        ),
        (lambda links: links_by_influence(links, np.zeros(3)), "influence has 3 rows"),
        (lambda links: links_by_influence(links, np.zeros(190), 0), "parts: 0; legal is 1 to"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(link_scores(*random_graph()))
