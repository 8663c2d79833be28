"""LinkTeller: a served graph convolution whose graph has nothing to do with features or labels.

Edges, binary features and the weights W of the scores softmax(A' X W) are drawn each for themselves. The first control
serves the same graph with its nodes in another order, the second answers the same whatever it is asked. There is one row
of influences for each node; made symmetric, they rank the pairs, and a blind guess has an AUC of 0.5. Other benches take
this target from here.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmia import Access, Outputs, Target
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.graph import link_interval, link_scores
from jaxmia.models.graph import normalize_adjacency
from jaxmia.testing.benches import Bench

NODES, WORDS, CLASSES = 36, 40, 3


@functools.cache
def graph() -> np.ndarray:
    upper = np.triu(np.random.default_rng(0).random((NODES, NODES)) < 0.08, 1)
    return (upper | upper.T).astype(np.float32)


@functools.cache
def features() -> np.ndarray:
    """`[nodes, words]`, 0 or 1."""
    return (np.random.default_rng(1).random((NODES, WORDS)) < 0.15).astype(np.float32)


def params() -> dict[str, dict[str, np.ndarray]]:
    """Of the targets, by name."""
    weights = np.random.default_rng(2).normal(size=(WORDS, CLASSES)).astype(np.float32)
    order = np.random.default_rng(3).permutation(NODES)
    return {
        "leaks": {"adjacency": graph(), "weights": weights},
        "shuffled": {"adjacency": graph()[order][:, order], "weights": weights},
        "constant": {"adjacency": graph(), "weights": np.zeros_like(weights)},
    }


def build(params: Any, **options: Any) -> Target:
    """A target that grants scores and no more: its parameters hold the graph."""

    def apply(params: Any, x: Any) -> Outputs:
        return Outputs(normalize_adjacency(params["adjacency"]) @ (x @ params["weights"]), {})

    return Target(apply, params, classes=CLASSES, **{"granted": Access.SCORES, **options})


def cases(target: Target, card: Card) -> Any:
    del target, card
    return {"node": np.arange(NODES, dtype=np.int32)}


def judge(output: Any) -> Estimate:
    rows = np.asarray(output.scores, np.float64)
    return link_interval(link_scores(np.maximum(rows, rows.T), graph()))


@functools.cache
def make() -> Bench:
    return Bench(
        build=build,
        params=params(),
        inputs={"features": features()},
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=jnp.asarray(features()),
        # By 1e-4 a score moves by so little that a compiler's rounding is a hundredth of it.
        settings={"graph/link_teller": {"delta": 0.1}},
    )
