"""DeepWalking backwards: NetMF matrices of one graph of two blocks, its nodes in three orders.

An output is `scores` `[n, nodes, nodes]`; the success is over the pairs of all three. The control
publishes matrices of the same graph in other orders, which are those of other graphs.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmia import Outputs, Target
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate
from jaxmia.models.proximity import netmf
from jaxmia.testing.benches import Bench, mnemon

NODES, GRAPHS, RANK = 24, 3, 16


@functools.cache
def graphs(seed: int) -> np.ndarray:
    """`[g, n, n]`, with as many edges each."""
    rng, blocks = np.random.default_rng(0), np.arange(NODES) % 2
    upper = np.triu(rng.random((NODES, NODES)) < np.where(blocks[:, None] == blocks, 0.4, 0.05), 1)
    whole, draw = (upper | upper.T).astype(np.float32), np.random.default_rng(seed)
    orders = [draw.permutation(NODES) for _ in range(GRAPHS)]
    return np.stack([whole[order][:, order] for order in orders])


def published(seed: int) -> np.ndarray:
    return np.stack([np.asarray(netmf(jnp.asarray(each), rank=RANK)) for each in graphs(seed)])


def build(params: Any, **options: Any) -> Target:
    """No network: what it would be asked for is the first matrix, times the candidate."""
    return Target(lambda params, x: Outputs(params[0] @ x, {}), jnp.asarray(params), classes=NODES, **options)


def cases(target: Target, card: Card) -> Any:
    del card
    return {"matrix": np.asarray(target.params)}


def judge(output: Any) -> Estimate:
    return mnemon.pooled(getattr(output, "scores", output), graphs(1))


@functools.cache
def make() -> Bench:
    leaks = published(1)
    return Bench(
        build=build,
        params={"leaks": leaks, "shuffled": published(2), "constant": np.zeros_like(leaks)},
        inputs={"volume": float(graphs(1)[0].sum())},
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=jnp.zeros(NODES),
        settings={"graph/deepwalk_backwards": {"steps": 3}},  # later ones multiply rounding
    )
