"""GraphLeaks: a decoder of embeddings to edges, learned on a public graph, reads a private one.

Duddu, Boutet, Shejwalkar, "Quantifying Privacy Leakage in Graph Embedding", MobiQuitous 2020
(https://arxiv.org/abs/2010.00906), graph reconstruction. The adversary sees the embedding H of all
nodes of a private graph, and has a shadow graph of which it knows the edges A' and the embedding
H'. There it learns a network z = encoder(h),

    min over the encoder of the cross entropy of sigmoid(z'_i . z'_j) and A'_ij,

edges and other pairs weighing the same, and scores pair (i, j) of the private graph by z_i . z_j.

What differs. The released code (https://github.com/vasishtduddu/GraphLeaks) trains a graph
auto-encoder on a part of the true graph's own edges and predicts the others: no target is in it,
and what it measures is how well links are predicted. The attack here is the one that the paper
describes, with the code's numbers: 32 and 16 units, Adam with rate 0.01, 1,500 steps, and a weight
of (k^2 - 2m) / 2m of an edge, by which edges count as much as all other pairs. But a step sees a
block of `batch` edges and as many other pairs, drawn anew, and not all k^2 pairs. Rows are
standardized by the moments of H'. `scores` are no sigmoids, which tie near 1. Membership and
attribute inference, the paper's other two attacks, are not here.

Units of networks that were trained apart do not mean the same. What the encoder learned holds of
the private embedding if one network embedded both graphs, or as far as near rows of either are
linked. Set the cosine of H beside it, which needs no public graph: it is beaten where most of an
embedding says nothing of edges, such as the node's own part in GraphSAGE.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.models.pair_decoder import NodeEncoder
from jaxmia.oracle import Access, Oracle, lower
from jaxmia.recipes import score

__all__ = ["CARD", "Recovered", "graph_leaks"]

CARD = Card(
    title="GraphLeaks",
    paper="Duddu, Boutet, Shejwalkar. Quantifying Privacy Leakage in Graph Embedding. MobiQuitous 2020",
    url="https://arxiv.org/abs/2010.00906",
    year=2020,
    modality="graph",
    access=Access.NONE,
    recovers="the edges of the graph that nodes were embedded with",
    knows="a public graph, and its embedding by the same kind of network",
    observes="embedding",
)

MOST = 46_340  # nodes whose pairs an int32 can number


class Recovered(NamedTuple):
    """What is concluded about one graph.

    Attributes:
      scores: z_i . z_j, symmetric with a zero diagonal.
      embedding: z.
    """

    scores: Float[Array, "n n"]
    embedding: Float[Array, "n z"]


def graph_leaks(
    oracle: Oracle,
    shadow: Any,
    *,
    steps: int = 1500,
    rate: Scalar = 0.01,
    batch: int = 1024,
    width: int = 32,
    code: int = 16,
) -> Attack:
    """The attack; a case is `{"embedding": H [n, h]}`, the output `Recovered`.

    Its training stage draws from the shadow graph and does not look at public minibatches.

    Args:
      oracle: any; nothing is asked of it.
      shadow: the public graph, {"embedding": `[k, h]`, "edges": int `[m, 2]`}, each edge once;
        whatever else it holds is not used.
      steps: of training.
      rate: Adam's learning rate.
      batch: edges of a step, and as many other pairs.
      width: hidden units of the encoder.
      code: numbers of z.

    Raises:
      ValueError: for a shadow graph that is none, has no edge, or edges that are not of its nodes; a
        count below 1; an embedding of another width, when a case is looked at.
    """
    lower(oracle, CARD.access, "graph/graph_leaks")
    for name, value in (("steps", steps), ("batch", batch), ("width", width), ("code", code)):
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")
    seen, edges, numbers = _shadow(shadow)
    nodes, network, adam = len(seen), NodeEncoder(width, code), optax.adam(rate)
    mean, deviation = seen.mean(0), seen.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0).astype(np.float32)
    seen = jnp.asarray(seen)

    def encoded(variables: Any, rows: Float[Array, "r h"]) -> Any:
        return network.apply(variables, (rows - mean) / deviation)

    def fit(fitted: Any) -> Process:
        del fitted

        def init(key: Any, public: Any) -> Any:
            del public
            variables = network.init(key, seen[:1])
            return variables, adam.init(variables)

        def step(key: Any, state: Any, public: Any) -> Any:
            del public
            variables, opt = state
            which, first, second = jax.random.split(key, 3)
            linked = edges[jax.random.randint(which, (batch,), 0, len(edges))]
            i = jax.random.randint(first, (batch,), 0, nodes)
            j = (i + jax.random.randint(second, (batch,), 1, nodes)) % nodes
            number = jnp.minimum(i, j) * nodes + jnp.maximum(i, j)
            place = jnp.minimum(jnp.searchsorted(numbers, number), len(numbers) - 1)
            apart = (numbers[place] != number).astype(jnp.float32)

            def loss(variables: Any) -> Any:
                def products(left: Any, right: Any) -> Any:
                    ends = (encoded(variables, seen[side]) for side in (left, right))
                    return jnp.sum(jnp.prod(jnp.stack(tuple(ends)), 0), 1)

                near = jnp.mean(jax.nn.softplus(-products(linked[:, 0], linked[:, 1])))
                far = jnp.sum(apart * jax.nn.softplus(products(i, j))) / jnp.maximum(jnp.sum(apart), 1.0)
                return (near + far) / 2

            value, slope = jax.value_and_grad(loss)(variables)
            updates, opt = adam.update(slope, opt, variables)
            return (optax.apply_updates(variables, updates), opt), info(value)

        return Process(init, step, lambda state: state[0], steps)

    def solve(fitted: Any) -> Process:
        (variables,) = fitted

        def decode(key: Any, case: Any) -> Recovered:
            del key
            rows = case["embedding"]
            if rows.shape[1] != seen.shape[1]:
                raise ValueError(f"shadow: embeddings of {seen.shape[1]}; legal is {rows.shape[1]}, as those observed")
            z = encoded(variables, rows)
            upper = jnp.triu(z @ z.T, 1)
            return Recovered(upper + upper.T, z)

        return score(decode)

    return Attack(solve, (fit,), observes=CARD.observes)


def _shadow(shadow: Any) -> tuple[np.ndarray, Array, Array]:
    """Embedding, edges, and the numbers i k + j, i < j, of the edges, ascending."""
    legal = 'legal is {"embedding": [k, h], "edges": [m, 2]}'
    if shadow is None or not {"embedding", "edges"} <= set(shadow):
        raise ValueError(f"shadow: {'none' if shadow is None else ', '.join(sorted(shadow))}; {legal}")
    seen, edges = np.asarray(shadow["embedding"], np.float32), np.asarray(shadow["edges"])
    if seen.ndim != 2 or edges.ndim != 2 or edges.shape[1] != 2 or not 2 <= len(seen) <= MOST:
        raise ValueError(f"shadow: embedding {seen.shape}, edges {edges.shape}; {legal}, k from 2 to {MOST}")
    if not len(edges) or edges.min() < 0 or edges.max() >= len(seen) or (edges[:, 0] == edges[:, 1]).any():
        raise ValueError(f"shadow: {len(edges)} edges; legal is one or more, of two different nodes below {len(seen)}")
    low, high = np.sort(edges.astype(np.int64), 1).T
    numbers = np.unique(low * len(seen) + high)
    return seen, jnp.asarray(edges, jnp.int32), jnp.asarray(numbers, jnp.int32)
