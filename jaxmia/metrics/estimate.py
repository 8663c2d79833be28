"""From per-case values to one number with its n and an interval.

Cases of one class or identity are not independent, so the interval resamples whole groups where groups are
given. The interval is the expanded percentile bootstrap (Hesterberg, "What Teachers Should Know About the
Bootstrap", The American Statistician 69(4), 2015): the percentile bootstrap with quantiles moved outward by
sqrt(n / (n - 1)) and Student's t, since the plain one is too short for few groups (5 groups of normal data:
covers 81 % at nominal 95 %, expanded 92 %). With 3 groups no bootstrap covers (77 %): read `Estimate.groups`
before the interval.

Where resampling cannot vary, a point interval would claim certainty. A 0/1 mean of 0 or 1 then gets the
Wilson score interval (E. B. Wilson, JASA 22, 1927). `Estimate.method` says which interval it is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from jaxmia.metrics.arrays import as_vector, require_same_length
from jaxmia.metrics.resampling import (
    BLOCK_ELEMENTS,
    check_options,
    independent_units,
    normal_quantile,
    percentile_interval,
    resample_counts,
    student_quantile,
)

__all__ = [
    "Estimate",
    "block_jackknife",
    "bootstrap",
    "difference",
    "wilson",
]


class Estimate(NamedTuple):
    """A metric over n cases with its confidence interval.

    Attributes:
      value: the metric on all cases.
      low, high: ends of the interval.
      n: cases the value is computed from.
      groups: independent units behind the interval (classes, identities, nodes; n where cases are
        independent).
      confidence: nominal coverage in (0, 1).
      method: how the interval was made.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int
    confidence: float
    method: str

    def __str__(self) -> str:
        grouped = f" in {self.groups} groups" if self.groups != self.n else ""
        interval = f"[{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g} {interval} (n={self.n}{grouped}, {100 * self.confidence:g} %, {self.method})"


def bootstrap(
    per_case: Shaped[Any, " n"],
    groups: Int[Any, " n"] | None = None,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
    statistic: str = "mean",
) -> Estimate:
    """The mean or median of per-case values with an expanded percentile bootstrap interval.

    Args:
      per_case: one value per case; values that are all 0 or all 1 count as a proportion.
      groups: class or identity of every case; whole groups are resampled. Without it cases count as
        independent.
      seed: of the resampling; the same seed gives the same interval.
      resamples: number of bootstrap resamples, at least 100.
      confidence: nominal coverage in (0, 1).
      statistic: "mean" (pooled over all cases, so a larger group weighs more) or "median".

    Returns:
      The estimate. Its method is "Wilson score" for a 0/1 mean of exactly 0 or 1 (over the groups where there
      are groups, as if the cases of one group always agreed), "bootstrap of cases" where all groups have the
      same mean though their cases differ, and "constant" where all values are equal and not 0 or 1: there the
      interval is a point.

    Raises:
      ValueError: empty or non-finite values, fewer than two groups, or an option out of range.

    >>> print(bootstrap(np.zeros(20)))
    0 [0, 0.1611] (n=20, 95 %, Wilson score)
    """
    values = as_vector("per_case", per_case)
    check_options(resamples, confidence)
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic is {statistic!r}: legal are 'mean' and 'median'")
    index, units = independent_units(groups, values)
    value = float(np.mean(values) if statistic == "mean" else np.median(values))
    if np.ptp(values) == 0:
        if statistic == "mean" and value in (0.0, 1.0):
            return wilson(units if value else 0, units, confidence=confidence)._replace(n=len(values))
        return Estimate(value, value, value, len(values), units, confidence, "constant")
    draw = _draw_means if statistic == "mean" else _draw_medians
    low, high = percentile_interval(draw(values, index, units, resamples, seed), units, confidence)
    if high - low <= 1e-12 * np.ptp(values) and statistic == "mean" and groups is not None:
        options = {"seed": seed, "resamples": resamples, "confidence": confidence}
        return bootstrap(values, **options)._replace(groups=units, method="bootstrap of cases")
    return Estimate(value, low, high, len(values), units, confidence, "bootstrap")


