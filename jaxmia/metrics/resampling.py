"""The parts of a bootstrap that all metrics share: independent units, resamples, interval ends."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = [
    "BLOCK_ELEMENTS",
    "check_options",
    "independent_units",
    "normal_quantile",
    "percentile_interval",
    "resample_counts",
    "student_quantile",
]

BLOCK_ELEMENTS = 1 << 21  # resamples are drawn in blocks of this many counts, to bound memory at 16 MiB


def independent_units(groups: Any, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Index of the independent unit of every case, and how many units there are."""
    if groups is None:
        index, units = np.arange(len(values)), len(values)
    else:
        labels = np.asarray(groups)
        if labels.shape != (len(values),):
            raise ValueError(f"groups has shape {labels.shape}: ({len(values)},) is needed, one per case")
        names, index = np.unique(labels, return_inverse=True)
        units = len(names)
    if units < 2:
        raise ValueError(
            f"there are {units} independent groups of n = {len(values)} cases: an interval needs 2 or more"
        )
    return index, units


def percentile_interval(draws: Float[np.ndarray, " r"], units: int, confidence: float) -> tuple[float, float]:
    """Expanded percentile interval from bootstrap draws of a statistic over `units` independent units.

    Hesterberg 2015: the quantile alpha / 2 becomes Phi(sqrt(n / (n - 1)) t_{alpha / 2, n - 1}).
    """
    scale = math.sqrt(units / (units - 1))
    tail = _normal_cdf(-scale * student_quantile(0.5 + confidence / 2, units - 1))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def resample_counts(rng: np.random.Generator, units: int, resamples: int) -> Iterator[Float[np.ndarray, "b units"]]:
    """Blocks of bootstrap resamples, as how often each of `units` was drawn; `resamples` rows in all."""
    block = max(1, BLOCK_ELEMENTS // units)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def check_options(resamples: int, confidence: float) -> None:
    if resamples < 100:
        raise ValueError(f"resamples is {resamples}: at least 100 are needed")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: legal is 0 < confidence < 1")


def normal_quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def _normal_cdf(value: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(value))


def student_quantile(share: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))
