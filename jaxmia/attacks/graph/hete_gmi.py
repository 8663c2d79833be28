"""HeteGMI: descend on one adjacency for each meta-path, until the labels come out.

Liu, Zhou, Zhang, Liu, Si, Li, "Model Inversion Attacks on Homogeneous and Heterogeneous Graph
Neural Networks", SecureComm 2023 (https://arxiv.org/abs/2310.09800). In a graph of authors, papers
and venues two authors may be joined by a common paper, the meta-path APA, or by papers at a common
venue, APVPA. A heterogeneous network reads the adjacency of every such path among the nodes that it
classifies, and the attack minimizes over all of them

    mean over nodes of CE(f({A_p}, X)_i, y_i)
    + sum over paths p of lambda1 * O_1(A_p) + lambda2 * O_2(A_p),

with O_1 and O_2 the homophily of first and second order of `priors.homophily`. Edges of a path are
decoded from the hidden layer that the target computes along it, at the matrices found.

This is a reconstruction, as `homo_gmi` is: the forms of the terms, their weights, the optimizer
(Adam), its rate and the steps are ours. What hidden layers a target has for each path is for the
caller to say (`layers`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Prior, Scalar
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.priors.homophily import homophily
from jaxmia.recipes import descend
from jaxmia.recipes.decoded import DECODERS, decoded
from jaxmia.recipes.labeled_nodes import entropy_of_known, labeled_nodes

__all__ = ["CARD", "Recovered", "hete_gmi"]

CARD = Card(
    title="HeteGMI",
    paper="Liu, Zhou, Zhang, Liu, Si, Li. Model Inversion Attacks on Homogeneous and Heterogeneous GNNs. SecureComm 2023",
    url="https://arxiv.org/abs/2310.09800",
    year=2023,
    modality="graph",
    access=Access.WEIGHTS,
    recovers="which nodes each meta-path joins in the graph that a heterogeneous network was trained on",
    knows="the features and the labels of the nodes, and the names of the meta-paths",
    observes="graph",
)


class Recovered(NamedTuple):
    """What is concluded about one graph; the matrices are symmetric with a zero diagonal.

    Attributes:
      scores: in [0, 1], how likely some path joins each pair: the largest of `by_path`.
      by_path: in [0, 1], how likely each path joins each pair, decoded.
      relaxed: in [0, 1], the adjacencies that the descent found, by path.
    """

    scores: Float[Array, "n n"]
    by_path: dict[str, Float[Array, "n n"]]
    relaxed: dict[str, Float[Array, "n n"]]


def hete_gmi(
    oracle: Oracle,
    features: Float[Any, "n d"],
    labels: Int[Any, " n"],
    paths: tuple[str, ...],
    *,
    steps: int = 100,
    rate: Scalar = 0.01,
    lambda1: Scalar = 1e-2,
    lambda2: Scalar = 1e-2,
    decoder: str = "cosine",
    layers: tuple[str, ...] | None = None,
) -> Attack:
    """The attack; a case is an index that nothing depends on, a candidate `{path: adjacency}`, the output a `Recovered`.

    Args:
      oracle: white-box access to a model of `{path: [n, n]}` that answers with all nodes' logits
        `[n, classes]`.
      features: X, of the nodes that are classified.
      labels: Y, of these; negative where the adversary does not know it.
      paths: names of the meta-paths that the target reads.
      steps: of descent.
      rate: Adam's learning rate, in units of an edge.
      lambda1: weight of the homophily of first order, of every path.
      lambda2: weight of the homophily of second order, of every path.
      decoder: "sigmoid" or "cosine".
      layers: name of the target's hidden features to decode, for each path; None takes those called
        as the paths.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for an option out of range, no path or one twice, shapes that do not agree, no
        known label, or a target without these layers.
    """
    target: Weights = lower(oracle, CARD.access, "graph/hete_gmi")
    layers = tuple(paths) if layers is None else layers
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")
    if decoder not in DECODERS:
        raise ValueError(f"decoder: {decoder!r}; legal is one of {', '.join(DECODERS)}")
    if not paths or len(set(paths)) != len(paths):
        raise ValueError(f"paths: {paths}; legal is one name or more, each once")
    if len(layers) != len(paths):
        raise ValueError(f"layers: {layers}; legal is one name for each of the paths {', '.join(paths)}")
    nodes = jnp.shape(features)[0]
    blank = dict.fromkeys(paths, jnp.zeros((nodes, nodes)))
    answer = jax.eval_shape(lambda: target.apply(target.params, blank))
    known, wanted = labeled_nodes(labels, nodes, answer.logits.shape)
    for layer in layers:
        shown_feature(answer.features, layer, "layers")
    prior = _each(paths, homophily(nodes, features, first=lambda1, second=lambda2))

    def identity(logits: Float[Array, "n classes"], case: Any) -> Float[Array, ""]:
        del case
        return entropy_of_known(logits, known, wanted)

    process = descend(target, identity, prior, optax.adam(rate), steps=steps, keep="last")

    def read(state: Any) -> Recovered:
        relaxed = process.read(state)
        hidden = target.apply(target.params, relaxed).features
        by_path = {path: decoded(hidden[layer], decoder) for path, layer in zip(paths, layers)}
        return Recovered(jnp.max(jnp.stack(list(by_path.values())), 0), by_path, relaxed)

    return Attack(lambda fitted: process._replace(read=read), observes=CARD.observes)


def _each(paths: tuple[str, ...], prior: Prior) -> Prior:
    """The prior of every path, with the sum of the penalties."""

    def init(key: Any) -> dict[str, Array]:
        return {path: prior.init(k) for path, k in zip(paths, jax.random.split(key, len(paths)))}

    def by_path(of: Any) -> Any:
        return lambda latents: {path: of(latent) for path, latent in latents.items()}

    def penalty(latents: dict[str, Array], adjacencies: dict[str, Array]) -> Float[Array, ""]:
        return sum((prior.penalty(latents[path], adjacencies[path]) for path in paths), jnp.zeros(()))

    return Prior(init, by_path(prior.decode), penalty, by_path(prior.project))
