"""HomoGMI: descend on the adjacency until labels come out and like nodes share edges and neighbors.

Liu, Zhou, Zhang, Liu, Si, Li, "Model Inversion Attacks on Homogeneous and Heterogeneous Graph
Neural Networks", SecureComm 2023 (https://arxiv.org/abs/2310.09800). It minimizes over adjacencies

    mean over nodes of CE(f(A, X)_i, y_i) + lambda1 * O_1(A) + lambda2 * O_2(A),

with O_1 and O_2 the homophily of first and second order of `priors.homophily`, and decodes edges as
GraphMI does, from the target's hidden layer at the A that it found.

This is a reconstruction. The abstract says that proximities of first and second order are taken
into account; there is no public code, and the paper's equations were not read. The forms of O_1 and
O_2, their weights, the optimizer (Adam), its rate and the steps are ours, so no number of the paper
can be expected. Both terms are of the features alone: what they add must be set beside the cosine
of the features added to the scores of GraphMI.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Scalar
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.priors.homophily import homophily
from jaxmia.recipes import descend
from jaxmia.recipes.decoded import DECODERS, decoded
from jaxmia.recipes.labeled_nodes import entropy_of_known, labeled_nodes

__all__ = ["CARD", "Recovered", "homo_gmi"]

CARD = Card(
    title="HomoGMI",
    paper="Liu, Zhou, Zhang, Liu, Si, Li. Model Inversion Attacks on Homogeneous and Heterogeneous GNNs. SecureComm 2023",
    url="https://arxiv.org/abs/2310.09800",
    year=2023,
    modality="graph",
    access=Access.WEIGHTS,
    recovers="the edges of the graph that a graph neural network was trained on",
    knows="the features and the labels of the nodes",
    observes="graph",
)


class Recovered(NamedTuple):
    """What is concluded about one graph; the matrices are symmetric with a zero diagonal.

    Attributes:
      scores: in [0, 1], how likely each pair is an edge, decoded.
      relaxed: in [0, 1], the adjacency that the descent found.
      embedding: the hidden layer at `relaxed`, which `scores` compares.
    """

    scores: Float[Array, "n n"]
    relaxed: Float[Array, "n n"]
    embedding: Float[Array, "n h"]


def homo_gmi(
    oracle: Oracle,
    features: Float[Any, "n d"],
    labels: Int[Any, " n"],
    *,
    steps: int = 100,
    rate: Scalar = 0.01,
    lambda1: Scalar = 1e-2,
    lambda2: Scalar = 1e-2,
    budget: Scalar | None = None,
    decoder: str = "cosine",
    layer: str = "embedding",
) -> Attack:
    """The attack; a case is an index that nothing depends on, a candidate an adjacency, the output a `Recovered`.

    Args:
      oracle: white-box access to a model of adjacencies `[n, n]` that answers with all nodes'
        logits `[n, classes]`.
      features: X, of the nodes.
      labels: Y; negative where the adversary does not know it.
      steps: of descent.
      rate: Adam's learning rate, in units of an edge.
      lambda1: weight of the homophily of first order.
      lambda2: weight of the homophily of second order.
      budget: most edges of the relaxed adjacency; None has no bound.
      decoder: "sigmoid" or "cosine".
      layer: name of the target's hidden features to decode.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for an option out of range, shapes that do not agree, no known label, or a target
        without that layer.
    """
    target: Weights = lower(oracle, CARD.access, "graph/homo_gmi")
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")
    if decoder not in DECODERS:
        raise ValueError(f"decoder: {decoder!r}; legal is one of {', '.join(DECODERS)}")
    nodes = jnp.shape(features)[0]
    prior = homophily(nodes, features, first=lambda1, second=lambda2, budget=budget)
    answer = jax.eval_shape(lambda: target.apply(target.params, jnp.zeros((nodes, nodes))))
    known, wanted = labeled_nodes(labels, nodes, answer.logits.shape)
    shown_feature(answer.features, layer, "layer")

    def identity(logits: Float[Array, "n classes"], case: Any) -> Float[Array, ""]:
        del case
        return entropy_of_known(logits, known, wanted)

    process = descend(target, identity, prior, optax.adam(rate), steps=steps, keep="last")

    def read(state: Any) -> Recovered:
        relaxed = process.read(state)
        embedding = target.apply(target.params, relaxed).features[layer]
        return Recovered(decoded(embedding, decoder), relaxed, embedding)

    return Attack(lambda fitted: process._replace(read=read), observes=CARD.observes)
