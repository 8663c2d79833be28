"""Image metrics against hand-computed values, brute force and an independent SSIM."""

from inspect import unwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d

from jaxmia.metrics import (
    apply_in_batches,
    attack_accuracy,
    bootstrap,
    feature_distance,
    knn_distance,
    nearest_index,
    psnr,
    ssim,
    verification,
)
from jaxmia.metrics import image as image_metrics

LOGITS = np.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0]])
TARGETS = np.array([0, 0, 2, 0])


def test_accuracy_counts_the_target_class_only():
    assert attack_accuracy(LOGITS, TARGETS).tolist() == [1, 0, 1, 0]
    assert attack_accuracy(LOGITS, TARGETS, 2).tolist() == [1, 0, 1, 1]


def test_accuracy_beyond_the_number_of_classes_is_all():
    assert attack_accuracy(LOGITS, TARGETS, 5).tolist() == [1, 1, 1, 1]


def test_failed_cases_count_as_failures_and_their_logits_are_not_read():
    logits = LOGITS.copy()
    logits[0] = np.nan
    failed = np.array([True, False, False, False])
    per_case = attack_accuracy(logits, TARGETS, 5, failed=failed)
    assert per_case.tolist() == [0, 1, 1, 1]
    assert bootstrap(per_case).value == 0.75


def test_unmarked_nan_is_refused_by_index():
    logits = LOGITS.copy()
    logits[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 non-finite values of 12, the first at index \(2, 1\)"):
        attack_accuracy(logits, TARGETS)


def test_constant_evaluator_never_agrees():
    assert attack_accuracy(np.zeros((4, 3)), np.arange(4) % 3).sum() == 0


def test_accuracy_takes_device_arrays():
    assert attack_accuracy(jnp.asarray(LOGITS), jnp.asarray(TARGETS)).tolist() == [1, 0, 1, 0]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_accuracy_grows_with_k_and_ignores_monotone_changes(seed, k):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(20, 6)), rng.integers(0, 6, 20)
    best = attack_accuracy(logits, targets, k)
    assert (best <= attack_accuracy(logits, targets, k + 1)).all()
    np.testing.assert_array_equal(best, attack_accuracy(np.exp(2 * logits), targets, k))
    order = np.argsort(-logits, axis=1)[:, :k]
    np.testing.assert_array_equal(best, (order == targets[:, None]).any(axis=1))


def features(seed=0, n=30, m=80, d=5, classes=4):
    rng = np.random.default_rng(seed)
    targets, labels = rng.integers(0, classes, n), np.arange(m) % classes
    # a large common offset is where an expanded square loses its digits
    return rng.normal(size=(n, d)) + 1e3, targets, rng.normal(size=(m, d)) + 1e3, labels


def brute_nearest(queries, targets, rows, labels):
    distances = np.linalg.norm(queries[:, None] - rows[None], axis=2)
    return np.where(targets[:, None] == labels[None], distances, np.inf)


def test_knn_distance_matches_brute_force():
    queries, targets, rows, labels = features()
    expected = brute_nearest(queries, targets, rows, labels)
    np.testing.assert_array_equal(nearest_index(queries, rows, labels, targets), expected.argmin(axis=1))
    np.testing.assert_allclose(knn_distance(queries, rows, labels, targets), expected.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        knn_distance(queries, rows, labels, targets, squared=True), expected.min(axis=1) ** 2, rtol=1e-12
    )


def test_nearest_of_all_classes_in_small_blocks(monkeypatch):
    queries, _, rows, _ = features()
    monkeypatch.setattr(image_metrics, "_BLOCK_ELEMENTS", 7 * len(rows))
    expected = np.linalg.norm(queries[:, None] - rows[None], axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest_index(queries, rows), expected)


def test_copy_of_a_private_image_has_distance_zero():
    _, _, rows, labels = features()
    assert knn_distance(rows[:10], rows, labels, labels[:10]).max() == 0
    assert nearest_index(rows, rows).tolist() == list(range(len(rows)))


