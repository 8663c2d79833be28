"""GSE, GSEF: learn the graph on which explanations can be filled in, and labels be told.

Olatunji, Rathee, Funke, Khosla, "Private Graph Extraction via Feature Explanations", PETS 2023
(https://arxiv.org/abs/2206.14724). A free matrix W, `[n, n]`, stands for a weighted graph A(W) (`learned_edges`). It
starts at the nearest neighbors by cosine, and is trained by Adam with two networks that read it:

    weight * (error of an autoencoder that fills in masked entries of M, on A)
    + (cross entropy of a classifier of the known labels, on A), which begins after `classify_after` steps.

Both networks are graph convolutions of two layers. What M is:

- "gse": the explanations, for an adversary without features;
- "gsef": two graphs with an autoencoder each, of the features and of the explanations, with the same entries masked;
  A is their sum, and the classifier reads the features;
- "slaps": the features alone (Fatemi, El Asri, Kazemi, NeurIPS 2021): what is known without an explanation.

The scores are the entries of A at the end.

What differs. The numbers are those of the released code
(https://github.com/iyempissy/graph-stealing-attacks-with-explanation), but that the width of its classifier is 16 and
its README says 32. It takes the error by the name of the data set: on Cora and Citeseer all M are taken for binary, so
explanations as well, where a cross entropy has no least value once they exceed 1. Here that is `loss="bce"`; the default
looks at the features, and takes explanations for numbers. Its classifier normalizes A by degrees once more; here too, by
which the two graphs of "gsef" weigh alike. It begins one step earlier, and reads A before the last step. It keeps the
validation accuracy of every step and does not use it. The variants that join features and explanations to one M are not
here.

A step costs n^2 (d + width) and some matrices of n^2: for graphs of about a thousand nodes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.models.graph_autoencoder import WeightedGCN, degree_normalized, learned_edges, nearest
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, lower
from jaxmia.ranges import fraction

__all__ = ["CARD", "explanation_gse"]

CARD = Card(
    title="GSEF",
    paper="Olatunji, Rathee, Funke, Khosla. Private Graph Extraction via Feature Explanations. PETS 2023",
    url="https://arxiv.org/abs/2206.14724",
    year=2023,
    modality="graph",
    access=Access.NONE,
    recovers="the edges of a graph from explanations of its nodes' predictions",
    knows="the features of the nodes and some labels",
    observes="explanation",
)

METHODS = {"gse": ("explanation",), "gsef": ("features", "explanation"), "slaps": ("features",)}
LOSSES = ("bce", "mse")


class State(NamedTuple):
    graphs: dict[str, Float[Array, "n n"]]  # W, by what it is learned from
    encoders: dict[str, Any]
    classifier: Any
    optimizer: Any  # of graphs and encoders
    slow: Any  # of the classifier
    steps: Int[Array, ""]


def explanation_gse(
    oracle: Oracle,
    features: Float[Any, "n d"],
    labels: Int[Any, " n"],
    *,
    method: str = "gsef",
    steps: int = 2000,
    classify_after: int = 400,
    neighbors: int = 20,
    sharpness: Scalar = 6.0,
    width: int = 512,
    classifier_width: int = 32,
    rate: Scalar = 0.01,
    classifier_rate: Scalar = 1e-3,
    weight_decay: Scalar = 5e-4,
    weight: Scalar | None = None,
    loss: str | None = None,
    masked: Scalar = 0.05,
    zeros: Scalar = 5.0,
    dropout: Scalar = 0.5,
    edge_dropout: Scalar = 0.25,
) -> Attack:
    """The attack; a case is {"explanation": float [n, d]}, the output scores `[n, n]`, above 0 off the diagonal.

    Args:
      oracle: no access is needed.
      features: X; of "gse" they count the nodes alone.
      labels: Y; negative where the adversary does not know it.
      method: "gse", "gsef" or "slaps".
      steps: of all.
      classify_after: steps before the classifier begins; a fifth of all in the papers.
      neighbors: k, of the graph that W starts at.
      sharpness: W starts at 0 for neighbors and the node itself, and this far below 0 for others.
      width: hidden units of an autoencoder.
      classifier_width: those of the classifier.
      rate: Adam's, of W and the autoencoders.
      classifier_rate: Adam's, of the classifier.
      weight_decay: of the classifier, added to its gradient.
      weight: of the errors beside the cross entropy; None is the released one, 1 of "gsef" and 0.1 of the others.
      loss: of an autoencoder: "bce", of entries in [0, 1]; "mse"; None takes the first for features that are all 0 or 1.
      masked: share of the positive entries that is masked in a step, or, beside "mse", of all entries.
      zeros: how many zeros are masked for every positive entry, beside "bce".
      dropout: share of hidden units of all networks, in [0, 1].
      edge_dropout: share of the entries of A that an autoencoder does not see, in [0, 1].

    Raises:
      ThreatModelError: for what is no oracle.
      ValueError: for an option out of range, labels of other nodes or none known; before a run, for explanations of
        other nodes.
    """
    lower(oracle, CARD.access, "graph/explanation_gse")
    x, nodes = jnp.asarray(features, jnp.float32), jnp.shape(features)[0]
    known, wanted, classes = _known(labels, nodes)
    if method not in METHODS:
        raise ValueError(f"method: {method!r}; legal is one of {', '.join(METHODS)}")
    if loss not in (None, *LOSSES):
        raise ValueError(f"loss: {loss!r}; legal is one of {', '.join(LOSSES)}, or None")
    for name, value, least, most in (
        ("steps", steps, 1, None),
        ("classify_after", classify_after, 0, None),
        ("neighbors", neighbors, 1, nodes - 1),
        ("width", width, 1, None),
        ("classifier_width", classifier_width, 1, None),
    ):
        if value < least or (most is not None and value > most):
            raise ValueError(f"{name}: {value}; legal is {least} or more{'' if most is None else f', up to {most}'}")
    fraction(masked=masked, dropout=dropout, edge_dropout=edge_dropout)
    sources = METHODS[method]
    binary = bool(np.isin(features, (0, 1)).all())
    losses = {name: loss or ("bce" if binary and name == "features" else "mse") for name in sources}
    share = (1.0 if method == "gsef" else 0.1) if weight is None else weight
    fast = optax.adam(rate)
    slow = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(classifier_rate))
    classifier = WeightedGCN(classifier_width, classes, dropout)

    def encoder(matrix: Any) -> WeightedGCN:
        return WeightedGCN(width, matrix.shape[1], dropout, edge_dropout)

    def matrices(case: Any) -> dict[str, Float[Array, "n d"]]:
        return {name: x if name == "features" else case["explanation"] for name in sources}

    def init(key: Any, case: Any) -> State:
        given, keys = matrices(case), jax.random.split(key, len(sources) + 1)
        empty = jnp.zeros((nodes, nodes))
        graphs = {
            name: jnp.where(nearest(matrix, neighbors) > 0, 0.0, -sharpness).astype(jnp.float32)
            for name, matrix in given.items()
        }
        encoders = {name: encoder(given[name]).init(k, given[name], empty) for name, k in zip(sources, keys[1:])}
        labeler = classifier.init(keys[0], given[sources[0]], empty)
        optimizer = fast.init((graphs, encoders))
        return State(graphs, encoders, labeler, optimizer, slow.init(labeler), jnp.zeros((), jnp.int32))

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        given, (draw, classify, *rebuild) = matrices(case), jax.random.split(key, len(sources) + 2)
        started = state.steps >= classify_after
        first = sources[0]
        mask = jax.random.bernoulli(draw, _chances(given[first], losses[first], masked, zeros))

        def total(free: Any) -> tuple[Array, tuple[Array, Array]]:
            graphs, encoders, labeler = free
            edges = {name: learned_edges(graph) for name, graph in graphs.items()}
            error = jnp.zeros(())
            for name, k in zip(sources, rebuild):
                hidden = jnp.where(mask, 0.0, given[name])
                filled: Any = encoder(hidden).apply(
                    encoders[name], hidden, edges[name], train=True, rngs={"dropout": k}
                )
                error += _error(filled, given[name], mask, losses[name])
            joined = degree_normalized(sum(edges.values(), jnp.zeros(())))
            logits: Any = classifier.apply(labeler, given[first], joined, train=True, rngs={"dropout": classify})
            entropy = jnp.mean(jax.vmap(cross_entropy)(logits[known], wanted))
            return share * error + jnp.where(started, entropy, 0.0), (error, entropy)

        free: Any = state.graphs, state.encoders, state.classifier
        (value, (error, entropy)), gradient = jax.value_and_grad(total, has_aux=True)(free)
        updates, optimizer = fast.update(gradient[:2], state.optimizer)
        learned: Any = optax.apply_updates(free[:2], updates)
        moves, after = slow.update(gradient[2], state.slow, state.classifier)
        # Before it begins nothing of it moves: its weights would decay.
        labeler, after = jax.tree.map(
            lambda new, old: jnp.where(started, new, old),
            (optax.apply_updates(state.classifier, moves), after),
            (state.classifier, state.slow),
        )
        told = info(value, reconstruction=error, classification=entropy)
        return State(learned[0], learned[1], labeler, optimizer, after, state.steps + 1), told

    def read(state: State) -> Float[Array, "n n"]:
        edges = sum((learned_edges(graph) for graph in state.graphs.values()), jnp.zeros(()))
        upper = jnp.triu(edges, 1)  # a product of floats is symmetric but for rounding
        return upper + upper.T

    def check(cases: Any, classes: int | None) -> None:
        del classes
        shape = np.shape(cases["explanation"]) if isinstance(cases, dict) and "explanation" in cases else ()
        if len(shape) != 3 or shape[1] != nodes or (method == "gsef" and shape[2] != x.shape[1]):
            wide = x.shape[1] if method == "gsef" else "d"
            raise ValueError(f"cases: explanation of shape {shape}; legal is [cases, {nodes}, {wide}]")

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes, check=check)


def _chances(matrix: Float[Array, "n d"], loss: str, masked: Scalar, zeros: Scalar) -> Float[Array, "n d"]:
    """How likely each entry is masked."""
    if loss == "mse":
        return jnp.full(matrix.shape, masked)
    positive = matrix > 0
    ones = jnp.sum(positive)
    others = masked * zeros * ones / jnp.maximum(matrix.size - ones, 1)
    return jnp.where(positive, masked, jnp.minimum(others, 1.0))


def _error(filled: Float[Array, "n d"], truth: Float[Array, "n d"], mask: Array, loss: str) -> Float[Array, ""]:
    """The mean over the masked entries."""
    each = optax.sigmoid_binary_cross_entropy(filled, truth) if loss == "bce" else (filled - truth) ** 2
    return jnp.sum(jnp.where(mask, each, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def _known(labels: Any, nodes: int) -> tuple[Array, Array, int]:
    """The nodes of known label, their labels, how many classes there are."""
    labels = np.asarray(labels)
    if labels.shape != (nodes,):
        raise ValueError(f"labels: shape {labels.shape}; legal is ({nodes},), one for each row of the features")
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise ValueError("labels: all are negative, which says unknown; the attack needs one label or more")
    return jnp.asarray(known), jnp.asarray(labels[known]), int(labels.max()) + 1
