"""Memorization and attribute inference: exposure of canaries, accuracy per record, advantage over a baseline."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from jaxmia.metrics.arrays import as_vector, require_same_length
from jaxmia.metrics.estimate import Estimate, difference

__all__ = ["Exposure", "accuracy", "attribute_advantage", "exposure_by_sampling", "exposure_exact"]


class Exposure(NamedTuple):
    """Exposure of c canaries, estimated from a sample of the candidate space.

    Attributes:
      by_rank: bits, from the rank among the sample; never above log2(n + 1), and conservative there.
      by_skew_normal: bits, from a skew-normal distribution fitted to the sample; extrapolates beyond it.
      fit_p_value: Kolmogorov-Smirnov p-value of that fit. The parameters come from the same sample, so it is
        too large: a small value refutes the fit (and with it `by_skew_normal`), a large one does not prove
        it.
      n: size of the sample.
    """

    by_rank: Float[np.ndarray, " c"]
    by_skew_normal: Float[np.ndarray, " c"]
    fit_p_value: float
    n: int


def exposure_exact(rank: Int[Any, " c"], space_size: int) -> Float[np.ndarray, " c"]:
    """Exposure in bits of canaries whose rank among all candidates is known: log2 |R| - log2 rank.

    Carlini et al., "The Secret Sharer", USENIX Security 2019, definition of exposure. From 0 (ranked last) to
    log2 |R| (ranked first); a canary that the model has not memorized has expected exposure log2(e) = 1.44
    bits.

    Args:
      rank: 1 for the candidate with the lowest log-perplexity.
      space_size: |R|, the number of candidates; may exceed 64 bits.

    Raises:
      ValueError: a rank outside 1 to space_size.

    >>> exposure_exact(np.array([1, 1024]), 1024).tolist()
    [10.0, 0.0]
    """
    ranks = as_vector("rank", rank)
    if ranks.min() < 1 or ranks.max() > space_size:
        raise ValueError(f"rank spans [{ranks.min():g}, {ranks.max():g}]: legal ranks are 1 to {space_size}")
    return math.log2(space_size) - np.log2(ranks)


def exposure_by_sampling(canary: Real[Any, " c"], reference: Real[Any, " r"]) -> Exposure:
    """Exposure in bits from the log-perplexities of a sample of never-trained candidates.

    Carlini et al. 2019, as above. By rank: the canary joins the sample, log2(r + 1) - log2(1 + number of
    references at or below it): ties count against it. By distribution: -log2 of the fitted skew-normal
    probability at or below the canary's log-perplexity. That number is an extrapolation and may exceed log2
    |R|; the left tail is integrated in log space, so it stays finite far out.

    Args:
      canary: log-perplexity of each inserted sequence, in any unit, lower is likelier.
      reference: log-perplexities of candidates drawn at random from the same space and not trained on; at
        least 20 values that are not all equal.

    Raises:
      ValueError: non-finite values, or a reference too small or constant.
    """
    from scipy import stats

    inserted, sample = as_vector("canary", canary), as_vector("reference", reference)
    if len(sample) < 20 or np.ptp(sample) == 0:
        raise ValueError(
            f"reference has {len(sample)} values with range {np.ptp(sample):g}: at least 20 that differ are needed"
        )
    at_or_below = np.searchsorted(np.sort(sample), inserted, side="right")
    by_rank = math.log2(len(sample) + 1) - np.log2(at_or_below + 1)
    # the optimizer of the fit wants values of order one
    center, spread = sample.mean(), sample.std()
    fitted = stats.skewnorm(*stats.skewnorm.fit((sample - center) / spread))
    by_skew_normal = [-_log_probability_below(fitted, x) / math.log(2) for x in (inserted - center) / spread]
    p_value = float(stats.kstest((sample - center) / spread, fitted.cdf).pvalue)
    return Exposure(by_rank, np.array(by_skew_normal), p_value, len(sample))


def accuracy(predictions: Shaped[Any, " n"], labels: Shaped[Any, " n"]) -> Float[np.ndarray, " n"]:
    """1.0 per record whose predicted value equals the true one, else 0.0; values may be integers or strings.

    Raises:
      ValueError: empty or of unequal lengths, or a float label that is NaN.
    """
    predicted, truth = np.asarray(predictions), np.asarray(labels)
    require_same_length("predictions", predicted, "labels", truth)
    if truth.ndim != 1 or predicted.ndim != 1 or truth.size == 0:
        raise ValueError(f"labels has shape {truth.shape}: a non-empty one-dimensional array is needed")
    if np.issubdtype(truth.dtype, np.floating):
        as_vector("labels", truth)
    return (predicted == truth).astype(np.float64)


def attribute_advantage(
    attack: Shaped[Any, " n"],
    baseline: Shaped[Any, " n"],
    truth: Shaped[Any, " n"],
    groups: Int[Any, " n"] | None = None,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """Accuracy of the attack's guesses of an attribute minus a baseline's, in [-1, 1], paired per record.

    The baseline is what the same adversary guesses without the model: the most frequent value, or an
    imputation from the known attributes. Without it, an attack on a skewed attribute looks strong (Jayaraman
    and Evans, "Are Attribute Inference Attacks Just Imputation?", CCS 2022). For scores in place of guesses
    see `ranking.auc_difference`.

    Args:
      attack, baseline: guessed value per record.
      truth: true value per record.
      groups: unit that is resampled, by default the record.
    """
    return difference(
        accuracy(attack, truth),
        accuracy(baseline, truth),
        groups,
        seed=seed,
        resamples=resamples,
        confidence=confidence,
    )


def _log_probability_below(distribution: Any, value: float) -> float:
    """log P[X <= value]: the cumulative function in the body, quadrature of the density in the tail."""
    below = float(distribution.cdf(value))
    if below > 1e-6:
        return math.log(below)
    from scipy.integrate import quad

    density, step = float(distribution.logpdf(value)), 1e-4 * distribution.std()
    # the density is log-concave, so below `value` it falls at least as fast as exp(-t) in units of this scale
    scale = step / (density - float(distribution.logpdf(value - step)))
    tail, _ = quad(lambda t: math.exp(distribution.logpdf(value - scale * t) - density), 0, np.inf)
    return density + math.log(scale * tail)
