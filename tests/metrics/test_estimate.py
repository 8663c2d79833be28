"""Intervals: hand-computed ends, simulated coverage, groups, and the cases where resampling cannot vary."""

from inspect import unwrap

import numpy as np
import pytest
from scipy import stats

from jaxmia.metrics import Estimate, block_jackknife, bootstrap, difference, kernel_distance, wilson


def coverage(draw, truth, repeats=300, **options):
    """Share of seeded repeats whose interval holds the truth."""
    rng = np.random.default_rng(0)
    estimates = [bootstrap(draw(rng), seed=i, resamples=1000, **options) for i in range(repeats)]
    return np.mean([e.low <= truth <= e.high for e in estimates])


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(3.0, 2.0, 40), 3.0),
        (lambda rng: rng.exponential(1.0, 40), 1.0),
        (lambda rng: (rng.random(40) < 0.3).astype(float), 0.3),
    ],
)
def test_nominal_interval_covers(draw, truth):
    assert 0.90 <= coverage(draw, truth) <= 0.98


def test_interval_of_a_rare_success_covers():
    assert coverage(lambda rng: (rng.random(40) < 0.05).astype(float), 0.05) >= 0.95


def test_interval_of_five_groups_covers():
    labels = np.repeat(np.arange(5), 10)
    share = coverage(lambda rng: rng.normal(size=5)[labels] + 0.1 * rng.normal(size=50), 0.0, groups=labels)
    assert 0.88 <= share <= 0.98


def test_median_interval_covers():
    assert 0.90 <= coverage(lambda rng: rng.exponential(1.0, 40), np.log(2), statistic="median") <= 0.99


def test_expansion_matches_student_for_normal_data():
    values = np.random.default_rng(1).normal(size=12)
    estimate = bootstrap(values, resamples=50_000)
    half = stats.t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.06)


def grouped_sample(rng, groups=12, size=10):
    labels = np.repeat(np.arange(groups), size)
    return rng.normal(size=groups)[labels] + 0.3 * rng.normal(size=groups * size), labels


def test_groups_widen_the_interval_of_correlated_cases():
    values, labels = grouped_sample(np.random.default_rng(2))
    plain, grouped = bootstrap(values), bootstrap(values, labels)
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)
    assert (grouped.n, grouped.groups, plain.groups) == (120, 12, 120)
    assert grouped.value == plain.value


def test_group_interval_covers_and_case_interval_does_not():
    rng = np.random.default_rng(3)
    hits = np.zeros(2)
    for i in range(200):
        values, labels = grouped_sample(rng)
        for k, groups in enumerate((labels, None)):
            estimate = bootstrap(values, groups, seed=i, resamples=500)
            hits[k] += estimate.low <= 0 <= estimate.high
    assert hits[0] / 200 > 0.88
    assert hits[1] / 200 < 0.70


def test_unequal_groups_are_pooled():
    estimate = bootstrap(np.array([1.0, 0.0, 0.0, 0.0]), np.array([7, 9, 9, 9]))
    assert estimate.value == 0.25
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def test_median_of_groups_matches_repeated_cases():
    values, labels = grouped_sample(np.random.default_rng(4), groups=5, size=4)
    estimate = bootstrap(values, labels, statistic="median", resamples=400, seed=5)
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, 5, (400, 5))
    medians = [np.median(np.concatenate([values[labels == g] for g in row])) for row in drawn]
    tail = stats.norm.cdf(-np.sqrt(5 / 4) * stats.t.ppf(0.975, 4))
    np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(medians, [tail, 1 - tail]))


def test_no_success_gets_the_wilson_interval():
    estimate = bootstrap(np.zeros(20))
    z2 = stats.norm.ppf(0.975) ** 2
    assert estimate.method == "Wilson score"
    assert estimate.low == 0.0
    assert estimate.high == pytest.approx(z2 / (20 + z2))
    assert bootstrap(np.ones(20, dtype=bool)).low == pytest.approx(20 / (20 + z2))


def test_no_success_in_groups_counts_groups():
    estimate = bootstrap(np.zeros(100), np.repeat(np.arange(20), 5))
    assert estimate == bootstrap(np.zeros(20))._replace(n=100)


def test_constant_values_are_named():
    estimate = bootstrap(np.full(9, 3.5))
    assert (estimate.low, estimate.high, estimate.method) == (3.5, 3.5, "constant")


def test_groups_that_agree_exactly_do_not_collapse():
    estimate = bootstrap(np.tile([0.1, 0.9], 30), np.repeat(np.arange(30), 2))
    assert estimate.method == "bootstrap of cases"
    assert estimate.high - estimate.low > 0.1


@pytest.mark.parametrize("successes", [0, 3, 10])
def test_wilson_solves_the_score_equation(successes):
    estimate = wilson(successes, 10, confidence=0.9)
    z = stats.norm.ppf(0.95)
    for end in (estimate.low, estimate.high):
        if 0 < end < 1:
            assert abs(end - successes / 10) == pytest.approx(z * np.sqrt(end * (1 - end) / 10))
    expected = stats.binomtest(successes, 10).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose([estimate.low, estimate.high], expected, atol=1e-12)


