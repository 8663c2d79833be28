"""MNEMON: from embeddings of nodes back to the graph, by a metric and an auto-encoder in turn.

Shen, Han, Zhang, Backes, Zhang, "Finding MNEMON: Reviving Memories of Node Embeddings", CCS 2022
(https://arxiv.org/abs/2204.06963). What is observed is the embedding H of all nodes, and nothing
else. In the start graph A_0 each node has `neighbors` neighbors, those of largest
G_ij - e^temperature d_ij, d the cosine distance and G Gumbel noise. Then, in rounds,

1. metric learning: d_ij = mean over `heads` of 1 - cos(w_p * h_i, w_p * h_j) is fitted so that
   edges are near and as many other pairs far; each node draws its neighbors again by this
   distance, which gives the graph A;
2. an auto-encoder: z, a GCN on (A, H), scores pair (i, j) by S_ij = sigmoid(z_i . z_j) and
   minimizes, L being the Laplacian of S,

       BCE(S, A) + smoothness tr(H' L H) / 2 - alpha 1' log(S 1) + beta |S|_F^2 / 2;

3. the edges of the next round are the pairs where (1 - mix) A_0 + mix S is `threshold` or more,
   and its embedding is z.

With the default `mix` and `threshold` these are the edges of A_0 where S is 0.4 or more.

What differs. The numbers are those of somebody else's implementation. There the metric step
learns nothing, the start is from the features of the nodes, which the adversary does not have, and
the smoothness has the other sign, which gives edges to nodes that are not alike. `steps`, `rate`,
`width` and what follows are our choice. The losses are means: smoothness and |S|^2 over all pairs,
the degrees over all nodes (as in Chen, Wu, Zaki, "Iterative Deep Graph Learning", NeurIPS 2020),
and the cross entropy weighs edges as much as all other pairs, so that a threshold on S makes sense.
Smoothness is that of the observed embedding in every round, its rows of unit length. In the metric
step a pair is an edge with probability sigmoid(offset - scale d), both learned. Weights and
networks begin anew in each round; one round is one step here. The embedding is divided by its root
mean square, so that no rate depends on its unit. `scores` are z_i . z_j, in the order of S: in
float32 a sigmoid is 1 from 17 on, and ties the pairs it should rank.

The cosine of H needs no attack and is the baseline: without it beside this attack, its scores say
nothing of what the rounds add.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.models.graph import GCN
from jaxmia.oracle import Access, Oracle, lower

__all__ = ["CARD", "Recovered", "mnemon"]

CARD = Card(
    title="MNEMON",
    paper="Shen, Han, Zhang, Backes, Zhang. Finding MNEMON: Reviving Memories of Node Embeddings. CCS 2022",
    url="https://arxiv.org/abs/2204.06963",
    year=2022,
    modality="graph",
    access=Access.NONE,
    recovers="the edges of the graph that nodes were embedded with",
    knows="about how many neighbors a node has",
    observes="embedding",
)

OFFSET, SCALE = 2.0, 4.0  # of the metric's logistic regression, at the start
FAR = -1e9  # what no draw of neighbors gets to


class Recovered(NamedTuple):
    """What is concluded about one graph.

    Attributes:
      scores: z_i . z_j after the last round, symmetric with a zero diagonal.
      graph: 0 or 1, the edges after the last round, symmetric with a zero diagonal.
      embedding: z.
    """

    scores: Float[Array, "n n"]
    graph: Float[Array, "n n"]
    embedding: Float[Array, "n h"]


class State(NamedTuple):
    start: Bool[Array, "n n"]  # A_0
    edges: Bool[Array, "n n"]
    embedding: Float[Array, "n h"]  # of the round


def mnemon(
    oracle: Oracle,
    *,
    rounds: int = 10,
    steps: int = 200,
    neighbors: int = 4,
    temperature: Scalar = 4.0,
    heads: int = 16,
    width: int = 32,
    rate: Scalar = 0.01,
    smoothness: Scalar = 1.0,
    alpha: Scalar = 0.3,
    beta: Scalar = 0.1,
    mix: Scalar = 0.5,
    threshold: Scalar = 0.7,
) -> Attack:
    """The attack; a case is `{"embedding": H [n, h]}`, the output `Recovered`. A step is a round.

    Args:
      oracle: any; nothing is asked of it.
      rounds: of metric and auto-encoder.
      steps: of Adam, for each of them in each round.
      neighbors: k, that each node draws; about the mean degree, which is all that is known. Below
        the number of nodes.
      temperature: tau; e^tau is what the unit of distance counts against Gumbel noise.
      heads: M, weightings w_p of the embedding that the metric averages over.
      width: hidden units of the auto-encoder.
      rate: Adam's learning rate; ours, as are `steps` and `width`.
      smoothness: of tr(H' L H) / 2.
      alpha: of the logarithm of the degrees, against nodes without edges.
      beta: of |S|^2 / 2.
      mix: eta, the part of S beside the start graph, in [0, 1].
      threshold: of an edge, in [0, 1].

    Raises:
      ValueError: for a count below 1; for as many neighbors as nodes, when a case is looked at.
    """
    lower(oracle, CARD.access, "graph/mnemon")
    counts = {"rounds": rounds, "steps": steps, "neighbors": neighbors, "heads": heads, "width": width}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")
    adam = optax.adam(rate)

    def descended(key: Any, x: Any, loss: Any) -> tuple[Any, Array]:
        """x after all steps on `loss(key, x)`, and the last loss."""

        def step(t: Any, carry: Any) -> Any:
            x, opt, _ = carry
            value, slope = jax.value_and_grad(lambda x: loss(jax.random.fold_in(key, t), x))(x)
            updates, opt = adam.update(slope, opt, x)
            return optax.apply_updates(x, updates), opt, value

        x, _, value = jax.lax.fori_loop(0, steps, step, (x, adam.init(x), jnp.zeros(())))
        return x, value

    def neighborhood(key: Any, alike: Float[Array, "n n"]) -> Bool[Array, "n n"]:
        """`neighbors` of each node, drawn by their cosines, those of either direction."""
        n = len(alike)
        lead = jax.random.gumbel(key, (n, n)) - jnp.exp(temperature) * (1.0 - alike)
        _, chosen = jax.lax.top_k(jnp.where(jnp.eye(n, dtype=bool), FAR, lead), neighbors)
        drawn = jnp.zeros((n, n), bool).at[jnp.arange(n)[:, None], chosen].set(True)
        return drawn | drawn.T

    def metric(key: Any, edges: Bool[Array, "n n"], x: Float[Array, "n h"]) -> tuple[Array, Array]:
        """The learned cosines of all pairs, and the last loss."""
        n, (begin, learn) = len(x), jax.random.split(key)
        upto = jnp.cumsum(edges.ravel(), dtype=jnp.int32)  # the t-th edge is the first place that counts t

        def loss(key: Any, free: Any) -> Any:
            pick, first, second = jax.random.split(key, 3)
            draws = (n * neighbors,)
            place = jnp.searchsorted(upto, jax.random.randint(pick, draws, 1, jnp.maximum(upto[-1], 1) + 1))
            i = jax.random.randint(first, draws, 0, n)
            j = (i + jax.random.randint(second, draws, 1, n)) % n
            squares = free["weights"] ** 2
            norms = _root(x**2 @ squares.T)

            def logits(i: Any, j: Any) -> Any:
                alike = jnp.mean((x[i] * x[j]) @ squares.T / (norms[i] * norms[j]), 1)
                return free["offset"] - free["scale"] * (1.0 - alike)

            near = jnp.mean(jax.nn.softplus(-logits(place // n, place % n))) * (upto[-1] > 0)
            apart = ~edges[i, j]
            far = jnp.sum(jnp.where(apart, jax.nn.softplus(logits(i, j)), 0.0)) / jnp.maximum(jnp.sum(apart), 1)
            return near + far

        weights = jax.random.normal(begin, (heads, x.shape[1]))
        free = {"weights": weights, "offset": jnp.asarray(OFFSET), "scale": jnp.asarray(SCALE)}
        free, value = descended(learn, free, loss)
        weighed = x[:, None] * free["weights"]
        weighed = (weighed / _root(jnp.sum(weighed**2, -1, keepdims=True))).reshape(n, -1)
        return weighed @ weighed.T / heads, value

    def autoencode(key: Any, edges: Bool[Array, "n n"], x: Float[Array, "n h"], seen: Float[Array, "n h"]) -> Any:
        """z of all nodes, and the last loss."""
        n, (begin, learn) = len(x), jax.random.split(key)
        network, graph = GCN(width, x.shape[1]), edges.astype(jnp.float32)
        pairs = ~jnp.eye(n, dtype=bool)
        count = jnp.sum(graph)
        share = 0.5 / jnp.where(edges, jnp.maximum(count, 1.0), jnp.maximum(n * (n - 1) - count, 1.0))
        share = jnp.where(pairs, share, 0.0)
        unlike = (1.0 - _cosine(seen)) / (n * n)  # |h_i - h_j|^2 / 2 of unit rows

        def loss(key: Any, variables: Any) -> Any:
            del key
            z: Any = network.apply(variables, graph, x)
            logits = z @ z.T
            linked = jnp.where(pairs, jax.nn.sigmoid(logits), 0.0)
            told = jnp.sum(share * (jax.nn.softplus(logits) - graph * logits))
            rough = smoothness * jnp.sum(linked * unlike) / 2
            lonely = alpha * jnp.mean(jnp.log(jnp.sum(linked, 1) + 1e-12))
            return told + rough - lonely + beta * jnp.mean(linked**2) / 2

        variables, value = descended(learn, network.init(begin, graph, x), loss)
        return network.apply(variables, graph, x), value

    def init(key: Any, case: Any) -> State:
        seen = case["embedding"]
        if neighbors >= len(seen):
            raise ValueError(f"neighbors: {neighbors}; legal is below {len(seen)}, the number of nodes")
        start = neighborhood(key, _cosine(seen))
        return State(start, start, seen / _root(jnp.mean(seen**2)))

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        measure, draw, encode = jax.random.split(key, 3)
        alike, apart = metric(measure, state.edges, state.embedding)
        edges = neighborhood(draw, alike)
        z, loss = autoencode(encode, edges, state.embedding, case["embedding"])
        blended = (1.0 - mix) * state.start + mix * jax.nn.sigmoid(_pairwise(z))
        kept = (blended >= threshold) & ~jnp.eye(len(z), dtype=bool)
        return State(state.start, kept, z), info(loss, metric=apart, edges=jnp.sum(kept) / 2)

    def read(state: State) -> Recovered:
        return Recovered(_pairwise(state.embedding), state.edges.astype(jnp.float32), state.embedding)

    return Attack(lambda fitted: Process(init, step, read, rounds), observes=CARD.observes)


def _root(squares: Any) -> Any:
    return jnp.sqrt(jnp.maximum(squares, 1e-12))


def _cosine(rows: Float[Array, "n h"]) -> Float[Array, "n n"]:
    rows = rows / _root(jnp.sum(rows**2, 1, keepdims=True))
    return rows @ rows.T


def _pairwise(rows: Float[Array, "n h"]) -> Float[Array, "n n"]:
    """Inner products, symmetric with a zero diagonal."""
    upper = jnp.triu(rows @ rows.T, 1)
    return upper + upper.T  # a product of floats is symmetric but for rounding
