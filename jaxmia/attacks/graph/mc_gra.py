"""MC-GRA: find the adjacency at which a network's layers depend most on those at the true one.

Zhou, Zhou, Li, Yao, Yao, Han, "On Strengthening and Defending Graph Reconstruction Attack with
Markov Chain Approximation", ICML 2023 (https://arxiv.org/abs/2306.09104). Besides features X the
adversary has one or more of a hidden layer H, class probabilities P and labels Y, computed once for
all nodes at the true graph. From a = 0, Adam on

    supervision * CE(f(A), Y) - propagation * I(H; h(A)) - outputs * I(P; softmax f(A))
    + complexity * Ent(A),

clipped to [0, 1] after each step. I is a measure of dependence (`recipes.dependence`; a distance
has the other sign), Ent(p) = -mean p log2 p of p clipped to [1e-4, 1 - 1e-4], and A = clip(a +
noise * N(0, 1)). The terms are those of the paper by its abstract and the released code
(https://github.com/AndrewZhou924/MC-GRA); its equations were not read, and the weights are ours.

The scores are D, the cosine decoding of h at the A that was found. Whoever has H has the cosine of
its rows without any descent, which alone ranks edges well. So everything that can be added up is in
the output, each by itself, and D must be judged beside the best of them.

`released=True` is the released code. Its loss, with N = normalized A and S the decoded features, is

    supervision * (CE + 1e-3 |a|_2) + likeness * M(S, N) + cycle * M(N, D) + complexity * Ent(N)
    + decoded_complexity * Ent(D) + propagation * M(H, h(A)) + outputs * M(log P, softmax f(A)).

M has the sign plus, but for "hsic": for "cka", "dp" and "kde" it minimizes the dependence. "kde" is
`kde_of_columns` there. Log-probabilities are compared with probabilities, which "kl" takes through
a softmax once more. Its scores are the sum D + dec h(D) + S + dec f(D), and of what the adversary
has dec H + dec log P + [y_i = y_j]; dec is "sigmoid", of max(0, z_i . z_j), on Cora and Citeseer,
"cosine" on Polblogs, USA and Brazil. Its weights w1, w2, w6, w7, w9, w10 are `likeness` / 1e5,
`cycle` / 1e5, `complexity` / 1e3, `decoded_complexity` / 10, `propagation`, `outputs`, found by a
search for each graph and each set of knowledge that looks at the true edges; `RELEASED_ON_CORA` are
those for Cora with all of H, P and Y. The means of its terms are over different counts, so that a
weight suits one number of nodes.

What differs from it also with `released=True`. It multiplies hidden layers by A as it is, without
loops or normalization; here the target normalizes by itself, always, so the sums that saturate its
sigmoid are smaller. Its victim has a linear layer above two convolutions, both of which it decodes;
here one layer is. Noise is symmetric, and spares the diagonal. D is decoded at the A after the last
step, there at the one before, noise included.

A step with "hsic", "cka" or "dp" costs n^2 of the layers' widths; `likeness` and `cycle` with these
n^3.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.models.graph import normalize_adjacency
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.priors import edges as edge_prior
from jaxmia.recipes.decoded import DECODERS, decoded
from jaxmia.recipes.dependence import MEASURES, kde_of_columns
from jaxmia.recipes.labeled_nodes import entropy_of_known, labeled_nodes

__all__ = ["CARD", "RELEASED_ON_CORA", "Recovered", "mc_gra"]

CARD = Card(
    title="MC-GRA",
    paper="Zhou, Zhou, Li, Yao, Yao, Han. Graph Reconstruction Attack with Markov Chain Approximation. ICML 2023",
    url="https://arxiv.org/abs/2306.09104",
    year=2023,
    modality="graph",
    access=Access.WEIGHTS,
    recovers="the edges of the graph that a graph neural network was trained on",
    knows="the features and the labels of the nodes, and what the network computed for them",
    observes="hidden_and_scores",
)

USES = ("hidden", "scores", "labels")
RELEASED_ON_CORA = {
    "released": True,
    "decoder": "sigmoid",
    "propagation": 10.0,
    "outputs": 1000.0,
    "complexity": 1e4,
    "likeness": 1e3,
    "decoded_complexity": 100.0,
}
"""Keywords of the released setting for Cora with H, P and Y; what it does not name has the default."""
SCORES = ("decoded", "relaxed", "summed")


class Recovered(NamedTuple):
    """What is concluded about one graph: `[n, n]` matrices, symmetric with a zero diagonal.

    What the adversary does not use is None.

    Attributes:
      scores: how likely each pair is an edge: `decoded`, `relaxed`, or the sum of all others.
      relaxed: in [0, 1], the adjacency that the descent found; no part of the sum.
      decoded: D, the cosines of the hidden layer at `relaxed`, where positive.
      hidden_again: the hidden layer at D, decoded.
      outputs_again: the log-probabilities at D, decoded.
      features: S, the features, decoded.
      observed_hidden: H, decoded.
      observed_scores: log P, decoded.
      labels: 1 for two nodes of one known label.
    """

    scores: Float[Array, "n n"]
    relaxed: Float[Array, "n n"]
    decoded: Float[Array, "n n"]
    hidden_again: Float[Array, "n n"]
    outputs_again: Float[Array, "n n"]
    features: Float[Array, "n n"]
    observed_hidden: Float[Array, "n n"] | None
    observed_scores: Float[Array, "n n"] | None
    labels: Float[Array, "n n"] | None


class State(NamedTuple):
    latent: Float[Array, "n n"]
    optimizer: Any
    seen: dict[str, Array]  # what was observed, since reading out gets no case


def mc_gra(
    oracle: Oracle,
    features: Float[Any, "n d"],
    labels: Int[Any, " n"],
    *,
    uses: tuple[str, ...] = USES,
    measure: str = "mse",
    steps: int = 100,
    rate: Scalar = 0.01,
    supervision: Scalar = 1.0,
    propagation: Scalar = 1.0,
    outputs: Scalar = 1.0,
    complexity: Scalar = 0.1,
    likeness: Scalar = 0.0,
    cycle: Scalar = 0.0,
    decoded_complexity: Scalar = 0.0,
    noise: Scalar = 0.0,
    budget: Scalar | None = None,
    decoder: str = "cosine",
    layer: str = "embedding",
    score: str | None = None,
    released: bool = False,
) -> Attack:
    """The attack; a case is {"hidden": `[n, h]`, "scores": `[n, classes]`}, the output a `Recovered`.

    Args:
      oracle: white-box access to a model of adjacencies `[n, n]` that answers with all nodes'
        logits `[n, classes]`.
      features: X, of the nodes.
      labels: Y; negative where the adversary does not know it.
      uses: which of "hidden" (H), "scores" (P) and "labels" (Y) the adversary has.
      measure: of dependence: "mse", "kl", "hsic", "cka", "dp" or "kde".
      steps: of descent.
      rate: Adam's learning rate, in units of an edge.
      supervision: weight of the cross entropy, where the adversary has labels.
      propagation: weight of the dependence of the hidden layer on H.
      outputs: weight of the dependence of the probabilities on P.
      complexity: weight of the entropy of the adjacency.
      likeness: weight of M(S, N); released only.
      cycle: weight of M(N, D); released only.
      decoded_complexity: weight of the entropy of D; released only.
      noise: deviation of what is added to the adjacency at each step.
      budget: most edges of the relaxed adjacency; None has no bound.
      decoder: of all that is added up but D, "sigmoid" or "cosine".
      layer: name of the target's hidden features that H was.
      score: "decoded", "relaxed" or "summed"; None takes the sum where `released`, else "decoded".
      released: signs, terms and scores as in the released code, see above.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for an option out of range, shapes that do not agree, no known label, or a target
        without that layer; for cases of another shape than the target's.
    """
    target: Weights = lower(oracle, CARD.access, "graph/mc_gra")
    score = score or ("summed" if released else "decoded")
    for name, value, legal in (
        ("measure", measure, tuple(MEASURES)),
        ("decoder", decoder, DECODERS),
        ("score", score, SCORES),
    ):
        if value not in legal:
            raise ValueError(f"{name}: {value!r}; legal is one of {', '.join(legal)}")
    if not uses or not set(uses) <= set(USES):
        raise ValueError(f"uses: {uses}; legal is one or more of {', '.join(USES)}")
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")
    nodes = jnp.shape(features)[0]
    prior = edge_prior(nodes, sparsity=1e-3 if released else 0.0, norm=2, budget=budget)
    answer = jax.eval_shape(lambda: target.apply(target.params, jnp.zeros((nodes, nodes))))
    told = labels if "labels" in uses else np.zeros(nodes, int)  # unknown ones are no fault where none is used
    known, wanted = labeled_nodes(told, nodes, answer.logits.shape)
    shapes = {"hidden": shown_feature(answer.features, layer, "layer").shape, "scores": answer.logits.shape}
    observed, optimizer = [name for name in uses if name in shapes], optax.adam(rate)
    compare, sign = MEASURES[measure].of, -1.0 if MEASURES[measure].grows else 1.0
    if released:
        compare = kde_of_columns if measure == "kde" else compare
        sign = -1.0 if measure == "hsic" else 1.0

    def dec(table: Float[Array, "n d"]) -> Float[Array, "n n"]:
        """The released decoder takes products for 0 where they are negative, of which the sigmoid is 1/2."""
        found = decoded(table, decoder)
        return found if decoder == "cosine" else jnp.where(jnp.eye(nodes, dtype=bool), 0.0, jnp.maximum(found, 0.5))

    alike = dec(jnp.asarray(features))  # here, since XLA takes minutes to fold such a product of constants

    def loss(latent: Array, jitter: Array, seen: dict[str, Array]) -> Float[Array, ""]:
        moved = prior.decode(latent + jitter)
        adjacency = jnp.where((moved >= 0) & (moved <= 1), moved, jnp.clip(moved, 0.0, 1.0))  # a full slope at 0
        answer = target.apply(target.params, adjacency)
        hidden, total = answer.features[layer], jnp.zeros(())
        if "labels" in uses:
            clean = prior.decode(latent)
            total += supervision * (entropy_of_known(answer.logits, known, wanted) + prior.penalty(latent, clean))
        if "hidden" in uses:
            total += propagation * sign * compare(seen["hidden"], hidden)
        if "scores" in uses:
            before = jnp.log(jnp.maximum(seen["scores"], 1e-12)) if released else seen["scores"]
            total += outputs * sign * compare(before, jax.nn.softmax(answer.logits))
        if not released:
            return total + complexity * _entropy(adjacency)
        spread, found = normalize_adjacency(adjacency), decoded(hidden)
        if _counts(likeness):
            total += likeness * sign * compare(alike, spread)
        if _counts(cycle):
            total += cycle * sign * compare(spread, found)
        return total + complexity * _entropy(spread) + decoded_complexity * _entropy(found)

    def init(key: Any, case: Any) -> State:
        latent = prior.init(key)
        return State(latent, optimizer.init(latent), {name: jnp.asarray(case[name]) for name in observed})

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        del case
        jitter = noise * jax.random.normal(key, (nodes, nodes)) if _counts(noise) else jnp.zeros(())
        value, slope = jax.value_and_grad(loss)(state.latent, jitter, state.seen)
        updates, after = optimizer.update(slope, state.optimizer, state.latent)
        latent = prior.project(optax.apply_updates(state.latent, updates))  # type: ignore[arg-type]
        return State(latent, after, state.seen), info(value, edges=jnp.sum(jnp.triu(latent, 1)))

    def read(state: State) -> Recovered:
        relaxed = prior.decode(state.latent)
        found = decoded(target.apply(target.params, relaxed).features[layer])
        again, seen = target.apply(target.params, found), state.seen
        parts = {
            "decoded": found,
            "hidden_again": dec(again.features[layer]),
            "outputs_again": dec(jax.nn.log_softmax(again.logits)),
            "features": alike,
            "observed_hidden": dec(seen["hidden"]) if "hidden" in uses else None,
            "observed_scores": dec(jnp.log(jnp.maximum(seen["scores"], 1e-12))) if "scores" in uses else None,
            "labels": _same(labels) if "labels" in uses else None,
        }
        scores = {"decoded": found, "relaxed": relaxed}.get(score)
        if scores is None:
            scores = sum((part for part in parts.values() if part is not None), jnp.zeros((nodes, nodes)))
        return Recovered(scores=scores, relaxed=relaxed, **parts)

    def check(cases: Any, classes: int | None) -> None:
        del classes
        for name in observed:
            shape = np.shape(cases[name])[1:]
            if shape != shapes[name]:
                raise ValueError(f"{name}: {list(shape)} a case; legal is {list(shapes[name])}, as the target computes")

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes, check=check)


def _counts(weight: Scalar) -> bool:
    """Whether a term has a weight: those that compare [n, n] matrices are dear."""
    return not isinstance(weight, int | float) or weight != 0


def _entropy(shares: Float[Array, "n n"]) -> Float[Array, ""]:
    """-mean p log2 p, in bits; entries beyond the clip have slope 0."""
    p = jnp.clip(shares, 1e-4, 1 - 1e-4)
    return -jnp.mean(p * jnp.log2(p))


def _same(labels: Int[Any, " n"]) -> Float[Array, "n n"]:
    """1 for two different nodes of one known label."""
    labels = np.asarray(labels)
    same = (labels[:, None] == labels) & (labels >= 0)
    return jnp.asarray(same & ~np.eye(len(labels), dtype=bool), jnp.float32)
