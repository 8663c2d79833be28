"""What attacks on graphs observe, by `Card.observes`, and what they are told of the graph.

What was answered for all nodes was observed once: it is the case, and costs no query. A control answers for itself, since
the adversary has nothing but these answers: those of a network that learned other edges must not tell the true ones.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jaxmia.audit.asking import asked
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted, Observed, Training
from jaxmia.audit.roles import keywords, listed
from jaxmia.config import digest
from jaxmia.core import Card
from jaxmia.modalities.graph import data, targets
from jaxmia.models.graph_explanations import mask_gradient
from jaxmia.models.proximity import netmf
from jaxmia.oracle import Access
from jaxmia.target import Target

__all__ = ["INPUTS", "OBSERVE", "TARGET_INPUTS", "attacked", "known_pairs", "mask_of_known", "shown"]


def attacked(inputs: Inputs) -> Int[np.ndarray, " m"]:
    """The nodes whose edges among one another are wanted, ascending."""
    order = inputs.data.order
    return np.sort(order[: int(inputs.config["attacked_share"] * len(order))]).astype(np.int32)


def _labels(given: Inputs) -> Int[np.ndarray, " n"]:
    """Those of the attacked nodes, as the target learned them; -1 for the others, which the adversary does not have."""
    known = np.full(len(given.data.order), -1)
    known[attacked(given)] = given.fitted.labels[attacked(given)]
    return known


def known_pairs(given: Inputs) -> Int[np.ndarray, "p 2"]:
    """The pairs of attacked nodes, i < j, of which the adversary knows whether they are edges; the edges come first.

    `known_share` of the edges, drawn by the seed of the configuration, and as many other pairs.
    """
    nodes = attacked(given)
    linked = given.data.adjacency[np.ix_(nodes, nodes)] > 0
    rng = np.random.default_rng((given.config["seed"], 5))
    first, second = np.triu_indices(len(nodes), 1)
    edge = linked[first, second]
    count = round(given.config["known_share"] * int(edge.sum()))
    drawn = [rng.choice(np.flatnonzero(edge == kind), count, replace=False) for kind in (True, False)]
    chosen = np.concatenate(drawn)
    return np.stack([nodes[first[chosen]], nodes[second[chosen]]], 1).astype(np.int32)


def _known(given: Inputs) -> dict[str, np.ndarray]:
    """The partial graph A*."""
    pairs = known_pairs(given)
    return {"pairs": pairs, "linked": given.data.adjacency[pairs[:, 0], pairs[:, 1]] > 0}


def _shadow(given: Inputs) -> dict[str, np.ndarray] | None:
    """A public graph, and what a network answers of it that the adversary trained as the target is; None where none is
    configured."""
    section = given.config["shadow"]
    if section is None:
        return None
    seed, like = given.config["seed"] + 1, listed(given.config["targets"])[0]
    public = data.DATA[section["name"]](seed, **keywords(section))

    def fit(process: Any, key: Any, batches: Any, **where: Any) -> tuple[Any, None]:
        return given.fit(process, batches, f"shadow-{digest([section, like])[:8]}"), None

    how = Training(fit, None, seed, "shadow")  # its folder is that of the input
    fitted = targets.fit(targets.TARGETS[like["name"]](**keywords(like)), public, how)
    view, features = fitted.views["features"], public.graph.features
    return {
        "features": features,
        "labels": public.graph.labels,
        "edges": public.graph.edges,
        "scores": _table(view, features, seed),
        "embedding": _table(view.until(targets.layer(fitted)), features, seed),
    }


def _table(view: Target, features: Any, seed: int) -> Any:
    """What a target answers for all nodes of its graph."""
    oracle = view.view(Access.SCORES)
    return asked(oracle.answer, jax.random.key(seed), jnp.asarray(features))


def _nodes(given: Inputs, cases: Any) -> Observed:
    """Cases that are of all attacked nodes."""
    nodes, truth = attacked(given), {}
    served = given.fitted.views["adjacency"][np.ix_(nodes, nodes)]
    if not np.array_equal(served, given.data.adjacency[np.ix_(nodes, nodes)]):
        truth["served"] = served > 0
    return Observed(cases, nodes, truth | mask_of_known(given), ids=nodes)


def mask_of_known(given: Inputs) -> dict[str, Bool[np.ndarray, "m m"]]:
    """Which pairs of the attacked nodes the adversary knows, as "known"; nothing where none."""
    if not given.config["known_share"]:
        return {}
    nodes = attacked(given)
    mask = np.zeros((len(nodes),) * 2, bool)
    rows, columns = np.searchsorted(nodes, known_pairs(given)).T
    mask[rows, columns] = mask[columns, rows] = True
    return {"known": mask}


def _scores(given: Inputs) -> Any:
    return _table(given.fitted.views["features"], given.data.graph.features, given.config["seed"])


def _hidden(given: Inputs) -> Any:
    view = given.fitted.views["features"].until(targets.layer(given.fitted))
    return _table(view, given.data.graph.features, given.config["seed"])


def _explanation(given: Inputs) -> Any:
    """Of every node's prediction, as the defense sends it, once."""
    view, seed = given.fitted.views["features"].explained(mask_gradient), given.config["seed"]
    told = _table(view, given.data.graph.features, seed)["explanation"]
    return given.fitted.views["send"](jax.random.key(seed + 4000), jnp.asarray(told))


def _observed(**tables: Callable[[Inputs], Any]) -> Callable[[Inputs], Observed]:
    """An observer of one case that holds tables by name."""

    def observe(given: Inputs) -> Observed:
        return _nodes(given, {name: np.asarray(make(given), np.float32)[None] for name, make in tables.items()})

    return observe


def _proximity(given: Inputs) -> Observed:
    """A factorization of random walks on the graph that was learned; no network is in it."""
    learned = jnp.asarray(given.fitted.views["adjacency"], jnp.float32)
    return _nodes(given, {"matrix": np.asarray(netmf(learned))[None]})


OBSERVE: dict[str, Callable[[Inputs], Observed]] = {
    "graph": lambda given: _nodes(given, np.zeros(1, np.int32)),
    "node": lambda given: _nodes(given, {"node": attacked(given)}),
    "posteriors": _observed(scores=_scores),
    "embedding": _observed(embedding=_hidden),
    "hidden_and_scores": _observed(hidden=_hidden, scores=_scores),
    "explanation": _observed(explanation=_explanation),
    "proximity": _proximity,
}
INPUTS: dict[str, Callable[[Inputs], Any]] = {
    "features": lambda given: given.data.graph.features,
    "known": _known,
    "shadow": _shadow,
}
TARGET_INPUTS: dict[str, Callable[[Inputs], Any]] = {
    "labels": _labels,
    "volume": lambda given: float(given.fitted.views["adjacency"].sum()),  # of the graph that was walked on
}


def shown(fitted: Fitted, card: Card, config: dict) -> Target:
    """What an attack is shown of a target: that of adjacencies, or that of features, which holds the edges in itself."""
    del config
    return fitted.views["features"] if card.observes == "node" else fitted.target
