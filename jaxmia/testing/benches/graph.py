"""Graphs: a one-layer GCN on a graph of two blocks. Candidates are `scores` `[n, nodes, nodes]`, or the output itself.

Nodes of one block are linked with probability 0.9, others with 0.05; the label is the block, and the adversary knows
two of them. Features are one-hot, so that the weights `W [nodes, 2]` of logits A' X W hold a row per node, and the sign
of the product of two rows tells one block from two. A blind guess ranks edges with an AUC of 0.5. There is one graph
per target: cases are restarts, whose mean is judged.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmia import Outputs, Target
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.graph import link_interval, link_scores
from jaxmia.models.graph import normalize_adjacency
from jaxmia.testing.benches import Bench

NODES, RESTARTS = 24, 3
BLOCKS = (np.arange(NODES) // (NODES // 2)).astype(np.int32)


@functools.cache
def graph() -> np.ndarray:
    chance = np.where(BLOCKS[:, None] == BLOCKS[None], 0.9, 0.05)
    upper = np.triu(np.random.default_rng(0).random((NODES, NODES)) < chance, 1)
    return (upper | upper.T).astype(np.float32)


def ridge(labels: np.ndarray) -> np.ndarray:
    """W in closed form: least squares on the labels as -1 and 1."""
    spread = np.asarray(normalize_adjacency(jnp.asarray(graph())), np.float64)
    signs = np.where(labels[:, None] == np.arange(2), 1.0, -1.0)
    return np.linalg.solve(spread.T @ spread + 0.1 * np.eye(NODES), spread.T @ signs).astype(np.float32)


def build(params: Any, **options: Any) -> Target:
    def apply(params: Any, adjacency: Any) -> Outputs:
        hidden = normalize_adjacency(adjacency) @ params
        return Outputs(hidden, {"embedding": hidden})

    return Target(apply, jnp.asarray(params), classes=2, **options)


def cases(target: Target, card: Card) -> Any:
    del target, card
    return np.arange(RESTARTS, dtype=np.int32)


def judge(output: Any) -> Estimate:
    found = np.asarray(getattr(output, "scores", output), np.float64).mean(0)
    return link_interval(link_scores(found, graph()))


@functools.cache
def make() -> Bench:
    return Bench(
        build=build,
        params={
            "leaks": ridge(BLOCKS),
            "shuffled": ridge(np.random.default_rng(1).permutation(BLOCKS)),
            "constant": np.zeros((NODES, 2), np.float32),
        },
        inputs={
            "features": np.eye(NODES, dtype=np.float32),
            "labels": np.where(np.arange(NODES) % (NODES // 2) == 0, BLOCKS, -1),
        },
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=jnp.zeros((NODES, NODES)),
    )
