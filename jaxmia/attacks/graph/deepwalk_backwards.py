"""DeepWalking backwards: descend on the adjacency until its NetMF matrix is the one observed.

Chanpuriya, Musco, Sotiropoulos, Tsourakakis, "DeepWalking Backwards: From Embeddings Back to
Graphs", ICML 2021 (https://arxiv.org/abs/2102.08532). What is observed is E, a low-rank
approximation of the matrix M_T that DeepWalk factorizes (`models.proximity`), and the volume of the
graph is known. The attack solves

    min over x of |M_T(A(x)) - E|_F^2 / |E|_F^2,
    A_ij = sigmoid(x_ij + s), s such that the pairs sum to vol / 2,

from x = 0 by L-BFGS. There is no network, and nothing is asked.

What differs. The powers are those of D^-1/2 A D^-1/2, which is symmetric; M_T is the same. s is
found by Newton's steps, ten as in the released code
(https://github.com/konsotirop/Invert_Embeddings), but on the logarithm of the sum, so that they
arrive from far as well; its derivative is that of the solution, not that of the steps. The
released code takes SciPy's L-BFGS, this is optax's, whose line search differs. The released code
draws its graph from the probabilities, after the edges of a maximum spanning tree; `graph` here
holds the pairs of largest probability.

The released code computes in double precision, this in float32. On two graphs of 60 nodes, at ranks
60, 16, 8 and 2, that changed the AUC by 0.0006 at most after 50 steps and the final loss by 3 %.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import WORST, Attack, Card, Process, Scalar, info
from jaxmia.models.proximity import walk_proximity
from jaxmia.oracle import Access, Oracle, lower

__all__ = ["CARD", "Recovered", "deepwalk_backwards"]

CARD = Card(
    title="DeepWalking backwards",
    paper="Chanpuriya, Musco, Sotiropoulos, Tsourakakis. DeepWalking Backwards. ICML 2021",
    url="https://arxiv.org/abs/2102.08532",
    year=2021,
    modality="graph",
    access=Access.NONE,
    recovers="a graph of the same random walks as the private one, and so its communities and many of its edges",
    knows="the volume of the graph, which is twice its number of edges",
    observes="proximity",
)

NEWTON, FAR = 10, 5.0  # steps to the shift, and the longest of them


class Recovered(NamedTuple):
    """What is concluded about one graph; the matrices are symmetric with a zero diagonal.

    Attributes:
      scores: in [0, 1], A(x); they sum to twice the number of edges.
      graph: 0 or 1, the pairs of largest score, as many as there are edges.
    """

    scores: Float[Array, "n n"]
    graph: Float[Array, "n n"]


class State(NamedTuple):
    logits: Float[Array, "n n"]  # x, of which the part above the diagonal counts
    optimizer: Any


def deepwalk_backwards(
    oracle: Oracle,
    volume: Scalar | int,
    *,
    steps: int = 50,
    window: int = 10,
    memory: int = 10,
) -> Attack:
    """The attack; a case is `{"matrix": E [n, n]}`, symmetric; the output `Recovered`.

    An evaluation multiplies some twenty pairs of n x n matrices, and a step takes one to twenty
    evaluations, mostly one: n up to 1,500 on a CPU.

    Args:
      oracle: any; nothing is asked of it.
      volume: the sum of all degrees, twice the number of edges; above 0, below n (n - 1). A wrong one
        costs much: twice the true one took the AUC on a graph of 60 nodes from 0.998 to 0.890.
      steps: iterations of L-BFGS.
      window: T, of the random walks.
      memory: past steps from which L-BFGS estimates the curvature.

    Raises:
      ValueError: for an option out of range.
    """
    lower(oracle, CARD.access, "graph/deepwalk_backwards")
    for name, value in (("window", window), ("memory", memory)):
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")
    if isinstance(volume, int | float) and volume <= 0:
        raise ValueError(f"volume: {volume}; legal is above 0")
    edges = volume / 2
    optimizer = optax.lbfgs(memory_size=memory)

    def loss_of(case: Any) -> Any:
        matrix = case["matrix"]
        size = jnp.sum(matrix**2)
        size = jnp.where(size > 0, size, 1.0)
        return lambda logits: jnp.sum((walk_proximity(adjacency(logits), window) - matrix) ** 2) / size

    def adjacency(logits: Float[Array, "n n"]) -> Float[Array, "n n"]:
        upper = jnp.triu(jax.nn.sigmoid(logits + _shift(logits, edges)), 1)
        return upper + upper.T

    def init(key: Any, case: Any) -> State:
        del key
        logits = jnp.zeros_like(case["matrix"])
        value, slope = jax.value_and_grad(loss_of(case))(logits)
        start = optax.tree.set(optimizer.init(logits), value=value, grad=slope)
        return State(logits, jax.tree.map(_strong, start))

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        del key
        value, slope = (optax.tree.get(state.optimizer, name) for name in ("value", "grad"))
        updates, optimizer_state = optimizer.update(
            slope, state.optimizer, state.logits, value=value, grad=slope, value_fn=loss_of(case)
        )
        after = jax.tree.map(_strong, optimizer_state)
        return State(state.logits + cast(Array, updates), after), info(optax.tree.get(after, "value"))

    def read(state: State) -> Recovered:
        scores = adjacency(state.logits)
        flat = jnp.triu(scores, 1).ravel()
        places = jnp.zeros(len(flat), jnp.int32).at[jnp.argsort(-flat)].set(jnp.arange(len(flat), dtype=jnp.int32))
        upper = jnp.triu((places < edges).reshape(scores.shape), 1).astype(scores.dtype)
        return Recovered(scores, upper + upper.T)

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes)


def _shift(logits: Float[Array, "n n"], edges: Scalar) -> Float[Array, ""]:
    """s such that the sigmoids of logits + s above the diagonal sum to `edges`, by Newton's steps."""

    def newton(logits: Any, shift: Any) -> Any:
        likely = jnp.triu(jax.nn.sigmoid(logits + shift), 1)
        total, slope = jnp.sum(likely), jax.lax.stop_gradient(jnp.sum(likely * (1.0 - likely)))
        tiny = jnp.finfo(logits.dtype).tiny
        over = jnp.log(jnp.maximum(total, tiny)) - jnp.log(edges)
        ahead = jax.lax.stop_gradient(total) / jnp.maximum(slope, tiny)
        return shift - jnp.clip(ahead * over, -FAR, FAR)

    held = jax.lax.stop_gradient(logits)
    near = jax.lax.fori_loop(0, NEWTON - 1, lambda _, shift: newton(held, shift), jnp.zeros((), logits.dtype))
    return newton(logits, near)  # whose derivative, at the solution, is that of the solution


def _strong(leaf: Array) -> Array:
    """The same, of strong type; no infinity, by which a case would count as failed."""
    leaf = jax.lax.convert_element_type(leaf, leaf.dtype)
    return jnp.nan_to_num(leaf, nan=jnp.nan, posinf=WORST) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf
