"""Metrics of a score that should rank positives first: ROC AUC, average precision, precision at a density.

All three read one curve: going down the scores, how much weight of positives and of everything has been
passed. Ties are one step, so no metric depends on the order in which equal scores are stored. Weights make a
bootstrap resample.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped

from jaxmia.metrics.arrays import as_binary, as_vector, require_same_length
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.resampling import (
    BLOCK_ELEMENTS,
    check_options,
    normal_quantile,
    percentile_interval,
    resample_counts,
)

__all__ = [
    "Ranking",
    "auc_difference",
    "auc_interval",
    "average_precision",
    "newcombe",
    "precision_at_density",
    "rank",
    "ranking_auc",
    "ranking_average_precision",
    "ranking_precision",
    "roc_auc",
]


class Ranking(NamedTuple):
    """Cases by falling score.

    Attributes:
      order: index of the cases, highest score first.
      positive: whether each case of `order` is a positive.
      starts: place in `order` where each run of equal scores starts.
    """

    order: Int[np.ndarray, " n"]
    positive: Bool[np.ndarray, " n"]
    starts: Int[np.ndarray, " t"]


def rank(scores: Real[Any, " n"], labels: Shaped[Any, " n"]) -> Ranking:
    """Sorts cases by score; ValueError on non-finite scores, unequal lengths or a single class."""
    values, positive = as_vector("scores", scores), as_binary("labels", labels)
    require_same_length("scores", values, "labels", positive)
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return Ranking(order, positive[order], starts)


def roc_auc(scores: Real[Any, " n"], labels: Shaped[Any, " n"]) -> float:
    """Area under the ROC curve, in [0, 1]: chance that a positive outscores a negative.

    Exact (Mann-Whitney), ties count one half. Never folded to max(AUC, 1 - AUC): an attack does not know
    afterwards which side was right.

    Args:
      scores: higher means more likely positive; finite.
      labels: 0/1 or bool, both classes present.

    >>> roc_auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
    0.875
    """
    return float(ranking_auc(rank(scores, labels)))


def average_precision(scores: Real[Any, " n"], labels: Shaped[Any, " n"]) -> float:
    """Average precision, in (0, 1]: sum over thresholds of the gain in recall times the precision.

    Not interpolated. A random score reaches the share of positives, so numbers at different shares do not
    compare.

    >>> round(average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])), 6)
    0.833333
    """
    return float(ranking_average_precision(rank(scores, labels)))


def precision_at_density(scores: Real[Any, " n"], labels: Shaped[Any, " n"], density: float) -> float:
    """Share of positives among the round(density * n) highest scores, in [0, 1].

    A run of equal scores that the cut falls into counts by its mean, as if ties were broken at random. Recall
    is this times the number selected over the number of positives; at the true density the two are equal.

    Args:
      density: believed share of positives in (0, 1] (LinkTeller, Wu et al., S&P 2022, calls it the density
        belief).
    """
    return ranking_precision(rank(scores, labels), density)


def ranking_auc(ranking: Ranking, weights: Float[np.ndarray, "*b n"] | None = None) -> Float[Any, "*b"]:
    """ROC AUC of weighted cases; weights are in the order of the ranking, leading axes are batched."""
    positives, everything = _curve(ranking, weights)
    negatives = everything - positives
    before = np.concatenate([np.zeros_like(positives[..., :1]), positives[..., :-1]], axis=-1)
    gained = np.diff(negatives, axis=-1, prepend=0)
    area = np.sum(gained * (before + positives) / 2, axis=-1)
    return area / (positives[..., -1] * negatives[..., -1])


def ranking_average_precision(ranking: Ranking, weights: Float[np.ndarray, "*b n"] | None = None) -> Float[Any, "*b"]:
    """Average precision of weighted cases, as `ranking_auc`."""
    positives, everything = _curve(ranking, weights)
    gained = np.diff(positives, axis=-1, prepend=0)
    # a resample can leave the top of the list without any weight: no recall is gained there either
    precision = np.divide(positives, everything, out=np.zeros_like(positives), where=everything > 0)
    return np.sum(gained * precision, axis=-1) / positives[..., -1]


def ranking_precision(ranking: Ranking, density: float, weights: Float[np.ndarray, " n"] | None = None) -> float:
    """Precision among the highest `density` share of the weight of the cases; not batched."""
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}: legal is 0 < density <= 1")
    positives, everything = _curve(ranking, weights)
    selected = round(density * float(everything[-1]))
    if selected < 1:
        raise ValueError(f"density is {density} of {everything[-1]:g} cases: it selects none")
    found = np.interp(selected, np.concatenate([[0.0], everything]), np.concatenate([[0.0], positives]))
    return float(found) / selected


def auc_interval(
    scores: Real[Any, " n"],
    labels: Shaped[Any, " n"],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """ROC AUC with an interval from a stratified bootstrap (positives and negatives are resampled apart).

    A perfect or perfectly wrong ranking cannot vary under resampling; it gets the Newcombe score interval. A
    score that is the same for all cases is 0.5 for certain ("constant"). Takes time in proportion to
    resamples * n.

    Returns:
      The estimate; `groups` is the size of the smaller class, which decides how far the interval is expanded.

    Raises:
      ValueError: as `roc_auc`, or a class with fewer than two cases.
    """
    check_options(resamples, confidence)
    ranking = rank(scores, labels)
    value = float(ranking_auc(ranking))
    positives, negatives = _class_sizes(ranking)
    smaller = min(positives, negatives)
    if value in (0.0, 1.0):
        low, high = newcombe(value, positives, negatives, confidence)
        method = "Newcombe score"
    elif len(ranking.starts) == 1:
        low, high, method = value, value, "constant"
    else:
        blocks = _stratified_weights(ranking.positive, resamples, seed)
        draws = [ranking_auc(ranking, weights) for weights in blocks]
        low, high = percentile_interval(np.concatenate(draws), smaller, confidence)
        method = "stratified bootstrap"
    return Estimate(value, low, high, len(ranking.order), smaller, confidence, method)


def auc_difference(
    first_scores: Real[Any, " n"],
    second_scores: Real[Any, " n"],
    labels: Shaped[Any, " n"],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """AUC of the first score minus AUC of the second on the same cases: paired stratified bootstrap.

    Where the difference cannot vary (both rankings perfect, or equal), the two Newcombe intervals are
    combined by their distances from the values (MOVER, Zou and Donner, Statistics in Medicine 27, 2008),
    which takes the two as independent and is thus too wide rather than too short.
    """
    check_options(resamples, confidence)
    first, second = rank(first_scores, labels), rank(second_scores, labels)
    first_auc, second_auc = float(ranking_auc(first)), float(ranking_auc(second))
    positives, negatives = _class_sizes(first)
    draws = [
        ranking_auc(first, weights[:, first.order]) - ranking_auc(second, weights[:, second.order])
        for weights in _stratified_weights(as_binary("labels", labels), resamples, seed)
    ]
    low, high = percentile_interval(np.concatenate(draws), min(positives, negatives), confidence)
    value, method = first_auc - second_auc, "paired stratified bootstrap"
    if high - low < 1e-12:
        first_low, first_high = newcombe(first_auc, positives, negatives, confidence)
        second_low, second_high = newcombe(second_auc, positives, negatives, confidence)
        low = value - math.hypot(first_auc - first_low, second_high - second_auc)
        high = value + math.hypot(first_high - first_auc, second_auc - second_low)
        low, high, method = max(low, -1.0), min(high, 1.0), "MOVER of Newcombe scores"
    return Estimate(value, low, high, len(first.order), min(positives, negatives), confidence, method)


def newcombe(auc: float, positives: int, negatives: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of an AUC (Newcombe, Statistics in Medicine 25, 2006, part 2, method 5).

    The ends are where |theta - auc| = z sqrt(V(theta)) with V(theta) = theta (1 - theta) (1 + k (1 - theta) /
    (2 - theta) + k theta / (1 + theta)) / (m n), k = (m + n) / 2 - 1. Not a point at 0 or 1.
    """
    from scipy.optimize import root_scalar

    z = normal_quantile(0.5 + confidence / 2)
    k = (positives + negatives) / 2 - 1

    def gap(theta: float) -> float:
        spread = 1 + k * (1 - theta) / (2 - theta) + k * theta / (1 + theta)
        return abs(theta - auc) - z * math.sqrt(theta * (1 - theta) * spread / (positives * negatives))

    inside = min(max(auc, 1e-12), 1 - 1e-12)
    low = 0.0 if auc == 0 else float(root_scalar(gap, bracket=(0.0, inside)).root)
    high = 1.0 if auc == 1 else float(root_scalar(gap, bracket=(inside, 1.0)).root)
    return low, high


def _curve(ranking: Ranking, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Weight of positives and of all cases down to the end of each run of equal scores."""
    everything = np.ones(len(ranking.order)) if weights is None else weights
    positives = everything * ranking.positive
    if len(ranking.starts) < len(ranking.order):
        positives = np.add.reduceat(positives, ranking.starts, axis=-1)
        everything = np.add.reduceat(everything, ranking.starts, axis=-1)
    return np.cumsum(positives, axis=-1), np.cumsum(everything, axis=-1)


def _class_sizes(ranking: Ranking) -> tuple[int, int]:
    positives = int(ranking.positive.sum())
    negatives = len(ranking.positive) - positives
    if min(positives, negatives) < 2:
        raise ValueError(
            f"labels has {positives} positives and {negatives} negatives: an interval needs 2 or more of each"
        )
    return positives, negatives


def _stratified_weights(
    positive: Bool[np.ndarray, " n"], resamples: int, seed: int
) -> Iterator[Float[np.ndarray, "b n"]]:
    """Blocks of bootstrap weights in the order of `positive`, each class resampled within itself."""
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // len(positive))
    for start in range(0, resamples, block):
        weights = np.empty((min(block, resamples - start), len(positive)))
        for side in (positive, ~positive):
            weights[:, side] = np.concatenate(list(resample_counts(rng, int(side.sum()), len(weights))))
        yield weights
