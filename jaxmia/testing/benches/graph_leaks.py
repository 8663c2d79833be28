"""GraphLeaks: the embeddings of MNEMON's bench with the node itself in them, and a public graph.

Behind A' X W an embedding holds X W, the node's own part, as that of GraphSAGE does. It tells nothing
of edges, which is learned on the public graph; the same network embeds both. An output is `scores`
`[n, nodes, nodes]`.
"""

import functools
from typing import Any

import numpy as np

from jaxmia import Target
from jaxmia.core import Card
from jaxmia.testing.benches import Bench, mnemon

PUBLIC = 80  # graphs side by side in the public one


def beside(embedding: np.ndarray, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The node's own part behind that of its neighbors; a constant network has neither."""
    return np.concatenate([embedding, x @ weights], -1).astype(np.float32)


def cases(target: Target, card: Card) -> Any:
    found = mnemon.cases(target, card)["embedding"]
    return {"embedding": beside(found, mnemon.features(), np.asarray(target.params["weights"]))}


@functools.cache
def shadow() -> dict[str, np.ndarray]:
    """The public graph, embedded by the network of the target."""
    adjacencies = np.stack([mnemon.graph(1000 + i) for i in range(PUBLIC)])
    x = np.random.default_rng(2).standard_normal((PUBLIC, mnemon.NODES, mnemon.FEATURES)).astype(np.float32)
    rows = beside(mnemon.embedded(adjacencies, x, mnemon.weights()), x, mnemon.weights())
    which, i, j = np.nonzero(np.triu(adjacencies, 1))
    edges = np.stack([i, j], 1) + which[:, None] * mnemon.NODES
    return {"embedding": rows.reshape(-1, rows.shape[-1]), "edges": edges.astype(np.int32)}


@functools.cache
def make() -> Bench:
    return mnemon.make()._replace(
        cases=cases,
        inputs={"shadow": shadow()},
        public=lambda step: {"x": np.zeros(1, np.float32)},  # the stage draws from the shadow
        settings={"graph/graph_leaks": {"steps": 600, "batch": 256}},
    )
