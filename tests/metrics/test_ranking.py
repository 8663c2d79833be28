"""AUC, average precision and their intervals against scikit-learn and simulation."""

from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxmia.metrics import auc_difference, auc_interval, average_precision, precision_at_density, roc_auc
from jaxmia.metrics.ranking import newcombe, rank, ranking_auc, ranking_average_precision


@st.composite
def scored(draw):
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.concatenate([[0, 1], rng.integers(0, 2, n - 2)])
    # few distinct scores, so that most cases tie
    levels = draw(st.integers(1, 20))
    return rng.integers(0, levels, n) / levels, labels


@settings(deadline=None, max_examples=100)
@given(scored())
def test_matches_scikit_learn_with_ties(case):
    scores, labels = case
    auc = roc_auc(scores, labels)
    assert 0 <= auc <= 1
    assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert auc == pytest.approx(1 - roc_auc(-scores, labels), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(scored(), st.integers(0, 2**32 - 1))
def test_weights_repeat_cases(case, seed):
    scores, labels = case
    ranking = rank(scores, labels)
    counts = np.random.default_rng(seed).integers(1, 4, len(scores))
    weights = counts[ranking.order].astype(float)
    repeated = np.repeat(scores, counts), np.repeat(labels, counts)
    assert float(ranking_auc(ranking, weights)) == pytest.approx(roc_auc(*repeated), abs=1e-12)
    assert float(ranking_average_precision(ranking, weights)) == pytest.approx(average_precision(*repeated), abs=1e-12)
    both = ranking_auc(ranking, np.stack([weights, np.ones(len(weights))]))
    assert both.tolist() == pytest.approx([roc_auc(*repeated), roc_auc(scores, labels)], abs=1e-12)


def test_all_tied_is_one_half():
    assert roc_auc(np.ones(6), np.array([0, 1, 0, 1, 1, 1])) == 0.5


def test_precision_at_density_breaks_ties_by_their_mean():
    scores, labels = np.array([3.0, 2.0, 2.0, 2.0, 1.0]), np.array([1, 1, 0, 0, 1])
    assert precision_at_density(scores, labels, 0.2) == 1.0
    # one sure hit and one of three tied pairs, a third of which are positive
    assert precision_at_density(scores, labels, 0.4) == pytest.approx((1 + 1 / 3) / 2)
    assert precision_at_density(scores, labels, 1.0) == 0.6
    for density in (0.0, 1.1, 0.01):
        with pytest.raises(ValueError, match="density is"):
            precision_at_density(scores, labels, density)


def test_interval_covers():
    truth = stats.norm.cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    estimates = [auc_interval(rng.normal(size=60) + labels, labels, seed=i, resamples=500) for i in range(200)]
    assert 0.90 <= np.mean([e.low <= truth <= e.high for e in estimates]) <= 0.99
    assert estimates[0].method == "stratified bootstrap"
    assert (estimates[0].n, estimates[0].groups) == (60, 30)


def test_perfect_ranking_gets_no_point_interval():
    labels = np.repeat([0, 1], 10)
    estimate = auc_interval(labels + 0.0, labels)
    assert (estimate.value, estimate.high, estimate.method) == (1.0, 1.0, "Newcombe score")
    assert 0.7 < estimate.low < 0.95
    mirrored = auc_interval(-labels - 0.0, labels)
    assert mirrored.high == pytest.approx(1 - estimate.low)
    larger = auc_interval(np.repeat([0.0, 1.0], 100), np.repeat([0, 1], 100))
    assert larger.low > estimate.low


@pytest.mark.parametrize("auc", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_newcombe_ends_solve_the_score_equation(auc):
    m, n = 12, 30
    low, high = newcombe(auc, m, n)
    k = (m + n) / 2 - 1
    for end in (low, high):
        if 0 < end < 1:
            variance = end * (1 - end) * (1 + k * (1 - end) / (2 - end) + k * end / (1 + end)) / (m * n)
            assert abs(end - auc) == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(variance), rel=1e-6)
    assert low <= auc <= high and high - low > 0.05


def test_uninformative_scores_are_named_constant():
    estimate = auc_interval(np.zeros(8), np.arange(8) % 2)
    assert (estimate.low, estimate.high, estimate.method) == (0.5, 0.5, "constant")


def test_paired_difference_covers_and_uses_the_pairing():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 40)
    noise = rng.normal(size=80)
    first, second = labels + noise, 0.6 * labels + noise + 0.1 * rng.normal(size=80)
    estimate = auc_difference(first, second, labels)
    assert estimate.value == pytest.approx(roc_auc(first, labels) - roc_auc(second, labels))
    assert 0 < estimate.low < estimate.value < estimate.high
    single = auc_interval(first, labels)
    assert estimate.high - estimate.low < single.high - single.low


def test_difference_of_two_perfect_rankings_is_no_point():
    labels = np.repeat([0, 1], 10)
    estimate = auc_difference(labels + 0.0, labels * 2.0, labels)
    assert estimate.value == 0 and estimate.method == "MOVER of Newcombe scores"
    reach = 1 - auc_interval(labels + 0.0, labels).low
    assert (estimate.low, estimate.high) == pytest.approx((-reach, reach))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: roc_auc(np.arange(3.0), np.ones(3)), "3 positives of 3"),
        (lambda: roc_auc(np.arange(3.0), np.array([0, 1, 2])), "labels holds 2"),
        (lambda: roc_auc(np.array([0.0, np.nan]), np.array([0, 1])), "scores has 1 non-finite"),
        (lambda: unwrap(roc_auc)(np.arange(3.0), np.array([0, 1])), "scores"),
        (lambda: auc_interval(np.arange(3.0), np.array([0, 0, 1])), "1 positives and 2 negatives"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(Exception, match=message) as caught:
        call()
    assert isinstance(caught.value, (ValueError, TypeError))
