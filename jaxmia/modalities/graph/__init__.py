"""Graphs: does a node classifier tell more of the edges that it was trained on than is known without it?

The adversary has the features of all nodes and the labels of those attacked. Baselines without the model stand among
the controls: only the excess over the strongest, which has features and labels, leaks. A metric is over all pairs of
attacked nodes that the adversary does not know, but for `average_precision`, which is over all edges and as many other
pairs; intervals resample nodes, since pairs that share one are not independent.

What is true are the edges of the data, also where a target learned others: behind a defense that changes the graph, and
as the control "rewired", whose edges join other nodes of the same degrees. How well an attack finds what such a target
did learn is a metric of its own, and no leak. Shuffled labels are a control of attacks that are handed a model of any
graph; a network that answers from the true edges tells of them whatever it learned.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxmia import attacks
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Arrays, Baseline, Judged, Modality, Observed, without_model
from jaxmia.audit.roles import listed
from jaxmia.metrics.graph import LinkScores, link_auc_difference, link_interval, link_scores
from jaxmia.modalities.graph import data, observe, targets
from jaxmia.modalities.graph.data import Nodes
from jaxmia.modalities.graph.observe import attacked
from jaxmia.sections import Section

__all__ = ["MODALITY", "cosine"]

EFFORT = 4e8  # pairs that the resamples of one interval look at


def keep(output: Any, seen: Observed) -> Arrays:
    """How likely each pair of attacked nodes is an edge; an output is that, or has it as `scores`, `[1, n, n]`.

    Of an attack that asks of each node, `[m, n]`, the larger of what two nodes tell of one another.
    """
    scores = np.asarray(getattr(output, "scores", output))
    if scores.ndim == 2:
        rows = scores[:, seen.groups]
        return {"scores": np.maximum(rows, rows.T).astype(np.float32)}
    return {"scores": scores[0][np.ix_(seen.groups, seen.groups)].astype(np.float32)}


def cosine(rows: Any) -> Float[np.ndarray, "n n"]:
    """Cosine of every two rows, symmetric to the last bit."""
    rows = np.asarray(rows, np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    product = rows @ rows.T
    return (product + product.T) / 2


def _without(data: Nodes, nodes: np.ndarray) -> dict[str, Float[np.ndarray, "m m"]]:
    """How alike two nodes are in features, in labels, and in both."""
    alike = cosine(data.graph.features[nodes])
    labels = data.graph.labels[nodes]
    same = ((labels[:, None] == labels) & (labels >= 0)).astype(float)  # of -1 nobody knows the class
    return {"features": alike, "labels": same, "features_labels": alike + same}


def judge(judges: Sequence[Any], data: Nodes, arrays: Arrays) -> Judged:
    """AUC, its excess over what features and labels tell, alone and added to that, and the precision of the best pairs.

    An adversary who has features and labels would use them: what the attack adds to them is the leakage.
    """
    del judges
    nodes, scores = arrays["targets"], arrays["scores"].astype(np.float64)
    truth, told = data.adjacency[np.ix_(nodes, nodes)], _without(data, nodes)["features_labels"]
    asked = _unknown(arrays)
    links, known = link_scores(scores, truth, asked), link_scores(told, truth, asked)
    pairs, edges = len(links.labels), int(links.labels.sum())
    resamples = int(np.clip(EFFORT / pairs, 100, 500))
    both = link_scores(scores + told, truth, asked)
    balanced = link_scores(scores, truth, _balanced(links))
    precision = link_interval(links, "precision", density=edges / pairs, resamples=resamples)
    metrics = {
        "auc": link_interval(links, resamples=resamples)._asdict(),
        "excess_auc_over_features_and_labels": link_auc_difference(links, known, resamples=resamples)._asdict(),
        "excess_auc_when_added_to_them": link_auc_difference(both, known, resamples=resamples)._asdict(),
        "average_precision": link_interval(balanced, "average_precision", resamples=resamples)._asdict(),
        "precision_of_as_many_pairs_as_edges": {**precision._asdict(), "unit": "share"},
    }
    if "served" in arrays:
        learned = link_scores(scores, arrays["served"].astype(float), asked)
        metrics["auc_on_the_edges_that_the_target_learned"] = link_interval(learned, resamples=resamples)._asdict()
    return Judged(metrics, {}, [_named_first(links, edges)])


def _unknown(arrays: Arrays) -> Int[np.ndarray, "p 2"] | None:
    """The pairs that count, i < j; None for all."""
    return np.argwhere(np.triu(~arrays["known"], 1)) if "known" in arrays else None


def _balanced(links: LinkScores) -> Int[np.ndarray, "p 2"]:
    """All edges among the pairs, and as many others."""
    absent = np.flatnonzero(~links.labels)
    drawn = np.random.default_rng(0).choice(absent, int(links.labels.sum()), replace=False)
    return links.pairs[np.sort(np.concatenate([np.flatnonzero(links.labels), drawn]))]


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
        found = {"scores": scores, "targets": nodes, "case_ids": nodes, "failed": np.zeros(len(nodes), bool)}
        return found | observe.mask_of_known(given)

    return without_model(title, "graph", recovers="edges, as far as they can be guessed", knows=knows, guess=guess)


def check(inputs: Inputs) -> None:
    """Refuse a share of nodes without two of them, or without an edge, and controls that are none."""
    config = inputs.config
    for section in listed(config["attacks"]):
        card = attacks.get(section["name"]).card
        holding = [name for name in config["controls"] if name.endswith(("-shuffled", "-untrained"))]
        if card.observes != "graph" and holding:
            raise ValueError(
                f"controls: {', '.join(holding)} still answers from the true edges, so {section['name']}, which observes "
                f"{card.observes}, need not fail there; legal is the target's name or NAME-rewired, or NAME-constant"
            )
    share = config["attacked_share"]
    nodes = attacked(inputs) if 0 < share <= 1 else np.zeros(0, int)
    found = inputs.data.adjacency[np.ix_(nodes, nodes)].sum() / 2
    if found < 2:
        legal = "legal is above 0, up to 1, with two edges or more among the nodes attacked"
        raise ValueError(f"attacked_share: {share}, {len(nodes)} nodes with {int(found)} edges; {legal}")
    known = config["known_share"]
    if not 0 <= known < 1 or found - round(known * found) < 2:
        raise ValueError(f"known_share: {known} of {int(found)} edges; legal is 0 to 1, with two edges or more unknown")


MODALITY = Modality(
    data=data.DATA,
    targets=targets.TARGETS,
    fit=targets.fit,
    accuracy=targets.accuracy,
    inputs=observe.INPUTS,
    target_inputs=observe.TARGET_INPUTS,
    forced={"layer": lambda given: targets.layer(given.fitted)},
    observe=observe.OBSERVE,
    shown=observe.shown,
    keep=keep,
    judge=judge,
    baselines={
        "features": _baseline("features", "Alike in features", "the features of the nodes"),
        "labels": _baseline("labels", "Of one class", "the labels of the nodes"),
        "features_labels": _baseline(
            "features_labels", "Alike in features and class", "the features and the labels of the nodes"
        ),
    },
    controls=("rewired", "shuffled", "untrained", "constant"),
    check=check,
    sections={
        "attacked_share": Section(float, 1.0, role="adversary"),
        "known_share": Section(float, 0.0, role="adversary"),
        "shadow": Section(data.DATA, None, role="adversary"),
    },
)
"""`attacked_share`: so many of the nodes are attacked, and their labels known; the others are only known by features.
`known_share`: so many of the edges among them the adversary knows, and as many pairs that are none; they do not count.
`shadow`: a public graph, on which the adversary trains what the target is."""
