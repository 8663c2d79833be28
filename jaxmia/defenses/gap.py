"""GAP: noise on the sums over neighbors, which are made once, before the classifier is trained.

Sajadmanesh, Shamsabadi, Bellet, Gatica-Perez, "GAP: Differentially Private Graph Neural Networks
with Aggregation Perturbation", USENIX Security 2023 (https://arxiv.org/abs/2203.00949), for edges.
The network is `models.aggregation`: an encoder that never sees the graph, K sums of rows of norm 1
over the neighbors, each with Gaussian noise, and a classifier of these. The hook gives that
network its standard deviation sigma. For one hop and the L2 sensitivity s of the sum,

    delta = Phi(s / 2 sigma - epsilon sigma / s) - e^epsilon Phi(-s / 2 sigma - epsilon sigma / s)

is exact (Balle, Wang 2018), and K hops are as private as one with sigma / sqrt(K). `noise_for`
solves it for sigma. At delta 1e-5, s = 1 and K = 2: 9.94 for epsilon 0.5, 5.28 for 1, 1.53 for 4,
0.85 for 8.

What differs. The released code has s = 1, of an edge in one direction: the row of one node changes
by one row of norm 1. An edge of an undirected graph changes the rows of both its ends, s =
sqrt(2). With s = 1 its true epsilon is 1.47, 2.95, 5.99 and 12.3 where 1, 2, 4 and 8 are claimed
(K = 1), so `undirected` is the default here. It also takes delta from the number of edges, 10 to
the minus the number of its digits, which is itself private; here delta is given.

What is needed. The target must be a network with a `deviation` to exchange, and its training must
call `private(key, edges)` once and go on with what it returns; other networks are refused. The
twin is the same network without this defense (GAP-infinity in the paper).

What it costs and does not do. Noise is added to sums, so that nodes with few neighbors lose most:
on citation graphs, set a network without a graph beside it. One draw serves training and answers;
whoever has the key can undo it. The encoder must not have seen the graph. One edge is protected,
not a node, its features or its label. The Gaussian is one of floats (Mironov 2012).
"""

import functools
import math
from typing import Any

from scipy.special import log_ndtr, ndtr

from jaxmia.core import Card, Defense
from jaxmia.models.parts import with_part
from jaxmia.ranges import above_zero

__all__ = ["CARD", "delta_of", "gap", "noise_for"]

CARD = Card(
    title="GAP",
    paper="Sajadmanesh, Shamsabadi, Bellet, Gatica-Perez. GAP: Private GNNs. USENIX Security 2023",
    url="https://arxiv.org/abs/2203.00949",
    year=2023,
    modality="graph",
    hook="model, spent",
)


def gap(*, epsilon: float = 4.0, delta: float = 1e-5, undirected: bool = True) -> Defense:
    """The defense: a network of aggregates whose sums are noisy.

    Args:
      epsilon: of the privacy of one edge, above 0.
      delta: between 0 and 1, well below 1 / number of edges.
      undirected: whether an edge is one of an undirected graph; False is the released code's.

    Raises:
      ValueError: for an epsilon or delta out of range; when applied, for a network without such
        sums.

    >>> from jaxmia.models.aggregation import Aggregation, HopClassifier
    >>> network = gap().model(Aggregation(None, HopClassifier(3), hops=2))
    >>> round(network.deviation(2), 3)
    2.162
    """
    _check(epsilon, delta)
    # Made once, so that two such models are equal.
    deviation = functools.partial(_deviation, epsilon, delta, undirected)

    def model(module: Any) -> Any:
        return with_part(module, "deviation", deviation)

    def spent(size: int, examples: int, steps: int) -> str:
        what = "edge" if undirected else "direction of an edge"
        return f"epsilon {epsilon:g} for one {what} at delta {delta:g}"

    return Defense(model=model, spent=spent)


def _deviation(epsilon: float, delta: float, undirected: bool, hops: int) -> float:
    return noise_for(epsilon, delta, hops, undirected)


def noise_for(epsilon: float, delta: float, hops: int, undirected: bool = True) -> float:
    """Sigma, the least standard deviation of the noise on each of `hops` sums.

    Args:
      epsilon: above 0.
      delta: between 0 and 1.
      hops: K, 1 or more.
      undirected: whether an edge changes two rows, or one.

    Raises:
      ValueError: for a number out of range.

    >>> round(noise_for(1.0, 1e-5, 2, undirected=False), 4)
    5.2759
    """
    _check(epsilon, delta)
    if hops < 1:
        raise ValueError(f"hops: {hops}; legal is 1 or more")
    low, high = 1e-3, 1.0  # of one hop and sensitivity 1
    while delta_of(high, epsilon) > delta:
        high *= 2
    while delta_of(low, epsilon) < delta:
        low /= 2
    while high / low > 1 + 1e-12:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if delta_of(middle, epsilon) > delta else (low, middle)
    return high * math.sqrt(2 * hops if undirected else hops)


def delta_of(sigma: float, epsilon: float) -> float:
    """Delta of one Gaussian sum of sensitivity 1.

    >>> round(delta_of(1.0, 0.0), 4)
    0.3829
    """
    half, shift = 0.5 / sigma, epsilon * sigma
    return float(ndtr(half - shift) - math.exp(epsilon + log_ndtr(-half - shift)))


def _check(epsilon: float, delta: float) -> None:
    above_zero(epsilon=epsilon)
    if not 0 < delta < 1:
        raise ValueError(f"delta: {delta}; legal is between 0 and 1")
