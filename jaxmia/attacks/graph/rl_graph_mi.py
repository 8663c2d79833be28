"""RL-GraphMI and black-box GraphMI: search for a graph on which a target says the known labels.

Zhang, Liu, Huang, Wang, Lee, Chen, "Model Inversion Attacks against Graph Neural Networks", IEEE
TKDE 2022 (https://arxiv.org/abs/2209.07807). The target says labels alone: it is asked with graphs
A and answers with a label for every node. With

    l(A) = share of the nodes of known label for which the answer is another,

there are two methods.

"zeroth_order", gradient estimation: from a relaxed graph a, with normal directions v_k over the
pairs,

    g = 1 / (2 q mu) * sum_k [l(clip(a + mu v_k)) - l(clip(a - mu v_k))] v_k
    a <- project(a - rate * (g + slope of the known terms)),

where the known terms, smoothness and sparsity of `priors.edges`, ask nothing, and the projection
bounds the number of edges. The score is the mean of a over the second half of the steps. A step
asks 2 q queries, whose edges have weights in [0, 1]: a service that takes whole edges alone does
not answer them.

"q_learning": a graph grows from none by one edge a step, until it has as many as there are believed
to be; that ends an episode. The reward of an edge is l before less l after less `sparsity`, times
the number of known labels. Deep Q-learning, whose values of pairs are those of a graph
convolutional network on the graph so far; an edge is the best of all pairs, or by chance a random
one. The score is the share of the last 20 whole episodes that have the edge, and 1e-3 of its value
in the empty graph, for ties. A step asks one query, and the start one more.

This is a reconstruction. The abstract says hard labels, gradient estimation and reinforcement
learning; there is no public code and the paper's equations were not read. Rewards, networks,
numbers and scores are ours, and so is the start of "zeroth_order" at equal weights that sum to the
believed number of edges: at the empty graph, where GraphMI begins, only the nodes that the target
takes for another class would tell anything. The variance of g grows as pairs / q, so that graphs
must be small, or the pairs restricted to `candidates`, those whose features are most alike; the
others score 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Prior, Process, Scalar, info
from jaxmia.models import GCN
from jaxmia.oracle import Access, Labels, Oracle, lower
from jaxmia.priors import edges as edge_prior
from jaxmia.recipes import sliced
from jaxmia.recipes.labeled_nodes import labeled_nodes

__all__ = ["CARD", "rl_graph_mi"]

CARD = Card(
    title="RL-GraphMI",
    paper="Zhang, Liu, Huang, Wang, Lee, Chen. Model Inversion Attacks against Graph Neural Networks. IEEE TKDE 2022",
    url="https://arxiv.org/abs/2209.07807",
    year=2022,
    modality="graph",
    access=Access.LABELS,
    recovers="the edges of the graph that a graph neural network was trained on",
    knows="the features and the labels of the nodes, and how many edges there are",
    observes="graph",
)

METHODS = {"zeroth_order": 100, "q_learning": 4000}
"""Steps by default, which ask 4,000 queries each."""
MOST_NODES = 200
EPISODES = 20  # that the score of Q-learning is over


class Pairs(NamedTuple):
    """The pairs that may be edges, first < second."""

    first: Int[np.ndarray, " p"]
    second: Int[np.ndarray, " p"]
    nodes: int

    def upper(self, values: Float[Array, " p"]) -> Float[Array, "n n"]:
        """The values above the diagonal, 0 for all other pairs."""
        return jnp.zeros((self.nodes, self.nodes)).at[self.first, self.second].set(values)

    def matrix(self, values: Float[Array, " p"]) -> Float[Array, "n n"]:
        upper = self.upper(values)
        return upper + upper.T


def rl_graph_mi(
    oracle: Oracle,
    features: Float[Any, "n d"],
    labels: Int[Any, " n"],
    *,
    method: str = "zeroth_order",
    steps: int | None = None,
    edges: int | None = None,
    candidates: int | None = None,
    smoothness: Scalar = 1e-4,
    sparsity: Scalar = 1e-3,
    directions: int = 20,
    radius: Scalar = 0.1,
    rate: Scalar = 0.1,
    width: int = 16,
    batch: int = 32,
    learning_rate: Scalar = 1e-2,
    discount: Scalar = 0.5,
    explore: Scalar = 0.05,
    trail: Scalar = 0.05,
) -> Attack:
    """The attack; a case is an index that nothing depends on, the output the scores of all pairs, `[n, n]`.

    Args:
      oracle: label access to a model of adjacencies `[n, n]` that answers with all nodes' labels
        `[n]`.
      features: X, of the nodes.
      labels: Y; negative where the adversary does not know it.
      method: "zeroth_order" or "q_learning".
      steps: of descent, or edges added in all episodes; None takes 100, or 4,000.
      edges: believed number of edges; None takes two for each node. It bounds the relaxed graph,
        and ends an episode.
      candidates: how many pairs may be edges, those of largest cosine of features; None takes all,
        up to 200 nodes.
      smoothness: weight of the roughness of features; zeroth order only.
      sparsity: weight of the number of edges, in shares of wrong labels.
      directions: q, of an estimate; zeroth order only.
      radius: mu, in units of an edge; zeroth order only.
      rate: step size; zeroth order only.
      width: of the network of values; Q-learning only.
      batch: steps that are learned from at each step; Q-learning only.
      learning_rate: Adam's, of the network; Q-learning only.
      discount: gamma; near 1 it takes many more steps to learn anything. Q-learning only.
      explore: least chance of a random edge, reached from 1 after half of the steps; Q-learning
        only.
      trail: by how much the network whose values are aimed at follows; Q-learning only.

    Raises:
      ThreatModelError: without label access.
      ValueError: for an option out of range, shapes that do not agree, or no known label.
    """
    view: Labels = lower(oracle, CARD.access, "graph/rl_graph_mi")
    if method not in METHODS:
        raise ValueError(f"method: {method!r}; legal is one of {', '.join(METHODS)}")
    nodes = jnp.shape(features)[0]
    if candidates is None and nodes > MOST_NODES:
        raise ValueError(f"candidates: None; legal for {nodes} nodes, more than {MOST_NODES}, is a number of pairs")
    every = nodes * (nodes - 1) // 2
    steps = METHODS[method] if steps is None else steps
    edges = min(2 * nodes, every if candidates is None else candidates) if edges is None else edges
    for name, value, least, most in (
        ("candidates", every if candidates is None else candidates, 1, every),
        ("edges", edges, 1, every if candidates is None else candidates),
        ("steps", steps, edges if method == "q_learning" else 1, None),
        ("directions", directions, 1, None),
        ("width", width, 1, None),
        ("batch", batch, 1, None),
    ):
        if value < least or (most is not None and value > most):
            raise ValueError(f"{name}: {value}; legal is {least} or more{'' if most is None else f', up to {most}'}")
    blank = jax.eval_shape(lambda: view.answer(jax.random.key(0), jnp.zeros((nodes, nodes))))
    known, wanted = labeled_nodes(labels, nodes, blank.shape)
    pairs = _pairs(np.asarray(features), candidates)

    def wrong(key: Any, adjacency: Float[Array, "n n"]) -> Float[Array, ""]:
        return jnp.mean((view.answer(key, adjacency)[known] != wanted).astype(jnp.float32))

    if method == "zeroth_order":
        prior = edge_prior(nodes, features=features, smoothness=smoothness, sparsity=sparsity, budget=float(edges))
        process = _zeroth_order(wrong, pairs, prior, steps, edges, directions, radius, rate)
    else:
        network = GCN(width, width)

        def values(params: Any, present: Float[Array, " p"]) -> Float[Array, " p"]:
            rows: Any = network.apply(params, pairs.matrix(present), jnp.asarray(features))
            one, two = rows[pairs.first], rows[pairs.second]
            return one[:, 0] + two[:, 0] + jnp.sum(one[:, 1:] * two[:, 1:], 1) / width  # the same both ways

        def begin(key: Any) -> Any:
            return network.init(key, jnp.zeros((nodes, nodes)), jnp.asarray(features))

        agent = Agent(begin, values, optax.adam(learning_rate), batch, discount, explore, trail)
        process = _q_learning(wrong, pairs, agent, steps, edges, sparsity, len(known))
    return Attack(lambda fitted: process, observes=CARD.observes)


def _pairs(features: np.ndarray, candidates: int | None) -> Pairs:
    """All pairs, or those of largest cosine, of equal ones the first."""
    nodes = len(features)
    first, second = np.triu_indices(nodes, 1)
    if candidates is not None:
        units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        best = np.sort(np.argsort(-(units @ units.T)[first, second], kind="stable")[:candidates])
        first, second = first[best], second[best]
    return Pairs(first, second, nodes)


class Relaxed(NamedTuple):
    """State of the gradient estimation."""

    a: Float[Array, " p"]
    total: Float[Array, " p"]  # sum of a over the second half of the steps
    taken: Int[Array, ""]
    queries: Int[Array, ""]


def _zeroth_order(
    wrong: Callable[[Any, Any], Any],
    pairs: Pairs,
    prior: Prior,
    steps: int,
    edges: int,
    directions: int,
    radius: Scalar,
    rate: Scalar,
) -> Process:
    count, half = len(pairs.first), steps // 2

    def known_terms(a: Float[Array, " p"]) -> Float[Array, ""]:
        upper = pairs.upper(a)
        return prior.penalty(upper, prior.decode(upper))

    def init(key: Any, case: Any) -> Relaxed:
        del key, case
        a, zero = jnp.full(count, edges / count, jnp.float32), jnp.zeros((), jnp.int32)
        return Relaxed(a, jnp.zeros(count), zero, zero)

    def step(key: Any, state: Relaxed, case: Any) -> tuple[Relaxed, Any]:
        del case
        draw, ask = jax.random.split(key)
        v = jax.random.normal(draw, (directions, count))
        tried = jnp.clip(state.a + radius * jnp.concatenate([v, -v]), 0.0, 1.0)
        keys = jax.random.split(ask, 2 * directions)
        losses = sliced(lambda key, a: wrong(key, pairs.matrix(a)), keys, tried)
        estimate = (losses[:directions] - losses[directions:]) @ v / (2 * directions * radius)
        rough, slope = jax.value_and_grad(known_terms)(state.a)
        moved = prior.project(pairs.upper(state.a - rate * (estimate + slope)))
        a, queries = moved[pairs.first, pairs.second], state.queries + 2 * directions
        total = state.total + jnp.where(state.taken >= half, a, 0.0)
        told = info(jnp.mean(losses) + rough, queries=queries, wrong=jnp.mean(losses), edges=jnp.sum(a))
        return Relaxed(a, total, state.taken + 1, queries), told

    def read(state: Relaxed) -> Float[Array, "n n"]:
        summed = state.taken - half
        return pairs.matrix(jnp.where(summed > 0, state.total / jnp.maximum(summed, 1), state.a))

    return Process(init, step, read, steps)


class Agent(NamedTuple):
    """What learns the values of pairs.

    Attributes:
      begin: `key -> parameters`.
      values: `(parameters, edges that are there [p]) -> [p]`, of adding each pair.
    """

    begin: Callable[[Any], Any]
    values: Callable[[Any, Any], Any]
    optimizer: optax.GradientTransformation
    batch: int
    discount: Scalar
    explore: Scalar
    trail: Scalar


class Grown(NamedTuple):
    """State of Q-learning. A graph is what the steps of its episode added, so that no graph need be remembered."""

    params: Any
    aim: Any  # parameters, trailing
    optimizer: Any
    added: Int[Array, " steps"]  # the pair that each step added
    rewards: Float[Array, " steps"]
    taken: Int[Array, ""]
    empty: Float[Array, ""]  # l of the graph without edges
    now: Float[Array, ""]  # l of the graph so far
    queries: Int[Array, ""]


def _q_learning(
    wrong: Callable[[Any, Any], Any],
    pairs: Pairs,
    agent: Agent,
    steps: int,
    edges: int,
    sparsity: Scalar,
    scale: int,
) -> Process:
    count = len(pairs.first)

    def before(added: Int[Array, " steps"], at: Int[Array, ""]) -> Float[Array, " p"]:
        """The graph that step `at` adds to: 1 for the pairs that its episode has added."""
        begun = at - at % edges
        places = begun + jnp.arange(edges)
        kept = jnp.where(places < at, added[jnp.minimum(places, steps - 1)], count)  # `count` is no pair
        return jnp.zeros(count).at[kept].set(1.0, mode="drop")

    def absent(values: Float[Array, " p"], present: Float[Array, " p"]) -> Float[Array, " p"]:
        return jnp.where(present > 0, -jnp.inf, values)

    def init(key: Any, case: Any) -> Grown:
        del case
        start, ask = jax.random.split(key)
        params, loss = agent.begin(start), wrong(ask, pairs.matrix(jnp.zeros(count)))
        zero, one = jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32)
        blank, rewards = jnp.zeros(steps, jnp.int32), jnp.zeros(steps)
        return Grown(params, params, agent.optimizer.init(params), blank, rewards, zero, loss, loss, one)

    def learned(key: Any, state: Grown) -> Grown:
        rows = jax.random.randint(key, (agent.batch,), 0, state.taken)

        def hoped(row: Int[Array, ""]) -> Float[Array, ""]:
            graph = before(state.added, row).at[state.added[row]].set(1.0)
            best = jnp.max(absent(agent.values(state.aim, graph), graph))
            return state.rewards[row] + jnp.where(row % edges == edges - 1, 0.0, agent.discount * best)

        aims = sliced(hoped, rows)

        def error(params: Any) -> Float[Array, ""]:
            def value(row: Int[Array, ""]) -> Float[Array, ""]:
                return agent.values(params, before(state.added, row))[state.added[row]]

            return jnp.mean((sliced(value, rows, gradient=True) - aims) ** 2)

        updates, optimizer = agent.optimizer.update(jax.grad(error)(state.params), state.optimizer)
        params = optax.apply_updates(state.params, updates)
        aim = optax.incremental_update(params, state.aim, agent.trail)  # type: ignore[arg-type]
        return state._replace(params=params, aim=aim, optimizer=optimizer)

    def step(key: Any, state: Grown, case: Any) -> tuple[Grown, Any]:
        del case
        chance, pick, ask, learn = jax.random.split(key, 4)
        graph = before(state.added, state.taken)
        best = jnp.argmax(absent(agent.values(state.params, graph), graph))
        other = jnp.argmax(absent(jax.random.gumbel(pick, (count,)), graph))
        random = jnp.maximum(1.0 - (1.0 - agent.explore) * state.taken / (steps / 2), agent.explore)
        pair = jnp.where(jax.random.uniform(chance) < random, other, best).astype(jnp.int32)
        after = wrong(ask, pairs.matrix(graph.at[pair].set(1.0)))
        # In wrong labels, of which the networks of values know how to start, not in shares of all.
        reward = scale * (jnp.where(state.taken % edges == 0, state.empty, state.now) - after - sparsity)
        at = jnp.minimum(state.taken, steps - 1)
        moved = state._replace(
            added=state.added.at[at].set(pair),
            rewards=state.rewards.at[at].set(reward),
            taken=state.taken + 1,
            now=after,
            queries=state.queries + 1,
        )
        return learned(learn, moved), info(after, queries=moved.queries, reward=reward)

    def read(state: Grown) -> Float[Array, "n n"]:
        whole = state.taken // edges
        at, counted = jnp.arange(steps), jnp.minimum(whole, EPISODES)
        late = (at >= (whole - counted) * edges) & (at < whole * edges)
        often = jnp.zeros(count).at[jnp.where(late, state.added, count)].add(1.0, mode="drop")
        values = agent.values(state.params, jnp.zeros(count))
        return pairs.matrix(often / jnp.maximum(counted, 1) + 1e-3 * values)

    return Process(init, step, read, steps)
