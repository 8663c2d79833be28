"""Embeddings of all nodes by a graph convolution, A' X W, of random features X.

Each node has a few neighbors among all, so that neither blocks nor features tell edges: only the
mean over neighbors does. The control embeds with other graphs. A blind guess ranks edges with an AUC
of 0.5. Cases are graphs, and the success is that over the pairs of all of them. An output is
`scores` `[n, nodes, nodes]`.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmia import Outputs, Target
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.graph import LinkScores, link_interval, link_scores
from jaxmia.models.graph import normalize_adjacency
from jaxmia.testing.benches import Bench

NODES, GRAPHS, FEATURES, HIDDEN, DEGREE = 24, 6, 64, 32, 2


def graph(seed: int) -> np.ndarray:
    """A random graph of mean degree `DEGREE`."""
    upper = np.triu(np.random.default_rng(seed).random((NODES, NODES)) < DEGREE / (NODES - 1), 1)
    return (upper | upper.T).astype(np.float32)


@functools.cache
def graphs(first: int) -> np.ndarray:
    """`[g, n, n]`, of the seeds from `first` on."""
    return np.stack([graph(first + i) for i in range(GRAPHS)])


@functools.cache
def features() -> np.ndarray:
    """`[g, n, d]`, noise."""
    return np.random.default_rng(0).standard_normal((GRAPHS, NODES, FEATURES)).astype(np.float32)


@functools.cache
def weights() -> np.ndarray:
    """W, of the one network that embeds all graphs."""
    return np.random.default_rng(1).standard_normal((FEATURES, HIDDEN)).astype(np.float32)


def build(params: Any, **options: Any) -> Target:
    """A target of the features of one node table `[n, d]`, on the first of its graphs."""

    def apply(params: Any, x: Any) -> Outputs:
        hidden = normalize_adjacency(params["adjacency"][0]) @ x @ params["weights"]
        return Outputs(hidden, {"embedding": hidden})

    return Target(apply, {name: jnp.asarray(leaf) for name, leaf in params.items()}, classes=HIDDEN, **options)


def embedded(adjacencies: Any, x: Any, matrix: Any) -> np.ndarray:
    """`[g, n, h]`, of every graph."""
    return np.stack([np.asarray(normalize_adjacency(jnp.asarray(a))) @ b @ matrix for a, b in zip(adjacencies, x)])


def cases(target: Target, card: Card) -> Any:
    del card
    params = target.params
    return {"embedding": embedded(params["adjacency"], features(), np.asarray(params["weights"]))}


def pooled(found: Any, truth: np.ndarray) -> Estimate:
    """The AUC over the pairs within each of the graphs; intervals resample the nodes of all."""
    each = [link_scores(scores, edges) for scores, edges in zip(np.asarray(found, np.float64), truth)]
    nodes = np.arange(len(each)) * truth.shape[1]
    pairs = np.concatenate([links.pairs + first for links, first in zip(each, nodes)])
    return link_interval(LinkScores(pairs, *(np.concatenate([links[k] for links in each]) for k in (1, 2))))


def judge(output: Any) -> Estimate:
    return pooled(getattr(output, "scores", output), graphs(0))


@functools.cache
def make() -> Bench:
    return Bench(
        build=build,
        params={
            "leaks": {"adjacency": graphs(0), "weights": weights()},
            "shuffled": {"adjacency": graphs(100), "weights": weights()},
            "constant": {"adjacency": graphs(0), "weights": np.zeros_like(weights())},
        },
        inputs={},
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=jnp.zeros((NODES, FEATURES)),
        # One round: the edges of the next jump where rounding differs.
        settings={"graph/mnemon": {"rounds": 1, "steps": 40, "heads": 8, "width": 32, "neighbors": DEGREE}},
    )
