"""RL-GraphMI: a one-layer GCN that tells the block of a node from its neighbors.

Outputs are scores `[n, nodes, nodes]`. Features are noise around a mean of each block, which tell
little of one node and much of its neighborhood. The logits are A' X W with W in closed form, and
the adversary has all labels: what the target says of a graph tells whether the edges of each node
lead to its own block. The graph is that of two blocks of `benches.graph`, and the mean of the
restarts is judged. The attack leaves out what the features tell by themselves, which no control
could.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmia import Outputs, Target
from jaxmia.models.graph import normalize_adjacency
from jaxmia.testing.benches import Bench
from jaxmia.testing.benches.graph import BLOCKS, NODES, cases, graph, judge

SIZE, APART = 6, 0.35  # numbers of a feature; distance of the means


def features() -> np.ndarray:
    signs = np.where(BLOCKS == 0, 1.0, -1.0)[:, None]
    return (APART * signs + np.random.default_rng(5).normal(size=(NODES, SIZE))).astype(np.float32)


def ridge(labels: np.ndarray) -> np.ndarray:
    """W in closed form: least squares on the labels as -1 and 1."""
    seen = np.asarray(normalize_adjacency(jnp.asarray(graph())), np.float64) @ features()
    signs = np.where(labels[:, None] == np.arange(2), 1.0, -1.0)
    return np.linalg.solve(seen.T @ seen + 0.1 * np.eye(SIZE), seen.T @ signs).astype(np.float32)


def build(params: Any, **options: Any) -> Target:
    x = jnp.asarray(features())

    def apply(params: Any, adjacency: Any) -> Outputs:
        return Outputs(normalize_adjacency(adjacency) @ (x @ params), {})

    return Target(apply, jnp.asarray(params), classes=2, **options)


@functools.cache
def make() -> Bench:
    return Bench(
        build=build,
        params={
            "leaks": ridge(BLOCKS),
            "shuffled": ridge(np.random.default_rng(1).permutation(BLOCKS)),
            "constant": np.zeros((SIZE, 2), np.float32),
        },
        inputs={"features": features(), "labels": BLOCKS},
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=jnp.zeros((NODES, NODES)),
        settings={"graph/rl_graph_mi": {"edges": int(graph().sum()) // 2, "directions": 50, "smoothness": 0.0}},
    )
