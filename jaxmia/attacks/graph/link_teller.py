"""LinkTeller: change one node's features a little, and see whose predictions move.

Wu, Long, Zhang, Li, "LinkTeller: Recovering Private Edges from Graph Neural Networks via Influence Analysis", IEEE
S&P 2022 (https://arxiv.org/abs/2108.06504), Algorithm 1. The graph is split vertically: the adversary has the features
X, the target has the edges A and answers for all nodes. For node v, with X' = X but row v times (1 + delta),

    I(v -> u) = |g(f(X'))_u - g(f(X))_u|_2 / delta.

A network of k graph convolutions gives 0 beyond k hops; without ReLUs it gives |(A'^k)_vu| |x_v W|, A' the normalized
adjacency. Which pairs are edges is up to the reader of the scores: those of as many pairs as edges are believed.

What differs. A case is one node and asks twice, for X and for X', so that cases are independent: v nodes ask 2 v times,
where the paper asks v + 1 times. The paper's g is the identity and its target answers logits. Here a target answers
probabilities, of which g takes the logarithm less its mean over the classes: logits less theirs. `transform="none"` is
for a target that serves logits. The released code (https://github.com/AI-secure/LinkTeller) takes I(v -> u) in the order
of its sample; make the rows symmetric by the larger of both.

A target that rounds what it serves moves by whole steps alone: there take a delta of 1 or 10, and half a step as `floor`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Scalar
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.ranges import above_zero
from jaxmia.recipes import score, sliced

__all__ = ["CARD", "Influence", "link_teller"]

CARD = Card(
    title="LinkTeller",
    paper="Wu, Long, Zhang, Li. LinkTeller: Recovering Private Edges from GNNs via Influence Analysis. IEEE S&P 2022",
    url="https://arxiv.org/abs/2108.06504",
    year=2022,
    modality="graph",
    access=Access.SCORES,
    recovers="the edges of the graph that a served graph neural network reads",
    knows="the features of the nodes",
    observes="node",
)

TRANSFORMS = ("log", "none")


class Influence(NamedTuple):
    """What is concluded about one node.

    Attributes:
      scores: I(v -> u) of the node v on every u, 0 or more, higher is likelier an edge; 0 for u = v.
      queries: target queries spent, each a forward pass of the whole graph.
    """

    scores: Float[Array, " n"]
    queries: Int[Array, ""]


def link_teller(
    oracle: Oracle,
    features: Float[Any, "n d"],
    *,
    delta: Scalar = 1e-4,
    transform: str = "log",
    floor: Scalar = 1e-30,
) -> Attack:
    """The attack; a case is {"node": index v}, the output an `Influence`.

    A node without features cannot be changed: its row is 0.

    Args:
      oracle: score access to a model of node features `[n, d]` that answers for all nodes, `[n, classes]`.
      features: X, of all nodes.
      delta: by which share the features of the node grow.
      transform: "log", of probabilities, less its mean over the classes; "none", for a target that serves logits.
      floor: least probability of which the logarithm is taken.

    Raises:
      ThreatModelError: without score access.
      ValueError: for an option out of range, a target that does not answer for every node; before a run, for a node that
        does not exist.
    """
    view: Scores = lower(oracle, CARD.access, "graph/link_teller")
    above_zero(delta=delta, floor=floor)
    if transform not in TRANSFORMS:
        raise ValueError(f"transform: {transform!r}; legal is one of {', '.join(TRANSFORMS)}")
    x = jnp.asarray(features)
    nodes = len(x)
    shape = getattr(jax.eval_shape(view.answer, jax.random.key(0), x), "shape", ())
    if len(shape) != 2 or shape[0] != nodes:
        raise ValueError(f"oracle: answers {shape}; legal is [{nodes}, classes], scores of every node")

    def seen(scores: Float[Array, "n classes"]) -> Float[Array, "n classes"]:
        if transform == "none":
            return scores
        logs = jnp.log(jnp.maximum(scores, floor))
        return logs - jnp.mean(logs, 1, keepdims=True)

    def influence(key: Any, case: Any) -> Influence:
        node = case["node"]
        # Both in one batch: computed alike, what does not move is equal to the last bit. It has to be said: a compiler
        # may take a difference with digits that the answers do not have.
        both = jnp.stack([x, x.at[node].multiply(1.0 + delta)])
        before, after = jax.vmap(seen)(sliced(view.answer, jax.random.split(key), both))
        moved = jnp.linalg.norm(jnp.where(after == before, 0.0, after - before), axis=1) / delta
        return Influence(moved.at[node].set(0.0), jnp.asarray(2, jnp.int32))

    def check(cases: Any, classes: int | None) -> None:
        del classes
        node = np.asarray(cases["node"]) if isinstance(cases, dict) and "node" in cases else None
        if node is None or node.ndim != 1 or not np.issubdtype(node.dtype, np.integer):
            raise ValueError('cases: legal is {"node": integers [cases]}')
        if len(wrong := node[(node < 0) | (node >= nodes)]):
            raise ValueError(f"cases: node {wrong[0]}; legal is 0 to {nodes - 1}")

    return Attack(lambda fitted: score(influence), observes=CARD.observes, check=check)
