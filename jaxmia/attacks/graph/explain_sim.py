"""ExplainSim: two nodes are linked if the explanations of their predictions are alike.

Olatunji, Rathee, Funke, Khosla, "Private Graph Extraction via Feature Explanations", PETS 2023
(https://arxiv.org/abs/2206.14724). Of explanations e_i in R^d, which say how much the class of node i rests on each
feature, the score of a pair is their cosine. Nothing is asked; the released code
(https://github.com/iyempissy/graph-stealing-attacks-with-explanation) does the same.

An explanation by a feature mask (`models.graph_explanations.mask_gradient`) counts the features of the neighborhood, so
put cos((A' X)_i, (A' X)_j) beside the result, A' the normalized adjacency: it needs no network and tells how much of it is
the network's. A row of zeros has cosine 0 with all.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card
from jaxmia.oracle import Access, Oracle, lower
from jaxmia.recipes import score

__all__ = ["CARD", "explain_sim"]

CARD = Card(
    title="ExplainSim",
    paper="Olatunji, Rathee, Funke, Khosla. Private Graph Extraction via Feature Explanations. PETS 2023",
    url="https://arxiv.org/abs/2206.14724",
    year=2023,
    modality="graph",
    access=Access.NONE,
    recovers="the edges of a graph from explanations of its nodes' predictions",
    knows="nothing",
    observes="explanation",
)


def explain_sim(oracle: Oracle) -> Attack:
    """The attack; a case is {"explanation": float [n, d]}, the output scores `[n, n]` in [-1, 1].

    Args:
      oracle: no access is needed.

    Raises:
      ThreatModelError: for what is no oracle.
    """
    lower(oracle, CARD.access, "graph/explain_sim")

    def similarity(key: Any, case: Any) -> Float[Array, "n n"]:
        del key
        explanation = case["explanation"]
        # By the largest entry first: squares of small numbers vanish.
        scaled = explanation / jnp.maximum(jnp.max(jnp.abs(explanation), 1, keepdims=True), 1e-37)
        unit = scaled / jnp.maximum(jnp.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
        upper = jnp.triu(unit @ unit.T, 1)  # a product of floats is symmetric but for rounding
        return upper + upper.T

    return Attack(lambda fitted: score(similarity), observes=CARD.observes)
