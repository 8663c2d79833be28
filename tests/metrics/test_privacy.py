"""Exposure against the closed form and the true distribution; advantage over a baseline."""

from inspect import unwrap

import numpy as np
import pytest
from scipy import stats

from jaxmia.metrics import accuracy, attribute_advantage, exposure_by_sampling, exposure_exact
from jaxmia.metrics.privacy import _log_probability_below


def test_exposure_of_the_first_and_last_rank():
    assert exposure_exact(np.array([1, 2**20]), 2**20).tolist() == [20.0, 0.0]
    assert exposure_exact(np.array([1]), 10**30)[0] == pytest.approx(30 * np.log2(10))


def test_exposure_of_a_random_rank_averages_to_log2_e():
    ranks = np.arange(1, 100_001)
    assert exposure_exact(ranks, 100_000).mean() == pytest.approx(np.log2(np.e), abs=1e-3)


@pytest.mark.parametrize("rank", [0, 11])
def test_rank_outside_the_space_is_refused(rank):
    with pytest.raises(ValueError, match="legal ranks are 1 to 10"):
        exposure_exact(np.array([rank]), 10)


def test_exposure_by_rank_equals_the_exact_one_of_the_sample():
    reference = np.random.default_rng(0).normal(100, 10, 255)
    canary = np.array([reference.min() - 1, reference.max() + 1, np.sort(reference)[9] + 1e-9, reference.min()])
    result = exposure_by_sampling(canary, reference)
    np.testing.assert_allclose(result.by_rank, exposure_exact(np.array([1, 256, 11, 2]), 256))
    assert result.n == 255


@pytest.mark.parametrize("skew", [-4.0, 0.0, 3.0])
def test_skew_normal_exposure_matches_the_true_distribution(skew):
    true = stats.skewnorm(skew, loc=120, scale=15)
    reference = true.rvs(5000, random_state=np.random.default_rng(1))
    canary = true.ppf([0.3, 1e-2, 1e-4])
    result = exposure_by_sampling(canary, reference)
    np.testing.assert_allclose(result.by_skew_normal, -np.log2([0.3, 1e-2, 1e-4]), rtol=0.15)
    assert result.fit_p_value > 0.01


def test_exposure_far_below_the_sample_stays_finite_and_falls_with_perplexity():
    reference = stats.skewnorm(2.0, 100, 10).rvs(500, random_state=np.random.default_rng(2))
    canary = np.array([90.0, 60.0, 20.0, 0.0])
    result = exposure_by_sampling(canary, reference)
    assert np.isfinite(result.by_skew_normal).all()
    assert (np.diff(result.by_skew_normal) > 0).all()
    assert result.by_skew_normal[-1] > 100 > result.by_rank[-1]


@pytest.mark.parametrize("value", [-2.0, -5.0, -10.0, -30.0])
def test_tail_probability_of_the_normal(value):
    assert _log_probability_below(stats.skewnorm(0.0), value) == pytest.approx(stats.norm.logcdf(value), rel=1e-6)


def test_tail_probability_joins_the_body():
    distribution = stats.skewnorm(1.5, 3.0, 2.0)
    edge = distribution.ppf(1e-6)
    below, above = (_log_probability_below(distribution, edge + d) for d in (-1e-4, 1e-4))
    assert 0 < above - below < 2e-3


def test_exposure_is_in_bits_whatever_the_unit_of_perplexity():
    reference = np.random.default_rng(3).normal(50, 5, 400)
    canary = np.array([30.0, 45.0])
    nats, bits = exposure_by_sampling(canary, reference), exposure_by_sampling(canary * 1.44, reference * 1.44)
    np.testing.assert_allclose(nats.by_skew_normal, bits.by_skew_normal, rtol=1e-4)


def test_bad_fit_shows_in_the_p_value():
    rng = np.random.default_rng(4)
    two_peaks = np.concatenate([rng.normal(0, 1, 500), rng.normal(20, 1, 500)])
    assert exposure_by_sampling(np.array([0.0]), two_peaks).fit_p_value < 1e-6


def test_reference_must_vary():
    with pytest.raises(ValueError, match="reference has 5 values"):
        exposure_by_sampling(np.array([0.0]), np.arange(5.0))
    with pytest.raises(ValueError, match="range 0"):
        exposure_by_sampling(np.array([0.0]), np.ones(50))


def test_accuracy_is_per_record():
    assert accuracy(np.array([1, 2, 3]), np.array([1, 0, 3])).tolist() == [1, 0, 1]
    assert accuracy(np.array(["a", "b"]), np.array(["a", "c"])).tolist() == [1, 0]
    with pytest.raises(ValueError, match="3 rows but labels has 2"):
        unwrap(accuracy)(np.arange(3), np.arange(2))


def test_guessing_the_majority_has_no_advantage_over_it():
    truth = (np.random.default_rng(5).random(200) < 0.1).astype(int)
    majority = np.zeros(200, int)
    assert accuracy(majority, truth).mean() > 0.85
    estimate = attribute_advantage(majority, majority, truth)
    assert estimate.value == 0 and estimate.low < 0 < estimate.high


def test_advantage_is_paired():
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 3, 300)
    baseline = np.where(rng.random(300) < 0.5, truth, (truth + 1) % 3)
    attack = np.where(rng.random(300) < 0.2, truth, baseline)
    estimate = attribute_advantage(attack, baseline, truth)
    gain = (attack == truth).mean() - (baseline == truth).mean()
    assert estimate.value == pytest.approx(gain)
    half = 1.96 * np.std((attack == truth) * 1.0 - (baseline == truth)) / np.sqrt(300)
    assert 0 < estimate.low
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)
