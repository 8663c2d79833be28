"""Stealing links: the one-layer GCN of the graph bench, of which the posteriors of all nodes were seen. Outputs are scores.

The target holds the graph that it serves. That of the control "shuffled" is the same graph under other names of its
nodes, each block half of the one and half of the other, so that its posteriors tell nothing of the true edges. Half of
the true edges are known, and as many other pairs; the pairs that are not known are judged. The public graph is another
draw, served with the same weights. Cases are restarts.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Access, Outputs, Target
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.graph import link_interval, link_scores
from jaxmia.models.graph import normalize_adjacency
from jaxmia.testing.benches import Bench, graph

RESTARTS = 3
APART = np.argsort(np.arange(graph.NODES) % 2, kind="stable")  # the even nodes are a block, and the odd ones
FEATURES = np.eye(graph.NODES, dtype=np.float32)


def build(params: Any, **options: Any) -> Target:
    def apply(params: Any, features: Any) -> Outputs:
        return Outputs(normalize_adjacency(params["adjacency"]) @ features @ params["weights"], {})

    return Target(apply, jax.tree.map(jnp.asarray, params), classes=2, **options)


def posteriors(target: Target) -> np.ndarray:
    return np.asarray(target.view(Access.SCORES).answer(jax.random.key(0), jnp.asarray(FEATURES)))


def cases(target: Target, card: Card) -> dict[str, np.ndarray]:
    del card
    return {"scores": np.repeat(posteriors(target)[None], RESTARTS, 0)}


@functools.cache
def known() -> dict[str, np.ndarray]:
    pairs = np.stack(np.triu_indices(graph.NODES, 1), 1).astype(np.int32)
    linked = graph.graph()[pairs[:, 0], pairs[:, 1]] > 0
    rng = np.random.default_rng(2)
    half = int(linked.sum()) // 2
    rows = np.concatenate([rng.choice(np.flatnonzero(linked == kind), half, replace=False) for kind in (True, False)])
    return {"pairs": pairs[rows], "linked": linked[rows]}


@functools.cache
def shadow() -> dict[str, np.ndarray]:
    chance = np.where(graph.BLOCKS[:, None] == graph.BLOCKS, 0.9, 0.05)
    edges = np.argwhere(np.triu(np.random.default_rng(3).random(chance.shape) < chance, 1))
    adjacency = np.zeros_like(graph.graph())
    adjacency[tuple(edges.T)] = 1
    params = {"weights": graph.ridge(graph.BLOCKS), "adjacency": adjacency + adjacency.T}
    return {
        "features": FEATURES,
        "labels": graph.BLOCKS,
        "edges": edges.astype(np.int32),
        "scores": posteriors(build(params)),
    }


def judge(output: Any) -> Estimate:
    found = np.asarray(getattr(output, "scores", output), np.float64).mean(0)
    unknown = np.triu(np.ones_like(found), 1)
    unknown[tuple(known()["pairs"].T)] = 0
    return link_interval(link_scores(found, graph.graph(), np.argwhere(unknown)))


@functools.cache
def make() -> Bench:
    weights = graph.ridge(graph.BLOCKS)
    names = np.argsort(APART)
    leaks = {"weights": weights, "adjacency": graph.graph()}
    renamed = {"weights": weights[names], "adjacency": graph.graph()[np.ix_(names, names)]}
    return Bench(
        build=build,
        params={"leaks": leaks, "shuffled": renamed, "constant": {**leaks, "weights": np.zeros_like(weights)}},
        inputs={
            "features": FEATURES,
            "labels": np.where(np.arange(graph.NODES) % (graph.NODES // 2) == 0, graph.BLOCKS, -1),
            "known": known(),
            "shadow": shadow(),
        },
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=jnp.asarray(FEATURES),
        settings={"graph/stealing_links": {"attack": 3, "epochs": 300, "rate": 0.01}},
    )