def difference(
    first: Shaped[Any, " n"],
    second: Shaped[Any, " n"],
    groups: Int[Any, " n"] | None = None,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """Mean of first minus second over the same cases: paired bootstrap of the difference.

    Where two 0/1 arrays differ by one constant on every case, the interval is the Tango score interval
    (Statistics in Medicine 17, 1998): for no discordant pair -+ z^2 / (n + z^2), for only discordant pairs
    one end is (n - z^2) / (n + z^2) and the other 1.

    Raises:
      ValueError: unequal lengths, and as `bootstrap`.
    """
    a, b = as_vector("first", first), as_vector("second", second)
    require_same_length("first", a, "second", b)
    if np.ptp(a - b) > 0:
        return bootstrap(a - b, groups, seed=seed, resamples=resamples, confidence=confidence)
    _, units = independent_units(groups, a)
    value, score = float(a[0] - b[0]), wilson(units, units, confidence=confidence)
    if not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        return Estimate(value, value, value, len(a), units, confidence, "constant")
    if value == 0:
        low, high = score.low - 1, 1 - score.low
    else:
        least = 2 * score.low - 1
        low, high = (least, 1.0) if value > 0 else (-1.0, -least)
    return Estimate(value, low, high, len(a), units, confidence, "Tango score")


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """A proportion of n independent trials with the Wilson score interval, which is never a point.

    Raises:
      ValueError: n < 1 or successes outside 0 to n.

    >>> str(wilson(20, 20))
    '1 [0.8389, 1] (n=20, 95 %, Wilson score)'
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes is {successes} of n = {n}: legal are n >= 1 and 0 to n successes")
    check_options(100, confidence)
    z = normal_quantile(0.5 + confidence / 2)
    share = successes / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # exact at the ends, where rounding would leave 1e-17
    low = 0.0 if successes == 0 else center - reach
    high = 1.0 if successes == n else center + reach
    return Estimate(share, low, high, n, n, confidence, "Wilson score")


def block_jackknife(
    distance: Callable[[np.ndarray, np.ndarray], float],
    first: Shaped[Any, "n ..."],
    second: Shaped[Any, "m ..."],
    *,
    first_groups: Int[Any, " n"] | None = None,
    second_groups: Int[Any, " m"] | None = None,
    blocks: int = 20,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """A distance between two samples (FID, KID) with a delete-a-block jackknife interval.

    The bootstrap is wrong here: a resample holds duplicates, which pull such distances away from their value.
    Each sample is split at random into blocks (of whole groups where groups are given); the distance is
    computed without each block in turn, 2 * blocks + 1 times in all, and the two variances add up (Kott, "The
    Delete-a-Group Jackknife", Journal of Official Statistics 17, 2001; Student's t with blocks - 1 degrees of
    freedom). The interval is for the expected distance at these sample sizes: it does not remove the bias
    that FID has at small n.

    Args:
      distance: function of two arrays.
      first, second: independent samples along their leading axis.
      first_groups, second_groups: class or identity per row.
      blocks: blocks per sample, at least 2 and at most the number of groups; fewer are made where groups are
        fewer.
      seed: of the split.

    Returns:
      The estimate, not cut off at zero; n is the smaller sample size, groups the number of blocks.

    Raises:
      ValueError: fewer than two blocks or groups.
    """
    check_options(100, confidence)
    if blocks < 2:
        raise ValueError(f"blocks is {blocks}: at least 2 are needed")
    a, b = np.asarray(first), np.asarray(second)
    rng = np.random.default_rng(seed)
    first_block, second_block = _blocks(first_groups, a, blocks, rng), _blocks(second_groups, b, blocks, rng)
    variance = 0.0
    for replicates in (
        [distance(a[first_block != k], b) for k in range(first_block.max() + 1)],
        [distance(a, b[second_block != k]) for k in range(second_block.max() + 1)],
    ):
        variance += (len(replicates) - 1) * float(np.var(replicates))
    value = float(distance(a, b))
    made = int(min(first_block.max(), second_block.max()) + 1)
    reach = student_quantile(0.5 + confidence / 2, made - 1) * math.sqrt(variance)
    return Estimate(
        value, value - reach, value + reach, min(len(a), len(b)), made, confidence, "delete-a-block jackknife"
    )


def _draw_means(values: np.ndarray, index: np.ndarray, units: int, resamples: int, seed: int) -> np.ndarray:
    # centered, so that a large common offset does not cost digits
    center = values.mean()
    totals = np.bincount(index, values - center, minlength=units)
    sizes = np.bincount(index, minlength=units).astype(np.float64)
    rng = np.random.default_rng(seed)
    return center + np.concatenate([(c @ totals) / (c @ sizes) for c in resample_counts(rng, units, resamples)])


def _draw_medians(values: np.ndarray, index: np.ndarray, units: int, resamples: int, seed: int) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    ascending, owner = values[order], index[order]
    rng = np.random.default_rng(seed)
    medians = []
    # a row of weights is as long as the cases, so resamples are taken a slice at a time
    rows = max(1, BLOCK_ELEMENTS // len(values))
    for counts in resample_counts(rng, units, resamples):
        for start in range(0, len(counts), rows):
            reached = np.cumsum(counts[start : start + rows, owner], axis=1)
            total = reached[:, -1:]
            lower = np.argmax(reached >= np.floor((total + 1) / 2), axis=1)
            upper = np.argmax(reached >= np.floor(total / 2) + 1, axis=1)
            medians.append((ascending[lower] + ascending[upper]) / 2)
    return np.concatenate(medians)


def _blocks(groups: Any, sample: np.ndarray, blocks: int, rng: np.random.Generator) -> np.ndarray:
    index, units = independent_units(groups, sample)
    return (rng.permutation(units) % min(blocks, units))[index]
