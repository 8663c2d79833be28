"""Distances between two sets of features: Frechet (FID), kernel (KID), and precision to coverage (PRDC).

The numbers belong to the feature network: report them as `fid@<network>`, and compare only within one network
and one n. FID and KID are one number per pair of sets; `estimate.block_jackknife` gives their interval. PRDC
is per case.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmia.metrics.arrays import as_classes, as_matrix, require_same_length

__all__ = ["Prdc", "frechet_distance", "kernel_distance", "prdc"]

_BLOCK_ELEMENTS = 1 << 22  # kernel and distance matrices are made in row blocks of this many elements, 32 MiB


class Prdc(NamedTuple):
    """Per-case precision, recall, density and coverage of m fake and n real feature vectors.

    Attributes:
      precision: 1.0 per fake that lies in the ball of some real one.
      recall: 1.0 per real one that lies in the ball of some fake.
      density: per fake, the number of real balls it lies in over k; not bounded by 1.
      coverage: 1.0 per real one whose ball holds some fake.
    """

    precision: Float[np.ndarray, " m"]
    recall: Float[np.ndarray, " n"]
    density: Float[np.ndarray, " m"]
    coverage: Float[np.ndarray, " n"]


def frechet_distance(first: Float[Any, "n d"], second: Float[Any, "m d"]) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (FID).

    Heusel et al., NeurIPS 2017: |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) with unbiased covariances,
    float64. The trace of the root is the nuclear norm of C1^(1/2) C2^(1/2), from two symmetric
    eigendecompositions and singular values: no matrix square root that can come out complex. Defined for n <=
    d as well, where the covariance is singular, but biased upward by about 1 / n: always report n with it.

    Raises:
      ValueError: fewer than two rows, non-finite values, or unequal widths.
    """
    a, b = _two_sets(first, second)
    gap = a.mean(axis=0) - b.mean(axis=0)
    first_root, second_root = _covariance_factor(a), _covariance_factor(b)
    cross = np.linalg.svd(first_root @ second_root.T, compute_uv=False).sum()
    # cut at zero: rounding gives -1e-15 for equal sets
    return max(float(gap @ gap + np.sum(first_root**2) + np.sum(second_root**2) - 2 * cross), 0.0)


def kernel_distance(first: Float[Any, "n d"], second: Float[Any, "m d"]) -> float:
    """Kernel distance between two sets of features (KID, Binkowski et al., ICLR 2018): unbiased squared MMD.

    Kernel (x . y / d + 1)^3, all pairs of distinct rows. Papers average over 100 random subsets of 1000; this
    is the same expectation over all rows at once, with less variance. Unbiased at every n, so it can be
    negative; not scaled by 1000.

    Raises:
      ValueError: as `frechet_distance`.
    """
    a, b = _two_sets(first, second)
    within = sum(
        (_kernel_sum(x, x) - float(np.sum((np.sum(x**2, axis=1) / x.shape[1] + 1) ** 3))) / (len(x) * (len(x) - 1))
        for x in (a, b)
    )
    return within - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def prdc(
    real: Float[Any, "n d"],
    fake: Float[Any, "m d"],
    *,
    k: int = 5,
    real_labels: Int[Any, " n"] | None = None,
    fake_labels: Int[Any, " m"] | None = None,
) -> Prdc:
    """Precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    The ball of a point is closed and reaches to its k-th nearest neighbor of the same set, itself not
    counted. With labels every class is measured by itself, real against fake of that class, which is what
    inversion is asked for; the per-case values are in the order of the inputs, to be averaged with the labels
    as groups.

    Args:
      real: features of private images. With labels: of the attacked classes only, since a real image of a
        class without fakes would have no value.
      fake: features of reconstructions.
      k: neighbors that set the radius, 5 in Naeem et al.; every set (class) needs more than k points.

    Raises:
      ValueError: one of the labels missing, a class that only one side has, k < 1, or a class with k points
        or fewer (the usual 5 reconstructions a class need k < 5).
    """
    private, made = as_matrix("real", real), as_matrix("fake", fake)
    if private.shape[1] != made.shape[1]:
        raise ValueError(f"real has {private.shape[1]} columns but fake has {made.shape[1]}: they must be equal")
    if k < 1:
        raise ValueError(f"k is {k}: at least 1 is needed")
    if (real_labels is None) != (fake_labels is None):
        raise ValueError("real_labels and fake_labels go together: one of them is missing")
    real_class = np.zeros(len(private), int) if real_labels is None else as_classes("real_labels", real_labels)
    fake_class = np.zeros(len(made), int) if fake_labels is None else as_classes("fake_labels", fake_labels)
    require_same_length("real", private, "real_labels", real_class)
    require_same_length("fake", made, "fake_labels", fake_class)
    alone = np.setxor1d(real_class, fake_class)
    if len(alone):
        raise ValueError(f"class {alone[0]} is only in one of real_labels and fake_labels; {len(alone)} such classes")
    result = Prdc(np.empty(len(made)), np.empty(len(private)), np.empty(len(made)), np.empty(len(private)))
    for name in np.unique(real_class):
        ours, theirs = np.flatnonzero(real_class == name), np.flatnonzero(fake_class == name)
        if min(len(ours), len(theirs)) <= k:
            raise ValueError(f"k is {k} but class {name} has {len(ours)} real and {len(theirs)} fake: more are needed")
        one = _prdc_of_class(private[ours], made[theirs], k)
        for values, part, rows in zip(result, one, (theirs, ours, theirs, ours), strict=True):
            values[rows] = part
    return result


