"""DPRR: every user randomizes the own list of neighbors, and keeps about as many as there were.

Hidano, Murakami, "Degree-Preserving Randomized Response for Graph Neural Networks under Local
Differential Privacy", Transactions on Data Privacy 2024 (https://arxiv.org/abs/2202.10209). No
curator sees the graph. User i of n, with d_i neighbors, sends, with epsilon = epsilon_1 +
epsilon_2,

    d'_i = d_i + Laplace(1 / epsilon_1)
    each entry of the own row flipped with probability 1 - p,  p = e^epsilon_2 / (1 + e^epsilon_2)
    of the entries that are 1 then, each kept with q_i = d'_i / (d'_i (2p - 1) + (n - 1)(1 - p))

q_i is cut to 0..1. Randomized response alone makes (n - 1)(1 - p) false neighbors on average; q_i
is such that d'_i entries are expected in all. The server joins i and j if one of the two says so.

A reconstruction: the paper's text could not be read. The steps are those of a third-party
implementation, and so is that epsilon_1 is 0.1, or sqrt(8 / (n - 1)) where that is more; another
gives it a tenth of epsilon. How both directions are joined and what the parts of the budget are in
the paper, we do not know. Two things are ours. d'_i is cut to 0..n - 1 before it is used, since
q_i of a number below 0 can come out as 1. And with `lower=True` only the user of the larger index
of a pair is asked: where both are, every pair has two chances, true or false, and the graph has up
to twice the edges that are expected of one row. The paper is on classification of whole graphs.

What it protects. Epsilon is of one entry of one user's list, with the degree that it is in. An
edge stands in two lists: all that is sent of it together is 2 epsilon where both are asked, and
epsilon + epsilon_1 with `lower`. Compare with EdgeRand and LapGraph, which have a curator, at that
number.

What it costs and does not do. Rows are drawn one after the other, each at the cost of the entries
that come out, for some n its length. As of `edge_rand`: below some epsilon a network does better
without a graph; one draw serves training and answers; who has the key can undo it; features and
labels are not protected.
"""

import math
from typing import Any

import numpy as np
from scipy.special import expit

from jaxmia.core import Card, Defense
from jaxmia.ranges import above_zero
from jaxmia.recipes.node_pairs import drawn_outside, host_generator, pair_numbers, pairs_of

__all__ = ["CARD", "dprr", "kept_share"]

CARD = Card(
    title="DPRR",
    paper="Hidano, Murakami. Degree-Preserving Randomized Response for GNNs under LDP. TDP 2024",
    url="https://arxiv.org/abs/2202.10209",
    year=2024,
    modality="graph",
    hook="graph, spent",
)


def dprr(*, epsilon: float = 6.0, degree_epsilon: float | None = None, lower: bool = False) -> Defense:
    """The defense: a graph that is joined from lists which each node randomized, once.

    Args:
      epsilon: of the privacy of one entry of one list, above 0.
      degree_epsilon: epsilon_1, the part of it that the degree is given; None takes 0.1, or
        sqrt(8 / (n - 1)) where that is more.
      lower: whether of each pair only the node of the larger index is asked.

    Raises:
      ValueError: for an epsilon that is not finite and above 0; when applied, where the degree is
        given all of it or more, or for edges of nodes that there are not.

    >>> import jax
    >>> everything = dprr(epsilon=80.0, degree_epsilon=40.0)
    >>> len(everything.graph(jax.random.key(0), [[0, 2], [1, 2]], 3))
    2
    """
    above_zero(epsilon=epsilon)
    if degree_epsilon is not None:
        above_zero(degree_epsilon=degree_epsilon)

    def graph(key: Any, edges: Any, nodes: int) -> Any:
        rng = host_generator(key)
        pairs = pairs_of(pair_numbers(edges, nodes), nodes).astype(np.int64)
        of_degree = degree_epsilon
        if of_degree is None:
            of_degree = max(0.1, math.sqrt(8 / max(nodes - 1, 1)))
        if of_degree >= epsilon:
            legal = f"legal is below epsilon, {epsilon:g}"
            raise ValueError(f"degree_epsilon: {of_degree:.3g} of {nodes} nodes; {legal}")
        # Each edge from both ends, by the node that is asked and then by its neighbor.
        ends = np.concatenate([pairs, pairs[:, ::-1]])
        ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
        begin = np.searchsorted(ends[:, 0], np.arange(nodes + 1))
        degree = np.diff(begin) + rng.laplace(scale=1 / of_degree, size=nodes)
        stays = float(expit(epsilon - of_degree))
        share = kept_share(degree, nodes, stays)
        said = [np.zeros((0, 2), np.int64)]
        for i in range(nodes):
            near = ends[begin[i] : begin[i + 1], 1]
            near, size = (near[near < i], i) if lower else (near, nodes)
            true = near[rng.random(len(near)) < stays * share[i]]
            taken = near if lower else np.sort(np.append(near, i))  # of itself no node is asked
            false = int(rng.binomial(size - len(taken), (1 - stays) * share[i]))
            named = np.concatenate([true, drawn_outside(rng, taken, size, false)])
            said.append(np.stack([np.full(len(named), i), named], 1))
        return pairs_of(pair_numbers(np.concatenate(said), nodes), nodes)

    def spent(size: int, examples: int, steps: int) -> str:
        entry = f"epsilon {epsilon:g} for one entry of one list of neighbors"
        return f"{entry}, and at most {2 * epsilon:g} for one edge"

    return Defense(graph=graph, spent=spent)


def kept_share(degree: Any, nodes: int, stays: float) -> Any:
    """q_i: of the entries that are 1 after randomized response, the share that is kept.

    Args:
      degree: d'_i, `[nodes]`, any number; it is cut to 0..nodes - 1.
      nodes: how many there are.
      stays: p, the probability of an entry to stay as it is, from a half to 1.

    >>> kept_share(np.array([-3.0, 0.0, 4.0]), 101, 0.75).tolist()
    [0.0, 0.0, 0.14814814814814814]
    """
    degree = np.clip(degree, 0.0, nodes - 1.0)
    expected = degree * (2 * stays - 1) + (nodes - 1) * (1 - stays)
    share = np.divide(degree, expected, out=np.zeros_like(degree), where=expected > 0)
    return np.minimum(share, 1.0)
