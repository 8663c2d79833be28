"""GraphMI: descend on the adjacency until the target, given the features, predicts the labels; then decode edges.

Zhang, Liu, Huang, Wang, Lu, Liu, Chen, "GraphMI: Extracting Private Graph Data from Graph Neural Networks", IJCAI 2021
(https://arxiv.org/abs/2106.02820), Algorithm 1. Three modules:

1. Projected gradient: from a = 0, descend on

       mean over nodes of CE(f(A, X)_i, y_i) + smoothness * tr(X' L X) + sparsity * |a|

   and clip to [0, 1] after each step; L is the normalized Laplacian, a the node pairs (`priors.edges`).
2. Graph auto-encoder: H, the target's hidden layer at that A, scores pair (i, j) by sigmoid(h_i . h_j).
3. Random sampling: of `trials` graphs with as many edges as the adversary believes there are, drawn in proportion
   to the scores, the one of least attack loss.

What differs. The numbers are those of the released code (https://github.com/zaixizhang/GraphMI), whose `--lr` is not
used. At a = 0 the smoothness of the paper is 0/0, and with the code's offset of 1e-3 in the degrees its slope keeps
every pair at zero for good; so it starts after `smooth_after` = 50 of 100 steps, as in the code. Released behavior
by keyword: `norm=2`, a Euclidean norm for the paper's sum; `decoder="cosine"`, max(0, cos(h_i, h_j)) for the sigmoid,
which in float32 is 1 from 17 on and so ties the pairs it should rank; and `budget`, which the paper does not have: it
leaks what the attack should find. The code descends and measures on a tenth of the nodes (give the others a negative
label) and sets the budget to the number of edges that the true density of the graph gives these nodes, though the pairs of
all nodes are relaxed: on Cora, 5,278 edges among 2,708 nodes, of which 270 are attacked, 5,278 * (270 / 2,708)^2 = 52. All
5,278 would never bind. The code never calls module 3, hence `edges=None`. It decodes at the A before the last step, here it
is the one after it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.priors import edges as edge_prior

__all__ = ["CARD", "Recovered", "graph_mi"]

CARD = Card(
    title="GraphMI",
    paper="Zhang, Liu, Huang, Wang, Lu, Liu, Chen. GraphMI: Extracting Private Graph Data from GNNs. IJCAI 2021",
    url="https://arxiv.org/abs/2106.02820",
    year=2021,
    modality="graph",
    access=Access.WEIGHTS,
    recovers="the edges of the graph that a graph neural network was trained on",
    knows="the features and the labels of the nodes",
    observes="graph",
)

DECODERS = ("sigmoid", "cosine")


class Recovered(NamedTuple):
    """What is concluded about one graph; the matrices are symmetric with a zero diagonal.

    Attributes:
      scores: in [0, 1], how likely each pair is an edge, after the auto-encoder.
      relaxed: in [0, 1], the adjacency that the projected gradient found.
      embedding: the hidden layer at `relaxed`, which `scores` compares.
      sampled: 0 or 1, the sampled graph; None where no number of edges was given.
    """

    scores: Float[Array, "n n"]
    relaxed: Float[Array, "n n"]
    embedding: Float[Array, "n h"]
    sampled: Float[Array, "n n"] | None


class State(NamedTuple):
    latent: Float[Array, "n n"]
    steps: Int[Array, ""]  # taken so far: the smoothness starts late
    noise: UInt32[Array, ""]  # seeds the sampling, since reading out gets no key


def graph_mi(
    oracle: Oracle,
    features: Float[Any, "n d"],
    labels: Int[Any, " n"],
    *,
    steps: int = 100,
    rate: Scalar = 0.1,
    smoothness: Scalar = 1e-4,
    sparsity: Scalar = 1e-3,
    smooth_after: int = 50,
    norm: int = 1,
    budget: Scalar | None = None,
    decoder: str = "sigmoid",
    layer: str = "embedding",
    edges: int | None = None,
    trials: int = 20,
) -> Attack:
    """The attack; a case is an index that nothing depends on, a candidate an adjacency, the output a `Recovered`.

    Args:
      oracle: white-box access to a model of adjacencies `[n, n]` that answers with all nodes' logits `[n, classes]`.
      features: X, of the nodes.
      labels: Y; negative where the adversary does not know it.
      steps: T, of descent.
      rate: eta, the step size. The cross entropy is a mean over the known labels, so its slope is as their inverse.
      smoothness: alpha.
      sparsity: beta.
      smooth_after: steps without the smoothness; 0 has it from the start, where it stops any descent.
      norm: of the sparsity, 1 or 2.
      budget: most edges of the relaxed adjacency; None has no bound.
      decoder: "sigmoid" or "cosine".
      layer: name of the target's hidden features to decode.
      edges: believed number of edges, to sample a graph; None does not sample.
      trials: K, graphs drawn.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for an option out of range, shapes that do not agree, no known label, or a target without that layer.
    """
    target: Weights = lower(oracle, Access.WEIGHTS, "graph/graph_mi")
    nodes, known, wanted = _check(target, features, labels, layer)
    pairs = nodes * (nodes - 1) // 2
    for name, value, least, most in (
        ("steps", steps, 1, None),
        ("smooth_after", smooth_after, 0, None),
        ("trials", trials, 1, None),
        ("edges", 1 if edges is None else edges, 1, pairs),
    ):
        if value < least or (most is not None and value > most):
            raise ValueError(f"{name}: {value}; legal is {least} or more{'' if most is None else f', up to {most}'}")
    if decoder not in DECODERS:
        raise ValueError(f"decoder: {decoder!r}; legal is one of {', '.join(DECODERS)}")
    sparse = edge_prior(nodes, sparsity=sparsity, norm=norm, budget=budget)
    smooth = edge_prior(nodes, features=features, smoothness=smoothness)

    def identity(key: Any, adjacency: Float[Array, "n n"]) -> Float[Array, ""]:
        return jnp.mean(jax.vmap(cross_entropy)(target.answer(key, adjacency)[known], wanted))

    def attack_loss(key: Any, latent: Float[Array, "n n"], taken: Int[Array, ""]) -> tuple[Array, Array]:
        adjacency = sparse.decode(latent)
        told = identity(key, adjacency)
        rough = jnp.where(taken >= smooth_after, smooth.penalty(latent, adjacency), 0.0)
        return told + rough + sparse.penalty(latent, adjacency), told

    def init(key: Any, case: Any) -> State:
        del case
        start, draw = jax.random.split(key)
        return State(sparse.init(start), jnp.zeros((), jnp.int32), jax.random.bits(draw, (), jnp.uint32))

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        del case
        loss_and_slope = jax.value_and_grad(attack_loss, argnums=1, has_aux=True)
        (loss, told), slope = loss_and_slope(key, state.latent, state.steps)
        latent = sparse.project(state.latent - rate * slope)
        found = jnp.sum(jnp.triu(latent, 1))
        return State(latent, state.steps + 1, state.noise), info(loss, identity=told, edges=found)

    def sample(state: State, scores: Float[Array, "n n"], count: int) -> Float[Array, "n n"]:
        above = jnp.triu(jnp.ones_like(scores, bool), 1)
        weights = jnp.where(above, jnp.log(scores), -jnp.inf).ravel()  # scores of 0 come last

        def draw(key: Any) -> tuple[Array, Array]:
            pick, ask = jax.random.split(key)
            # The largest of log-weights with Gumbel noise are a draw without replacement in proportion to the weights.
            _, chosen = jax.lax.top_k(weights + jax.random.gumbel(pick, weights.shape), count)
            latent = jnp.zeros_like(weights).at[chosen].set(1.0).reshape(scores.shape)
            return attack_loss(ask, latent, jnp.asarray(steps, jnp.int32))[0], chosen

        losses, chosen = jax.lax.map(draw, jax.random.split(jax.random.key(state.noise), trials))
        best = chosen[jnp.argmin(losses)]
        return sparse.decode(jnp.zeros_like(weights).at[best].set(1.0).reshape(scores.shape))

    def read(state: State) -> Recovered:
        relaxed = sparse.decode(state.latent)
        embedding = target.apply(target.params, relaxed).features[layer]
        scores = _decode(embedding, decoder)
        return Recovered(scores, relaxed, embedding, None if edges is None else sample(state, scores, edges))

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes)


def _decode(embedding: Float[Array, "n h"], decoder: str) -> Float[Array, "n n"]:
    """Edge scores in [0, 1] of all pairs, zero on the diagonal."""
    if decoder == "cosine":
        embedding = embedding / jnp.maximum(jnp.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
        scores = jnp.clip(embedding @ embedding.T, 0.0, 1.0)
    else:
        scores = jax.nn.sigmoid(embedding @ embedding.T)
    upper = jnp.triu(scores, 1)  # a product of floats is symmetric but for rounding
    return upper + upper.T


def _check(target: Weights, features: Any, labels: Any, layer: str) -> tuple[int, Array, Array]:
    """Number of nodes, the nodes of known label, their labels."""
    nodes, labels = jnp.shape(features)[0], np.asarray(labels)
    if labels.shape != (nodes,):
        raise ValueError(f"labels: shape {labels.shape}; legal is ({nodes},), one for each row of the features")
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise ValueError("labels: all are negative, which says unknown; the attack needs one label or more")
    empty = jax.ShapeDtypeStruct((nodes, nodes), jnp.float32)
    answer = jax.eval_shape(lambda adjacency: target.apply(target.params, adjacency), empty)
    if answer.logits.ndim != 2 or answer.logits.shape[0] != nodes:
        raise ValueError(f"oracle: answers {answer.logits.shape}; legal is [{nodes}, classes], logits of every node")
    if labels.max() >= answer.logits.shape[1]:
        raise ValueError(f"labels: {labels.max()}; legal is below {answer.logits.shape[1]}, the target's classes")
    shown_feature(answer.features, layer, "layer")
    return nodes, jnp.asarray(known), jnp.asarray(labels[known])
