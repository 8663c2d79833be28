"""Graphs: does a node classifier tell more of the edges that it was trained on than is known without it?

The adversary has the features of all nodes and the labels of those attacked. Baselines without the model stand among
the controls: only the excess over the strongest, which has features and labels, leaks. A metric is over all pairs of
attacked nodes, but for `average_precision`, which is over all edges and as many other pairs; intervals resample nodes,
since pairs that share one are not independent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Arrays, Baseline, Judged, Modality, Observed, without_model
from jaxmia.metrics.graph import candidate_pairs, link_auc_difference, link_interval, link_scores
from jaxmia.modalities.graph import data, targets
from jaxmia.modalities.graph.data import Nodes
from jaxmia.sections import Section

__all__ = ["MODALITY", "cosine"]

EFFORT = 4e8  # pairs that the resamples of one interval look at


def attacked(inputs: Inputs) -> Int[np.ndarray, " m"]:
    """The nodes whose edges among one another are wanted, ascending."""
    order = inputs.data.order
    return np.sort(order[: int(inputs.config["attacked_share"] * len(order))]).astype(np.int32)


def _labels(given: Inputs) -> Int[np.ndarray, " n"]:
    """Those of the attacked nodes, as the target learned them; -1 for the others, which the adversary does not have."""
    known = np.full(len(given.data.order), -1)
    known[attacked(given)] = given.fitted.labels[attacked(given)]
    return known


def _graph(given: Inputs) -> Observed:
    """One case for all edges among the nodes attacked."""
    return Observed(np.zeros(1, np.int32), attacked(given), ids=attacked(given))


def keep(output: Any, seen: Observed) -> Arrays:
    """How likely each pair of attacked nodes is an edge; an output is that, or has it as `scores`, `[1, n, n]`."""
    scores = np.asarray(getattr(output, "scores", output))[0]
    return {"scores": scores[np.ix_(seen.groups, seen.groups)].astype(np.float32)}


def cosine(rows: Any) -> Float[np.ndarray, "n n"]:
    """Cosine of every two rows, symmetric to the last bit."""
    rows = np.asarray(rows, np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    product = rows @ rows.T
    return (product + product.T) / 2


def _without(data: Nodes, nodes: np.ndarray) -> dict[str, Float[np.ndarray, "m m"]]:
    """How alike two nodes are in features, in labels, and in both."""
    alike = cosine(data.graph.features[nodes])
    same = (data.graph.labels[nodes, None] == data.graph.labels[nodes]).astype(float)
    return {"features": alike, "labels": same, "features_labels": alike + same}


def judge(judges: Sequence[Any], data: Nodes, arrays: Arrays) -> Judged:
    """AUC, its excess over what features and labels tell, alone and added to that, and the precision of the best pairs.

    An adversary who has features and labels would use them: what the attack adds to them is the leakage.
    """
    del judges
    nodes, scores = arrays["targets"], arrays["scores"].astype(np.float64)
    truth = data.adjacency[np.ix_(nodes, nodes)]
    links, known = link_scores(scores, truth), link_scores(_without(data, nodes)["features_labels"], truth)
    pairs, edges = len(links.labels), int(links.labels.sum())
    resamples = int(np.clip(EFFORT / pairs, 100, 500))
    both = link_scores(scores + _without(data, nodes)["features_labels"], truth)
    balanced = link_scores(scores, truth, candidate_pairs(truth, negatives="balanced"))
    precision = link_interval(links, "precision", density=edges / pairs, resamples=resamples)
    metrics = {
        "auc": link_interval(links, resamples=resamples)._asdict(),
        "excess_auc_over_features_and_labels": link_auc_difference(links, known, resamples=resamples)._asdict(),
        "excess_auc_when_added_to_them": link_auc_difference(both, known, resamples=resamples)._asdict(),
        "average_precision": link_interval(balanced, "average_precision", resamples=resamples)._asdict(),
        "precision_of_as_many_pairs_as_edges": {**precision._asdict(), "unit": "share"},
    }
    return Judged(metrics, {}, [_named_first(links, edges)])


def _named_first(links: Any, edges: int) -> dict[str, Any]:
    """How many of the pairs that are named first are edges; equal scores in the order of the pairs."""
    order = np.argsort(-links.scores, kind="stable")
    right = np.cumsum(links.labels[order])
    named = np.unique(np.clip(np.geomspace(1, max(2 * edges, 2), 20).astype(int), 1, len(right)))
    found = [[int(k), int(right[k - 1])] for k in named]
    return {"kind": "edges", "found": found, "edges": edges, "pairs": len(right)}


def _baseline(name: str, title: str, knows: str) -> Baseline:
    def guess(given: Inputs) -> Arrays:
        nodes = attacked(given)
        scores = _without(given.data, nodes)[name].astype(np.float32)
        return {"scores": scores, "targets": nodes, "case_ids": nodes, "failed": np.zeros(len(nodes), bool)}

    return without_model(title, "graph", recovers="edges, as far as they can be guessed", knows=knows, guess=guess)


def check(inputs: Inputs) -> None:
    """Refuse a share of nodes without two of them, or without an edge."""
    share = inputs.config["attacked_share"]
    nodes = attacked(inputs) if 0 < share <= 1 else np.zeros(0, int)
    found = inputs.data.adjacency[np.ix_(nodes, nodes)].sum() / 2
    if found < 2:
        legal = "legal is above 0, up to 1, with two edges or more among the nodes attacked"
        raise ValueError(f"attacked_share: {share}, {len(nodes)} nodes with {int(found)} edges; {legal}")


INPUTS: dict[str, Callable[[Inputs], Any]] = {"features": lambda given: given.data.graph.features}
MODALITY = Modality(
    data=data.DATA,
    targets=targets.TARGETS,
    fit=targets.fit,
    accuracy=targets.accuracy,
    inputs=INPUTS,
    target_inputs={"labels": _labels},
    forced={"layer": lambda given: targets.LAYER},
    observe={"graph": _graph},
    keep=keep,
    judge=judge,
    baselines={
        "features": _baseline("features", "Alike in features", "the features of the nodes"),
        "labels": _baseline("labels", "Of one class", "the labels of the nodes"),
        "features_labels": _baseline(
            "features_labels", "Alike in features and class", "the features and the labels of the nodes"
        ),
    },
    controls=("shuffled", "untrained", "constant"),
    check=check,
    sections={"attacked_share": Section(float, 1.0, role="adversary")},
)
"""`attacked_share`: so many of the nodes are attacked, and their labels known; the others are only known by features."""
