"""Stealing links: nodes whose posteriors are alike are linked, or a classifier learns which pairs are.

He, Jia, Backes, Gong, Zhang, "Stealing Links from Graph Neural Networks", USENIX Security 2021
(https://arxiv.org/abs/2005.02131). The adversary saw the posteriors p of all nodes once, and may have any of three more:
F, features of the nodes; A*, some pairs of which it knows whether they are links; D', a public "shadow" graph and the
posteriors of a network that it trained there. That makes eight attacks:

    0  nothing      -d(p_i, p_j)
    1  D'           a classifier of the distances of p and the operations of its entropies, 12 inputs; learns on D'
    2  F            d(r_i, r_j) - d(p_i, p_j)
    3  A*           the 12 and the operations of p, 4C + 12; learns on A*
    4  A*, D'       the 12; learns on both
    5  F, D'        the 12, the distances of r and x, the operations of the entropies of r, 32; learns on D'
    6  F, A*        the 32 and the operations of p and r; learns on A*
    7  F, A*, D'    the 32; learns on both

d is one of eight distances, x the features, r the posteriors of a reference: a network of one hidden layer that learned
the labels from the features alone. Distances, operations and entropies are those of `recipes.pairs`. D' gives all of its
edges and as many other pairs, drawn once.

Two options of attack 0 are not of this paper. `log` compares log p less its mean: that is the logits less theirs, so that
who sees p sees these too (configs/graph/cora_answers.yaml sets both side by side). `whiten` is our reading of the
abstract of Agbaje, Olufowobi, PMLR 306, 2026, who judge by the tail and "recondition" pairs of one class: the
posteriors of a predicted class are centered and whitened, and pairs of one class are compared by that. Other pairs come
after all of these, compared as before. So it is for the head of the list, at the cost of the rest.

What differs. The released code (https://github.com/xinleihe/link_stealing_attack) standardizes the pairs to be judged by
moments of their own; here they are those of the pairs learned from, so that a shift from D' to the target shows. It folds
AUCs of attacks 0 and 2 to above 0.5; nothing is folded here. It also goes through the pairs in a new order in each
epoch, here they are drawn and put back. The score of a classifier is its log-odds, since probabilities of 1 would tie. A
classifier learns within the case, since what it learns from is made of the posteriors observed.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar
from jaxmia.models.pair_classifier import PairClassifier
from jaxmia.oracle import Access, Oracle, lower
from jaxmia.ranges import above_zero, at_least_zero
from jaxmia.recipes.classify import classify, logits
from jaxmia.recipes.pairs import DISTANCES, distances, entropy, every_pair, operations, some_pairs, vector
from jaxmia.recipes.pairs import distance as distance_of
from jaxmia.recipes.score import score
from jaxmia.recipes.swept import swept

__all__ = ["CARD", "stealing_links"]

CARD = Card(
    title="Stealing links",
    paper="He, Jia, Backes, Gong, Zhang. Stealing Links from Graph Neural Networks. USENIX Security 2021",
    url="https://arxiv.org/abs/2005.02131",
    year=2021,
    modality="graph",
    access=Access.NONE,
    recovers="the edges of the graph that a graph neural network was trained on",
    knows="the posteriors of all nodes, and any of: features and labels, a part of the edges, a public graph",
    observes="posteriors",
)

REFERRING, KNOWING, SHADOWING = (2, 5, 6, 7), (3, 4, 6, 7), (1, 4, 5, 7)  # attacks that use F, A*, D'
LARGEST = 5000  # nodes, whose matrix of scores takes 100 MB
RIDGE = 1e-3  # of the mean variance of a class, added to each before whitening


class Graph(NamedTuple):
    """What the adversary has of a graph but for the posteriors; None where the attack does not use it."""

    features: Float[Array, "n d"] | None
    labels: Int[np.ndarray, " n"] | None
    pairs: Int[np.ndarray, "p 2"] | None
    linked: Int[np.ndarray, " p"] | None


class Held(NamedTuple):
    """What a classifier learns from, and what it is to be asked about."""

    rows: dict[str, Array]
    scores: Float[Array, "n classes"]
    reference: Float[Array, "n known"] | None


def stealing_links(
    oracle: Oracle,
    features: Float[Any, "n d"] | None,
    labels: Int[Any, " n"] | None,
    known: dict[str, Any] | None,
    shadow: dict[str, Any] | None,
    *,
    attack: int = 0,
    distance: str = "correlation",
    log: bool = False,
    whiten: bool = False,
    epochs: int = 50,
    rate: Scalar = 1e-3,
    batch: int | None = None,
    width: int = 32,
    dropout: Scalar = 0.5,
    reference_steps: int = 100,
    reference_rate: Scalar = 0.01,
    reference_decay: Scalar = 5e-4,
    reference_width: int = 16,
    seed: int = 0,
) -> Attack:
    """The attack; a case is {"scores"}, float `[n, classes]`, the posteriors of all nodes.

    The output are scores of all pairs, float32 `[n, n]`, symmetric with a zero diagonal, higher for likelier edges: of
    attack 0 at most 0, of the others unbounded. What an attack does not use may be None.

    Args:
      oracle: any, nothing is asked.
      features: x of the nodes, attacks 2, 5, 6, 7.
      labels: of the nodes, -1 where unknown; the same attacks.
      known: {"pairs": int `[p, 2]`, "linked": bool `[p]`}, attacks 3, 4, 6, 7.
      shadow: {"scores" `[k, classes']`, "edges": int `[e, 2]`}, attacks 1, 4, 5, 7; the last two need its "features"
        `[k, d']` and "labels" `[k]` as well.
      attack: its number, 0 to 7.
      distance: d, of attacks 0 and 2: one of `recipes.pairs.DISTANCES`. The correlation is the best in the paper; with
        two classes it is 0 or 2 alone.
      log: attack 0 compares logarithms less their mean, of 1e-30 where a posterior is less.
      whiten: attack 0 compares pairs of one predicted class by whitened posteriors.
      epochs: over the pairs learned from.
      rate: Adam's learning rate.
      batch: pairs a step; None takes 128, and 64 in attack 6.
      width: units of the two hidden layers of the classifier.
      dropout: after each hidden layer, also of the reference, in [0, 1).
      reference_steps: of the reference, each on all nodes of known label.
      reference_rate: Adam's learning rate there.
      reference_decay: weight decay there.
      reference_width: units of its hidden layer.
      seed: of the pairs of the shadow graph that are no edges.

    Raises:
      ValueError: for an option out of range, for what the attack needs and was not given, for shapes that do not agree.
    """
    lower(oracle, CARD.access, "graph/stealing_links")
    if attack not in range(8):
        raise ValueError(f"attack: {attack!r}; legal is 0 to 7")
    if distance not in DISTANCES:
        raise ValueError(f"distance: {distance!r}; legal is one of {', '.join(DISTANCES)}")
    for name, chosen in (("log", log), ("whiten", whiten)):
        if chosen and attack:
            raise ValueError(f"{name}: {chosen}; legal is False in attack {attack}, it is an option of attack 0")
    batch = (64 if attack == 6 else 128) if batch is None else batch
    counts = {"epochs": epochs, "batch": batch, "width": width}
    for name, count in {**counts, "reference_steps": reference_steps, "reference_width": reference_width}.items():
        if count < 1:
            raise ValueError(f"{name}: {count}; legal is 1 or more")
    above_zero(rate=rate, reference_rate=reference_rate)
    at_least_zero(reference_decay=reference_decay)
    if not isinstance(dropout, jax.Array) and not 0 <= dropout < 1:
        raise ValueError(f"dropout: {dropout}; legal is 0 or more, below 1")
    own = _own(attack, features, labels, known)
    public, public_scores = _public(attack, shadow, seed)
    module = PairClassifier((width, width), 2, dropout)
    count = sum(len(graph.pairs) for graph in (own, public) if graph.pairs is not None)
    steps = epochs * math.ceil(count / batch)

    def refer(key: Any, graph: Graph) -> Array | None:
        """r of all nodes of a graph."""
        if attack not in REFERRING or graph.features is None or graph.labels is None:
            return None
        told = np.flatnonzero(graph.labels >= 0)
        network = PairClassifier((reference_width,), int(graph.labels.max()) + 1, dropout)
        rows = {"x": graph.features[told], "y": jnp.asarray(graph.labels[told], jnp.int32)}
        optimizer = optax.chain(optax.add_decayed_weights(reference_decay), optax.adam(reference_rate))
        learn = classify(network, optimizer, steps=reference_steps, rows=rows, batch=None, moments=(0.0, 1.0))

        def step(t: Any, state: Any) -> Any:
            return learn.step(jax.random.fold_in(key, t + 1), state, None)[0]

        found = learn.read(jax.lax.fori_loop(0, reference_steps, step, learn.init(jax.random.fold_in(key, 0), None)))
        return jax.nn.softmax(logits(network, found, graph.features))

    def rows_of(graph: Graph, scores: Array, reference: Array | None) -> dict[str, Array]:
        nodes = _nodes(scores, reference, graph.features)
        x = some_pairs(lambda u, v: _inputs(attack, u, v), nodes, graph.pairs)
        return {"x": x, "y": jnp.asarray(graph.linked, jnp.int32)}

    def hold(key: Any, case: Any) -> Held:
        scores = _observed(case, own)
        here, there = (jax.random.fold_in(key, i) for i in range(2))
        reference, parts = refer(here, own), []
        if attack in SHADOWING:
            parts.append(rows_of(public, public_scores, refer(there, public)))
        if attack in KNOWING:
            parts.append(rows_of(own, scores, reference))
        return Held(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), scores, reference)

    def learning(held: Held) -> Process:
        process = classify(module, optax.adam(rate), steps=steps, rows=held.rows, batch=batch)

        def read(state: Any) -> Array:
            found = process.read(state)

            def odds(u: Any, v: Any) -> Array:
                no, yes = logits(module, found, _inputs(attack, u, v))
                return yes - no

            return every_pair(odds, _nodes(held.scores, held.reference, own.features))

        return process._replace(read=read)

    def init(key: Any, case: Any) -> Any:
        make, start = jax.random.split(key)
        return inner.init(start, (hold(make, case), case))

    def step(key: Any, state: Any, case: Any) -> Any:
        return inner.step(key, state, (state[0], case))

    def compare(key: Any, case: Any) -> Array:
        scores = _observed(case, own)
        if attack == 0:
            return _alike(scores, distance, log, whiten)
        return _closer(scores, refer(key, own), distance)

    if attack in (0, 2):
        return Attack(lambda fitted: score(compare), observes=CARD.observes)
    inner = swept(learning, steps)
    return Attack(lambda fitted: Process(init, step, inner.read, steps), observes=CARD.observes)


def _observed(case: Any, own: Graph) -> Float[Array, "n classes"]:
    """The posteriors of a case, whose shape must agree with what is known."""
    scores = jnp.asarray(case["scores"], jnp.float32)
    if scores.ndim != 2 or not 2 <= len(scores) <= LARGEST:
        raise ValueError(f"cases: scores {scores.shape}; legal is [n, classes] with 2 to {LARGEST} nodes")
    if own.features is not None and len(own.features) != len(scores):
        raise ValueError(f"features: {len(own.features)} nodes; legal is {len(scores)}, those with posteriors")
    if own.pairs is not None and own.pairs.max() >= len(scores):
        raise ValueError(f"known: node {own.pairs.max()}; legal is below {len(scores)}, the nodes with posteriors")
    return scores


def _alike(scores: Array, name: str, log: bool, whiten: bool) -> Array:
    """Attack 0."""
    logs = jnp.log(jnp.maximum(scores, 1e-30))
    seen = logs - jnp.mean(logs, 1, keepdims=True) if log else scores
    plain = jax.vmap(vector)(seen)
    if not whiten:
        return every_pair(lambda u, v: -distance_of(name, u, v), plain)
    predicted = jnp.argmax(scores, 1)
    nodes = predicted, plain, jax.vmap(vector)(_whitened(seen, predicted))

    def both(u: Any, v: Any) -> Array:
        within, across = distance_of(name, u[2], v[2]), distance_of(name, u[1], v[1])
        # Each in (-1, 0], as precise as float32 near 0; so pairs across classes come after those within one.
        return jnp.where(u[0] == v[0], -within / (1 + within), -1 - across / (1 + across))

    return every_pair(both, nodes)


def _whitened(rows: Float[Array, "n classes"], predicted: Int[Array, " n"]) -> Float[Array, "n classes"]:
    """Rows less the mean of their class, times the inverse square root of its covariance."""

    def moments(label: Any) -> tuple[Array, Array]:
        weights = (predicted == label) / jnp.maximum(jnp.sum(predicted == label), 1)
        mean = weights @ rows
        apart = rows - mean
        variances, axes = jnp.linalg.eigh((weights[:, None] * apart).T @ apart)
        variances, total = jnp.maximum(variances, 0.0), jnp.mean(jnp.maximum(variances, 0.0))
        scale = jax.lax.rsqrt(jnp.where(total > 0, variances + RIDGE * total, 1.0))
        return mean, (axes * scale) @ axes.T

    means, roots = jax.vmap(moments)(jnp.arange(rows.shape[1]))
    return jnp.einsum("ni,nij->nj", rows - means[predicted], roots[predicted])


def _closer(scores: Array, reference: Any, name: str) -> Array:
    """Attack 2: how much closer two nodes are to the target than to the reference."""
    nodes = jax.vmap(vector)(reference), jax.vmap(vector)(scores)
    return every_pair(lambda u, v: distance_of(name, u[0], v[0]) - distance_of(name, u[1], v[1]), nodes)


def _nodes(scores: Array, reference: Array | None, features: Any) -> dict[str, Any]:
    """What the inputs of a pair are made of, by node."""
    nodes = {"p": jax.vmap(vector)(scores), "ent p": jax.vmap(entropy)(scores)[:, None]}
    if reference is None:
        return nodes
    told = {"r": jax.vmap(vector)(reference), "ent r": jax.vmap(entropy)(reference)[:, None]}
    return {**nodes, **told, "x": jax.vmap(vector)(features)}


def _inputs(attack: int, u: dict[str, Any], v: dict[str, Any]) -> Float[Array, " inputs"]:
    """Of the classifier, for one pair."""
    parts = [distances(u["p"], v["p"]), operations(u["ent p"], v["ent p"])]
    if attack in REFERRING:
        parts += [distances(u[part], v[part]) for part in ("r", "x")] + [operations(u["ent r"], v["ent r"])]
    if attack in (3, 6):
        parts += [operations(u[part].plain, v[part].plain) for part in (("p",) if attack == 3 else ("p", "r"))]
    return jnp.concatenate(parts)


def _own(attack: int, features: Any, labels: Any, known: Any) -> Graph:
    """What is known of the attacked graph."""
    pairs = linked = None
    if attack in KNOWING:
        _refuse_none("known", known, attack, "pairs of which it is known whether they are edges")
        pairs, linked = np.asarray(known["pairs"]), np.asarray(known["linked"], np.int32)
        if pairs.shape != (len(linked), 2):
            raise ValueError(f"known: pairs {pairs.shape}, linked {linked.shape}; legal is [p, 2] and [p]")
        if len(np.unique(linked)) < 2:
            raise ValueError(f"known: {len(linked)} pairs, {linked.sum()} of them edges; legal is one of each or more")
    if attack not in REFERRING:
        return Graph(None, None, pairs, linked)
    return Graph(*_described("features", features, "labels", labels, attack), pairs, linked)


def _public(attack: int, shadow: Any, seed: int) -> tuple[Graph, Any]:
    """The shadow graph, and its posteriors."""
    if attack not in SHADOWING:
        return Graph(None, None, None, None), None
    _refuse_none("shadow", shadow, attack, "a public graph")
    scores, edges = jnp.asarray(shadow["scores"], jnp.float32), np.asarray(shadow["edges"])
    if not len(edges) or edges.max() >= len(scores):
        raise ValueError(
            f"shadow: {len(edges)} edges, scores {scores.shape}; legal is one edge or more among its nodes"
        )
    others = _others(edges, len(scores), np.random.default_rng(seed))
    pairs, linked = np.concatenate([edges, others]), np.repeat([1, 0], [len(edges), len(others)])
    if attack not in REFERRING:
        return Graph(None, None, pairs, linked), scores
    described = _described("shadow.features", shadow["features"], "shadow.labels", shadow["labels"], attack)
    if len(described[1]) != len(scores):
        raise ValueError(f"shadow: scores {scores.shape}, {len(described[1])} labels; legal is one label for each node")
    return Graph(*described, pairs, linked), scores


def _described(one: str, features: Any, other: str, labels: Any, attack: int) -> tuple[Array, np.ndarray]:
    """Features and labels, by which names they are called."""
    _refuse_none(one, features, attack, "features of the nodes")
    _refuse_none(other, labels, attack, "labels of the nodes, for its reference")
    features, labels = jnp.asarray(features, jnp.float32), np.asarray(labels)
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(f"{other}: shape {labels.shape}, {one} {features.shape}; legal is [n] and [n, d]")
    if labels.max() < 0:
        raise ValueError(f"{other}: all are negative, which says unknown; attack {attack} needs one or more")
    return features, labels


def _refuse_none(name: str, value: Any, attack: int, what: str) -> None:
    if value is None:
        raise ValueError(f"{name}: None; attack {attack} needs {what}")


def _others(edges: Int[np.ndarray, "e 2"], nodes: int, rng: np.random.Generator) -> Int[np.ndarray, "o 2"]:
    """As many pairs that are no edges, drawn without replacement; all of them where there are fewer."""

    def codes(pairs: np.ndarray) -> np.ndarray:
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1).astype(np.int64)
        return np.unique(pairs[:, 0] * nodes + pairs[:, 1])

    taken, found = codes(edges), np.zeros(0, np.int64)
    count = min(len(taken), nodes * (nodes - 1) // 2 - len(taken))
    while len(found) < count:
        found = np.union1d(found, np.setdiff1d(codes(rng.integers(0, nodes, (2 * count, 2))), taken))
    return np.stack(np.divmod(rng.permutation(found)[:count], nodes), 1)