def test_seed_fixes_the_interval():
    values = np.random.default_rng(6).normal(size=30)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_blocked_resampling_equals_a_single_block(monkeypatch):
    values = np.random.default_rng(6).normal(size=30)
    whole = bootstrap(values, resamples=500)
    monkeypatch.setattr("jaxmia.metrics.resampling.BLOCK_ELEMENTS", 100)
    blocked = bootstrap(values, resamples=500)
    np.testing.assert_allclose(blocked[:3], whole[:3], rtol=1e-12)


def test_paired_difference_is_shorter_than_unpaired():
    rng = np.random.default_rng(7)
    base = rng.normal(size=60)
    first, second = base + 0.5 + 0.1 * rng.normal(size=60), base
    estimate = difference(first, second)
    assert estimate.low < 0.5 < estimate.high
    assert estimate.high - estimate.low < 0.2 * (bootstrap(first).high - bootstrap(first).low)


def test_difference_without_discordant_pair_is_no_point():
    z2 = stats.norm.ppf(0.975) ** 2
    estimate = difference(np.ones(30), np.ones(30))
    assert (estimate.value, estimate.method) == (0.0, "Tango score")
    assert estimate.high == pytest.approx(z2 / (30 + z2)) and estimate.low == -estimate.high


def test_difference_of_only_discordant_pairs_solves_the_tango_equation():
    estimate = difference(np.ones(30), np.zeros(30))
    assert estimate.high == 1.0
    # score statistic at the end, with the constrained maximum-likelihood share of the empty cell (Tango 1998)
    n, end = 30, estimate.low
    linear, constant = -n + n * end, 0.0
    share = (np.sqrt(linear**2 - 8 * n * constant) - linear) / (4 * n)
    statistic = (n - n * end) / np.sqrt(n * (2 * share + end * (1 - end)))
    assert statistic == pytest.approx(stats.norm.ppf(0.975))
    assert difference(np.zeros(30), np.ones(30)).low == -1.0


def test_difference_of_equal_measurements_is_not_taken_for_a_proportion():
    estimate = difference(np.array([0.2, 0.7, 0.4]), np.array([0.2, 0.7, 0.4]))
    assert (estimate.low, estimate.high, estimate.method) == (0.0, 0.0, "constant")


def test_jackknife_of_a_difference_of_means_matches_welch():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(200, 1)), rng.normal(1.0, 2.0, size=(300, 1))
    estimate = block_jackknife(lambda x, y: float(y.mean() - x.mean()), a, b)
    error = np.sqrt(a.var(ddof=1) / 200 + b.var(ddof=1) / 300)
    assert estimate.value == pytest.approx(b.mean() - a.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(stats.t.ppf(0.975, 19) * error, rel=0.25)
    assert (estimate.n, estimate.groups) == (200, 20)


def test_jackknife_of_single_rows_is_exact_for_means():
    a, b = np.random.default_rng(9).normal(size=(2, 15, 1))
    estimate = block_jackknife(lambda x, y: float(y.mean() - x.mean()), a, b, blocks=15)
    error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 15)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(stats.t.ppf(0.975, 14) * error)


def test_jackknife_interval_of_kid_covers_its_expectation():
    rng = np.random.default_rng(10)
    estimates = [block_jackknife(kernel_distance, *rng.normal(size=(2, 40, 3)) + [[[0.0]], [[0.5]]]) for _ in range(60)]
    truth = np.mean([e.value for e in estimates])
    assert np.mean([e.low <= truth <= e.high for e in estimates]) > 0.85


def test_jackknife_deletes_whole_groups():
    rng = np.random.default_rng(11)
    values, labels = grouped_sample(rng)
    other = rng.normal(size=(200, 1))

    def gap(x, y):
        return float(x.mean() - y.mean())

    plain = block_jackknife(gap, values[:, None], other)
    grouped = block_jackknife(gap, values[:, None], other, first_groups=labels)
    assert grouped.high - grouped.low > 1.5 * (plain.high - plain.low)
    assert grouped.groups == 12


def test_estimate_prints_n_groups_and_method():
    text = str(Estimate(0.5, 0.25, 0.75, 100, 20, 0.95, "bootstrap"))
    assert text == "0.5 [0.25, 0.75] (n=100 in 20 groups, 95 %, bootstrap)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap(np.array([])), "per_case has shape"),
        (lambda: bootstrap(np.array([1.0, np.nan, 2.0, np.inf])), "2 non-finite values of 4, the first at index 1"),
        (lambda: bootstrap(np.array([1.0])), "1 independent groups of n = 1"),
        (lambda: bootstrap(np.arange(4.0), np.array([3, 3, 3, 3])), "1 independent groups of n = 4"),
        (lambda: unwrap(bootstrap)(np.arange(4.0), np.array([3, 3, 4])), "groups has shape"),
        (lambda: unwrap(difference)(np.arange(3.0), np.arange(4.0)), "first has 3 rows but second has 4"),
        (lambda: bootstrap(np.arange(4.0), confidence=1.0), "confidence is 1.0"),
        (lambda: bootstrap(np.arange(4.0), resamples=10), "resamples is 10"),
        (lambda: bootstrap(np.arange(4.0), statistic="mode"), "statistic is 'mode'"),
        (lambda: wilson(3, 2), "successes is 3"),
        (lambda: wilson(0, 0), "successes is 0 of n = 0"),
        (lambda: block_jackknife(kernel_distance, np.ones((4, 1)), np.ones((4, 1)), blocks=1), "blocks is 1"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
