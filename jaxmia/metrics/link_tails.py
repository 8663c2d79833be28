"""What the AUC over all pairs hides: the head of the list, ties, and which edges are found.

A link attack names few pairs, so it is judged where almost no non-edge has passed: by the share of
edges found at a false positive rate of 1e-3 or 1e-4. And most of an AUC may be "same class": on
Cora 81 % of the edges but 18 % of the pairs join two nodes of one class. `links_by_class` and
`links_by_influence` cut what `link_scores` returns into parts; `roc_auc` and `link_interval` then
judge a part as they judge the whole.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real

from jaxmia.metrics.arrays import as_classes, as_vector, require_same_length
from jaxmia.metrics.estimate import Estimate, wilson
from jaxmia.metrics.graph import LinkScores, _node_weights
from jaxmia.metrics.ranking import Ranking, rank
from jaxmia.metrics.resampling import check_options, percentile_interval

__all__ = [
    "check_rate",
    "link_tpr",
    "links_by_class",
    "links_by_influence",
    "ranking_tpr",
    "tied_share",
]


def link_tpr(
    links: LinkScores,
    false_positive_rate: float,
    *,
    seed: int = 0,
    resamples: int = 1_000,
    confidence: float = 0.95,
) -> Estimate:
    """Share of the edges found while at most that share of the non-edges is named, in [0, 1].

    Chance is the false positive rate itself. A run of equal scores that the cut falls into counts
    by its mean, as in `ranking.precision_at_density`. The interval resamples nodes and costs as
    much as `link_interval`; an exact 0 or 1 gets the Wilson interval of at most as many edges as
    there are nodes, as there.

    Args:
      links: what `link_scores` returns.
      false_positive_rate: in (0, 1), 1e-3 or 1e-4 by custom; times the non-edges it must be 1 or
        more.

    Returns:
      The estimate with n = pairs and groups = nodes that occur in them.

    Raises:
      ValueError: an option out of range, too few non-edges for the rate, or as in `link_interval`.
    """
    check_options(resamples, confidence)
    ranking = rank(links.scores, links.labels)
    edges, pairs = int(links.labels.sum()), len(links.labels)
    check_rate(false_positive_rate, pairs - edges)
    value = ranking_tpr(ranking, false_positive_rate)
    nodes, ends = np.unique(links.pairs[ranking.order], return_inverse=True)
    if value in (0.0, 1.0):
        trials = min(edges, len(nodes))
        score = wilson(round(value) * trials, trials, confidence=confidence)
        return score._replace(n=pairs, groups=len(nodes))
    weights = _node_weights(np.random.default_rng(seed), ends.reshape(links.pairs.shape), ranking.positive, resamples)
    draws = np.array([ranking_tpr(ranking, false_positive_rate, w) for w in weights])
    low, high = percentile_interval(draws, len(nodes), confidence)
    return Estimate(value, low, high, pairs, len(nodes), confidence, "bootstrap over nodes")


def ranking_tpr(ranking: Ranking, false_positive_rate: float, weights: Float[np.ndarray, " n"] | None = None) -> float:
    """Share of the weight of the positives above the cut that lets that share of the negatives pass.

    Where positives follow before the next negative, they are above the cut. With less than one
    negative to let pass it is the share above the best one. Weights are in the order of the
    ranking; not batched.
    """
    everything = np.ones(len(ranking.order)) if weights is None else weights
    found = np.cumsum(np.add.reduceat(everything * ranking.positive, ranking.starts))
    passed = np.cumsum(np.add.reduceat(everything * ~ranking.positive, ranking.starts))
    found, passed = np.concatenate([[0.0], found]), np.concatenate([[0.0], passed])
    allowed = _up(false_positive_rate * passed[-1])
    last = int(np.searchsorted(passed, allowed, side="right")) - 1
    if last + 1 == len(passed):
        return 1.0
    share = (allowed - passed[last]) / (passed[last + 1] - passed[last])
    return float(found[last] + share * (found[last + 1] - found[last])) / float(found[-1])


def check_rate(false_positive_rate: float, negatives: int) -> None:
    """ValueError unless the rate is in (0, 1) and lets at least one negative pass."""
    allowed = false_positive_rate * negatives
    if not 0 < false_positive_rate < 1 or _up(allowed) < 1:
        raise ValueError(
            f"false_positive_rate: {false_positive_rate}, {allowed:g} of {negatives} non-edges; legal is above 0, "
            "below 1, and 1 non-edge or more"
        )


def tied_share(links: LinkScores) -> float:
    """Share of the pairs whose score some other pair has as well, in [0, 1].

    What is tied is not ranked: a float32 sigmoid of inner products above 17 is 1, whatever they
    are, and most influences of a network of two layers are exactly 0.

    >>> pairs = np.array([[0, 1], [0, 2], [1, 2]])
    >>> tied_share(LinkScores(pairs, np.array([0.5, 1.0, 0.5]), np.array([True, False, False])))
    0.6666666666666666
    """
    _, counts = np.unique(as_vector("scores", links.scores), return_counts=True)
    return float(counts[counts > 1].sum() / counts.sum())


def links_by_class(links: LinkScores, classes: Int[Any, " n"]) -> tuple[LinkScores, LinkScores]:
    """The pairs of two nodes of one class, and those of two classes.

    Only the excess over chance within a class tells that more than the class leaked.

    Args:
      links: what `link_scores` returns.
      classes: class of every node of the graph, -1 where it is unknown; its pairs are in neither
        part.

    Returns:
      Within and across. A part may lack edges; a metric of it then says so.
    """
    known = as_classes("classes", classes)
    if links.pairs.max() >= len(known):
        raise ValueError(f"classes: {len(known)} nodes; legal is {links.pairs.max() + 1} or more, as in the pairs")
    first, second = known[links.pairs].T
    both = (first >= 0) & (second >= 0)
    return _part(links, both & (first == second)), _part(links, both & (first != second))


def links_by_influence(links: LinkScores, influence: Real[Any, " p"], parts: int = 3) -> tuple[LinkScores, ...]:
    """Edges in parts of equal size (but for one edge) by their influence, each against all non-edges.

    The extension of GraphMI (Zhang et al., TKDE 2022) claims that edges of greater influence on the
    network are found better: then the AUC rises from part to part.

    Args:
      links: what `link_scores` returns.
      influence: of every pair of `links`, read at its edges; from a matrix it is
        `link_scores(matrix, adjacency, links.pairs).scores`.
      parts: how many, 3 for terciles.

    Returns:
      Parts of rising influence; edges of equal influence stay in the order of the pairs.
    """
    values = as_vector("influence", influence)
    require_same_length("influence", values, "links", links.pairs)
    edges = np.flatnonzero(links.labels)
    if not 1 <= parts <= len(edges):
        raise ValueError(f"parts: {parts}; legal is 1 to {len(edges)}, the edges")
    rising = edges[np.argsort(values[edges], kind="stable")]
    chosen = []
    for part in np.array_split(rising, parts):
        keep = ~links.labels
        keep[part] = True
        chosen.append(_part(links, keep))
    return tuple(chosen)


def _part(links: LinkScores, keep: np.ndarray) -> LinkScores:
    return LinkScores(links.pairs[keep], links.scores[keep], links.labels[keep])


def _up(count: float) -> float:
    # 0.29 * 100 is below 29
    return count * (1 + 1e-12)
