"""MC-GRA: a one-layer GCN with known weights, whose hidden layer was seen.

Candidates are in `scores` `[n, nodes, nodes]`. Features are one-hot, so the hidden layer is A' W,
with random W `[nodes, hidden]` that have a row for each node: which rows were summed for a node
tells its neighbors. Logits are a linear reading of it, fitted to the blocks. The graph is that of
two blocks of `benches.graph`. The control's W has the rows of other nodes, so that what was seen
tells other edges; what is judged is therefore the adjacency that was found, for the cosines of the
seen layer tell edges whatever the weights.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Outputs, Target
from jaxmia.core import Card
from jaxmia.metrics.estimate import Estimate
from jaxmia.metrics.graph import link_interval, link_scores
from jaxmia.models.graph import normalize_adjacency
from jaxmia.testing.benches import Bench
from jaxmia.testing.benches.graph import BLOCKS, NODES, graph

HIDDEN, RESTARTS = 16, 2


def weights(shuffled: bool = False) -> dict[str, np.ndarray]:
    """W, and the reading V of the hidden layer in closed form: least squares on the blocks as -1 and 1."""
    rows = np.random.default_rng(0).normal(size=(NODES, HIDDEN))
    hidden = np.asarray(normalize_adjacency(jnp.asarray(graph())), np.float64) @ rows
    signs = np.where(BLOCKS[:, None] == np.arange(2), 1.0, -1.0)
    reading = np.linalg.solve(hidden.T @ hidden + 0.01 * np.eye(HIDDEN), hidden.T @ signs)
    if shuffled:
        rows = np.random.default_rng(1).permutation(rows)
    return {"rows": rows.astype(np.float32), "reading": reading.astype(np.float32)}


def build(params: Any, **options: Any) -> Target:
    def apply(params: Any, adjacency: Any) -> Outputs:
        hidden = normalize_adjacency(adjacency) @ params["rows"]
        return Outputs(hidden @ params["reading"], {"embedding": hidden})

    return Target(apply, jax.tree.map(jnp.asarray, params), classes=2, **options)


def cases(target: Target, card: Card) -> Any:
    """What the leaking target computed for the nodes of the true graph, for each restart."""
    del card
    assert target.apply is not None
    seen = target.apply(target.params, jnp.asarray(graph()))
    once = {"hidden": seen.features["embedding"], "scores": jax.nn.softmax(seen.logits)}
    return jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * RESTARTS), once)


def judge(output: Any) -> Estimate:
    return link_interval(link_scores(np.asarray(output.scores, np.float64).mean(0), graph()))


@functools.cache
def make() -> Bench:
    return Bench(
        build=build,
        params={
            "leaks": weights(),
            "shuffled": weights(shuffled=True),
            "constant": jax.tree.map(np.zeros_like, weights()),
        },
        inputs={"features": np.eye(NODES, dtype=np.float32), "labels": BLOCKS},
        cases=cases,
        judge=judge,
        chance=0.5,
        candidate=jnp.zeros((NODES, NODES)),
        settings={"graph/mc_gra": {"score": "relaxed", "rate": 0.03}},
    )
