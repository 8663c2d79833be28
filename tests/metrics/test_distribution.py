"""FID against scipy's matrix square root, KID and PRDC against direct sums."""

from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from jaxmia.metrics import distribution, frechet_distance, kernel_distance, prdc


def two_sets(seed=0, n=200, m=150, d=12):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix, rng.normal(size=(m, d)) @ (mix + 0.3 * rng.normal(size=(d, d))) + 0.2


def frechet_by_sqrtm(a, b):
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    gap = a.mean(axis=0) - b.mean(axis=0)
    return gap @ gap + np.trace(first + second - 2 * sqrtm(first @ second).real)


def test_frechet_matches_sqrtm():
    a, b = two_sets()
    assert frechet_distance(a, b) == pytest.approx(frechet_by_sqrtm(a, b), rel=1e-11)


def test_frechet_of_singular_covariances():
    a, b = two_sets(n=8, m=9, d=30)
    # tr (C1 C2)^(1/2) is the nuclear norm of A B^T where C1 = A^T A, C2 = B^T B: no root of a singular matrix
    left, right = (a - a.mean(axis=0)) / np.sqrt(7), (b - b.mean(axis=0)) / np.sqrt(8)
    gap = a.mean(axis=0) - b.mean(axis=0)
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    expected = gap @ gap + (left**2).sum() + (right**2).sum() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_frechet_of_one_dimension_by_hand():
    a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])
    # means 1 and 5, deviations sqrt(2) and sqrt(8): 16 + (sqrt(8) - sqrt(2))^2
    assert frechet_distance(a, b) == pytest.approx(18.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 30), st.integers(1, 10))
def test_frechet_is_a_symmetric_distance(seed, n, m, d):
    a, b = two_sets(seed, n, m, d)
    value = frechet_distance(a, b)
    assert value >= 0
    assert value == pytest.approx(frechet_distance(b, a), rel=1e-9, abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * (1 + np.trace(a.T @ a)))
    shift = np.full(d, 3.0)
    assert frechet_distance(a + shift, b + shift) == pytest.approx(value, rel=1e-8, abs=1e-8)
    # a translation of one set adds only the gap of the means
    assert frechet_distance(a, a + shift) == pytest.approx(9 * d, rel=1e-8)


def test_kernel_distance_matches_the_double_sum():
    a, b = two_sets(n=20, m=15, d=4)

    def kernel(x, y):
        return (x @ y / 4 + 1) ** 3

    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(within[0] + within[1] - 2 * across, rel=1e-10)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, a), rel=1e-10)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(0)
    values = [kernel_distance(*rng.normal(size=(2, 6, 3))) for _ in range(2000)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(2000)
    assert min(values) < 0


def brute_prdc(real, fake, k):
    def gaps(x, y):
        return np.linalg.norm(x[:, None] - y[None], axis=2)

    def radius(x):
        return np.sort(gaps(x, x), axis=1)[:, k]

    across = gaps(real, fake)
    in_real, in_fake = across <= radius(real)[:, None], across <= radius(fake)[None]
    return in_real.any(axis=0), in_fake.any(axis=1), in_real.sum(axis=0) / k, in_real.any(axis=1)


@pytest.mark.parametrize("k", [1, 5])
def test_prdc_matches_brute_force(k, monkeypatch):
    real, fake = two_sets(n=60, m=40, d=3)
    expected = brute_prdc(real, fake, k)
    assert 0 < expected[0].mean() < 1 and 0 < expected[3].mean() < 1
    for part, values in zip(prdc(real, fake, k=k), expected):
        np.testing.assert_allclose(part, values)
    monkeypatch.setattr(distribution, "_BLOCK_ELEMENTS", 7 * 40)
    for part, values in zip(prdc(real, fake, k=k), expected):
        np.testing.assert_allclose(part, values)


def test_prdc_by_hand():
    real, fake = np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [0.6], [30.0]])
    # radii 1, 1, 9 of the real ones and 0.1, 0.1, 29.4 of the fakes
    result = prdc(real, fake, k=1)
    assert result.precision.tolist() == [1, 1, 0]
    assert result.recall.tolist() == [0, 1, 1]
    assert result.density.tolist() == [2, 2, 0]
    assert result.coverage.tolist() == [1, 1, 0]


def test_prdc_by_class_measures_every_class_alone():
    real, fake = two_sets(n=60, m=40, d=3)
    real_labels, fake_labels = np.arange(60) % 3, np.arange(40)[::-1] % 3
    result = prdc(real, fake, k=3, real_labels=real_labels, fake_labels=fake_labels)
    for name in range(3):
        ours, theirs = real_labels == name, fake_labels == name
        expected = brute_prdc(real[ours], fake[theirs], 3)
        for part, values, rows in zip(result, expected, (theirs, ours, theirs, ours)):
            np.testing.assert_allclose(part[rows], values)


def test_prdc_of_class_zero_is_not_all_classes():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(size=(10, 2)), rng.normal(size=(10, 2)) + 100])
    labels = np.repeat([0, 1], 10)
    swapped = prdc(real, real, k=2, real_labels=labels, fake_labels=1 - labels)
    assert max(part.max() for part in swapped) == 0
    assert prdc(real, real, k=2).coverage.mean() == 1


def test_prdc_of_a_collapsed_generator():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(200, 2))
    collapsed = np.tile(real[:1], (50, 1))
    result = prdc(real, collapsed, k=5)
    assert result.precision.mean() == 1
    assert result.coverage.mean() < 0.1
    assert result.recall.mean() < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: frechet_distance(a[:1], b), "n >= 2"),
        (lambda a, b: unwrap(frechet_distance)(a, b[:, :2]), "12 columns but second has 2"),
        (lambda a, b: kernel_distance(np.where(a > 1, np.nan, a), b), "non-finite"),
        (lambda a, b: prdc(a, b, k=0), "k is 0"),
        (lambda a, b: prdc(a, b[:5], k=5), "class 0 has 200 real and 5 fake"),
        (lambda a, b: prdc(a, b, real_labels=np.zeros(200, int)), "go together"),
        (
            lambda a, b: prdc(a, b, real_labels=np.arange(200) % 3, fake_labels=np.arange(150) % 2),
            "class 2 is only in one",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(*two_sets())
