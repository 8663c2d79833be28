"""LapGraph: noise on every pair of nodes, and as many edges as there were, about, at the largest.

Wu, Long, Zhang, Li, "LinkTeller: Recovering Private Edges from Graph Neural Networks via Influence
Analysis", IEEE S&P 2022 (https://arxiv.org/abs/2108.06504), section VI. With m edges and two parts
of the budget, epsilon_1 = 0.01 epsilon for their number and epsilon_2 = 0.99 epsilon for the rest:

    m'   = m + Laplace(1 / epsilon_1), rounded, within 0 and the number of pairs
    S_ij = A_ij + Laplace(1 / epsilon_2) for each pair i < j
    A'   = 1 at the m' largest S_ij, 0 elsewhere

One edge moves m by 1 and one S_ij by 1, and the rest is a function of these: epsilon-differential
privacy of one edge. It is about as precise as EdgeRand at the same epsilon (on Cora 0.07 at 4,
0.35 at 6, 0.75 at 8), with as many edges as the true graph, where EdgeRand has many times more.

What differs. The released code adds noise to n^2 entries. Here only the largest noise of the pairs
that are no edges is drawn: the m' largest of K Laplace numbers in descending order, by the
spacings of exponential ones (Renyi 1953), and then which pairs have them. The graphs come out with
the same probabilities, at the cost of their edges, for any n. The code seeds both draws alike,
which does no harm there. The default of epsilon is our choice, as that of `edge_rand`.

What it costs and does not do. As of `edge_rand`: below some epsilon a network does better without
a graph; one draw serves training and answers; whoever has the key can undo it; one edge is
protected, not all edges of a node, nor features or labels. The noise is of 64-bit floats, whose
last digits are a known weakness (Mironov 2012).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmia.core import Card, Defense
from jaxmia.ranges import above_zero
from jaxmia.recipes.node_pairs import host_generator, pair_count, pair_numbers, rewritten

__all__ = ["CARD", "lap_graph", "largest_laplace"]

CARD = Card(
    title="LapGraph",
    paper="Wu, Long, Zhang, Li. LinkTeller: Recovering Private Edges. S&P 2022",
    url="https://arxiv.org/abs/2108.06504",
    year=2022,
    modality="graph",
    hook="graph, spent",
)


def lap_graph(*, epsilon: float = 6.0, count_share: float = 0.01) -> Defense:
    """The defense: a graph of the pairs that are largest after noise, drawn once.

    Args:
      epsilon: of the privacy of one edge, above 0; the larger, the less noise.
      count_share: of epsilon that the number of edges is given, between 0 and 1; the paper's 0.01.

    Raises:
      ValueError: for an epsilon that is not finite and above 0, or a share outside of 0 to 1; when
        applied, for edges of nodes that there are not.

    >>> import jax
    >>> lap_graph(epsilon=1e4).graph(jax.random.key(0), [[0, 2], [1, 2]], 3).tolist()
    [[0, 2], [1, 2]]
    """
    above_zero(epsilon=epsilon)
    if not 0 < count_share < 1:
        raise ValueError(f"count_share: {count_share}; legal is between 0 and 1")

    def graph(key: Any, edges: Any, nodes: int) -> Any:
        rng, numbers = host_generator(key), pair_numbers(edges, nodes)
        count = len(numbers) + rng.laplace(scale=1 / (count_share * epsilon))
        count = int(np.clip(np.rint(count), 0, pair_count(nodes)))
        scale = 1 / ((1 - count_share) * epsilon)
        of_edges = 1 + rng.laplace(scale=scale, size=len(numbers))
        others = pair_count(nodes) - len(numbers)
        of_others = scale * largest_laplace(rng, others, min(count, others))
        # The largest of both kinds together: which of the pairs that are none is drawn after.
        largest = np.argsort(-np.concatenate([of_edges, of_others]), kind="stable")[:count]
        kept = np.zeros(len(numbers), bool)
        kept[largest[largest < len(numbers)]] = True
        return rewritten(rng, numbers, kept, count - int(kept.sum()), nodes)

    def spent(size: int, examples: int, steps: int) -> str:
        return f"epsilon {epsilon:g} for one edge"

    return Defense(graph=graph, spent=spent)


def largest_laplace(rng: np.random.Generator, size: int, count: int) -> Float[np.ndarray, " count"]:
    """The `count` largest of `size` draws of Laplace(0, 1), descending, without the others.

    The k-th smallest of n exponential numbers is a sum of k independent ones, divided by n, n - 1,
    ... n - k + 1. That of an exponential number u, 1 - e^-u, is uniform, and here the probability
    to be larger.

    >>> rng = np.random.default_rng(0)
    >>> bool(largest_laplace(rng, 10**12, 1)[0] > 20), largest_laplace(rng, 5, 0).size
    (True, 0)
    """
    waits = np.cumsum(rng.exponential(size=count) / (size - np.arange(count)))
    tail = -np.expm1(-waits)  # P[Laplace > value], ascending
    upper = tail < 0.5
    # Below the median it is log(2 (1 - tail)), and log(1 - tail) is -waits to the last digit.
    return np.where(upper, -np.log(2 * np.where(upper, tail, 0.5)), np.log(2.0) - waits)
