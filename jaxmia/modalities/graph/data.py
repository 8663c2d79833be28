"""Graphs for audits of node classifiers: whose edges trained the target, and whose are wanted."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmia.data.types import Graph
from jaxmia.identity import digest

__all__ = ["DATA", "Nodes"]


class Nodes(NamedTuple):
    """One graph, and which of its nodes have which part.

    Attributes:
      name: of the data set.
      graph: features, edges, labels.
      labeled: nodes whose labels train the target.
      test: nodes on which the target is measured.
      order: all nodes, shuffled: the first are attacked.
      notes: sentences that a reader of the page must know.
    """

    name: str
    graph: Graph
    labeled: Int[np.ndarray, " l"]
    test: Int[np.ndarray, " t"]
    order: Int[np.ndarray, " n"]
    notes: tuple[str, ...] = ()

    @property
    def contents(self) -> dict[str, str]:
        """sha256 of all that it holds."""
        return {"graph": digest(tuple(self[:-1]))}

    @property
    def adjacency(self) -> Float[np.ndarray, "n n"]:
        """1 where there is an edge, symmetric."""
        adjacency = np.zeros((len(self.graph.labels),) * 2, np.float32)
        adjacency[self.graph.edges[:, 0], self.graph.edges[:, 1]] = 1
        return adjacency + adjacency.T


def cora(seed: int, *, per_class: int = 20, test: int = 1000) -> Nodes:
    """Cora: papers, their words and citations; `per_class` papers of each topic are labeled, `test` measure the target."""
    from jaxmia.data import cora as source

    return _divided("cora", source.load(), per_class, test, seed)


def citeseer(seed: int, *, per_class: int = 20, test: int = 1000) -> Nodes:
    """Citeseer: papers, their words and citations; 15 papers have neither words nor a label."""
    from jaxmia.data import planetoid

    note = "15 papers of Citeseer have no words and no known topic; they neither train nor measure a target."
    return _divided("citeseer", planetoid.citeseer(), per_class, test, seed, (note,))


def karate(seed: int, *, per_class: int = 4, test: int = 20) -> Nodes:
    """Zachary's karate club: 34 members, two factions, 78 ties; features tell nothing but who is who."""
    from jaxmia.data import karate as source

    return _divided("karate", source.load(), per_class, test, seed)


def blocks(
    seed: int,
    *,
    nodes: int = 80,
    inside: float = 0.2,
    between: float = 0.02,
    features: int = 16,
    per_class: int = 10,
    test: int = 40,
) -> Nodes:
    """A made-up graph of two classes: nodes of one class are joined with probability `inside`, others with `between`.

    A feature is 1 with probability 0.6 in one class and 0.4 in the other, so that features tell little of the edges.
    """
    rng = np.random.default_rng((seed, 3))
    labels = np.arange(nodes) % 2
    same = labels[:, None] == labels
    linked = np.triu(rng.random((nodes, nodes)) < np.where(same, inside, between), 1)
    drawn = rng.random((nodes, features)) < np.where(labels[:, None] == np.arange(features) % 2, 0.6, 0.4)
    graph = Graph(drawn.astype(np.float32), np.argwhere(linked).astype(np.int32), labels.astype(np.int32), ("a", "b"))
    return _divided("blocks", graph, per_class, test, seed)


def _divided(name: str, graph: Graph, per_class: int, test: int, seed: int, notes: tuple[str, ...] = ()) -> Nodes:
    rng = np.random.default_rng((seed, 0))
    order = rng.permutation(len(graph.labels))
    labeled = np.concatenate([order[graph.labels[order] == c][:per_class] for c in range(len(graph.names))])
    rest = np.setdiff1d(order[graph.labels[order] >= 0], labeled)
    if not 1 <= test <= len(rest) or per_class < 1:
        raise ValueError(
            f"data.per_class, data.test: {per_class}, {test}; legal is 1 or more, with {len(order)} nodes in all"
        )
    return Nodes(name, graph, labeled, rng.permutation(rest)[:test], rng.permutation(len(order)), notes)


DATA: dict[str, Callable[..., Nodes]] = {
    "cora": cora,
    "citeseer": citeseer,
    "karate": karate,
    "blocks": blocks,
}