def _prdc_of_class(real: np.ndarray, fake: np.ndarray, k: int) -> Prdc:
    real_radius, fake_radius = _squared_radius(real, k), _squared_radius(fake, k)
    balls = np.zeros(len(fake))
    recalled, covered = np.empty(len(real), bool), np.empty(len(real), bool)
    for rows, squared in _squared_distances(real, fake):
        inside = squared <= real_radius[rows, None]
        balls += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (squared <= fake_radius).any(axis=1)
    return Prdc((balls > 0).astype(float), recalled.astype(float), balls / k, covered.astype(float))


def _squared_radius(points: np.ndarray, k: int) -> np.ndarray:
    radius = np.empty(len(points))
    for rows, squared in _squared_distances(points, points):
        # sorted position 0 is the point itself
        radius[rows] = np.partition(squared, k, axis=1)[:, k]
    return radius


def _squared_distances(queries: np.ndarray, points: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Row blocks of squared L2 distances; centered, since the expansion cancels for a large common offset."""
    center = points.mean(axis=0)
    queries, points = queries - center, points - center
    lengths = np.sum(points**2, axis=1)
    block = max(1, _BLOCK_ELEMENTS // len(points))
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        squared = np.sum(part**2, axis=1)[:, None] + lengths - 2 * part @ points.T
        yield slice(start, start + len(part)), np.maximum(squared, 0)


def _covariance_factor(features: np.ndarray) -> Float[np.ndarray, "r d"]:
    """W with W^T W = covariance, without the directions in which the sample does not vary."""
    centered = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centered.T @ centered / (len(features) - 1))
    kept = values > values[-1] * max(features.shape) * np.finfo(np.float64).eps
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T


def _kernel_sum(first: np.ndarray, second: np.ndarray) -> float:
    block = max(1, _BLOCK_ELEMENTS // len(second))
    width = first.shape[1]
    return sum(
        float(np.sum((first[start : start + block] @ second.T / width + 1) ** 3))
        for start in range(0, len(first), block)
    )


def _two_sets(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = as_matrix("first", first, minimum_rows=2), as_matrix("second", second, minimum_rows=2)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"first has {a.shape[1]} columns but second has {b.shape[1]}: they must be equal")
    return a, b