def test_feature_distance_is_to_the_class_mean():
    rows = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 10.0]])
    labels = np.array([5, 5, 8])
    queries, targets = np.array([[1.0, 3.0], [10.0, 9.0]]), np.array([5, 8])
    assert feature_distance(queries, rows, labels, targets).tolist() == [3.0, 1.0]
    np.testing.assert_allclose(knn_distance(queries, rows, labels, targets), [np.sqrt(10), 1.0])


def test_class_without_private_images_is_named():
    queries, targets, rows, labels = features()
    with pytest.raises(ValueError, match="1 classes without a private image, first 3"):
        knn_distance(queries, rows[labels != 3], labels[labels != 3], targets)
    with pytest.raises(ValueError, match="go together"):
        nearest_index(queries, rows, labels)


def test_verification_is_strict_l2():
    first = np.zeros((3, 2))
    second = np.array([[0.3, 0.4], [0.0, 0.49], [0.4, 0.4]])
    assert verification(first, second, 0.5).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="threshold is 0"):
        verification(first, second, 0.0)


def reference_ssim(a, b):
    axis = np.arange(11) - 5
    window = np.exp(-(axis**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2

    def blur(x):
        return np.stack([convolve2d(x[..., c], window, mode="valid") for c in range(x.shape[-1])], axis=-1)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    return np.mean(luminance * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4))


def test_ssim_matches_an_independent_float64_version():
    rng = np.random.default_rng(0)
    first = rng.random((3, 20, 24, 3))
    second = np.clip(first + rng.normal(size=first.shape) * [[[[0.0]]], [[[0.1]]], [[[0.5]]]], 0, 1)
    expected = [reference_ssim(a, b) for a, b in zip(first, second)]
    got = ssim(first, second)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert got[0] == pytest.approx(1, abs=1e-6) and got[0] > got[1] > got[2]


def test_psnr_of_a_known_error():
    black = np.zeros((2, 4, 4, 1))
    gray = np.stack([np.full((4, 4, 1), 0.1), np.zeros((4, 4, 1))])
    values = psnr(black, gray)
    assert values[0] == pytest.approx(20.0)
    assert values[1] == np.inf
    with pytest.raises(ValueError, match="1 non-finite values of 2, the first at index 1"):
        bootstrap(values)


def test_image_pairs_are_checked():
    images = np.zeros((2, 10, 10, 1))
    with pytest.raises(ValueError, match="window needs 11 x 11"):
        ssim(images, images)
    with pytest.raises(ValueError, match=r"second spans \[0, 1.5\]"):
        psnr(images, images + np.linspace(0, 1.5, 200).reshape(images.shape))
    with pytest.raises(ValueError, match="equal"):
        unwrap(psnr)(images, images[:1])


def test_batches_of_one_shape_compile_once():
    traces = []

    @jax.jit
    def network(x):
        traces.append(x.shape)
        return x.reshape(len(x), -1)[:, :2] * 2

    images = np.random.default_rng(0).random((10, 2, 2, 1)).astype(np.float32)
    np.testing.assert_array_equal(apply_in_batches(network, images, batch=4), images.reshape(10, -1)[:, :2] * 2)
    assert traces == [(4, 2, 2, 1)]
    with pytest.raises(ValueError, match="network gave shape"):
        apply_in_batches(lambda x: x[:1].reshape(1, -1), images, batch=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attack_accuracy(LOGITS, np.array([0, 1, 2, 3])), r"targets spans \[0, 3\]"),
        (lambda: attack_accuracy(LOGITS, TARGETS, 0), "k is 0"),
        (lambda: unwrap(attack_accuracy)(LOGITS, TARGETS[:3]), "logits has 4 rows but targets has 3"),
        (lambda: unwrap(attack_accuracy)(LOGITS, TARGETS / 1.0), "integers are needed"),
        (lambda: attack_accuracy(LOGITS[:, :1], np.zeros(4, int)), "logits has shape"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
