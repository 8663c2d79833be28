"""EdgeRand: flip every pair of nodes, edge or not, with one probability, before the training.

Wu, Long, Zhang, Li, "LinkTeller: Recovering Private Edges from Graph Neural Networks via Influence
Analysis", IEEE S&P 2022 (https://arxiv.org/abs/2108.06504), section VI, after randomized response
of Warner (1965). For each pair i < j, independently,

    A'_ij = 1 - A_ij with probability q = 1 / (1 + e^epsilon),   A_ij else

so that the graph that comes out is about as likely from two graphs which differ in one edge,
within a factor of e^epsilon: epsilon-differential privacy of one edge. The paper draws with
probability s = 2 / (1 + e^epsilon) and then throws a fair coin for the entry, which is the same.

What is expected of n nodes, N = n (n - 1) / 2 pairs and m edges: (1 - q) m edges stay and q (N -
m) are false. On Cora, with 5,278 edges, 1,227 are false at epsilon 8, 9,050 at 6, 65,830 at 4 and
984,326 at 1. So precision falls from 0.81 to 0.37, 0.07 and 0.004.

What differs. The released code draws n^2 numbers; here the number of false edges is drawn, then
which pairs they are: the same graphs with the same probabilities, at the cost of the edges that
come out. The default of epsilon is our choice. configs/graph/cora_answers.yaml sets a network
without a graph beside it, above which a noisy graph must stay to be of any use.

What it costs and does not do. Below that the graph does harm, and "protected" means "unused": set
a network without a graph beside it. It draws once, and one graph serves training and answers; who
draws again spends epsilon again. Whoever has the key can undo it, and the generator is none of
cryptography. One edge is protected, not all edges of one node, nor features or labels; nor do
hyperparameters count that were chosen with the true graph. An attack finds the noisy graph;
compare its success with what that graph tells by itself.
"""

from typing import Any

from scipy.special import expit

from jaxmia.core import Card, Defense
from jaxmia.ranges import above_zero
from jaxmia.recipes.node_pairs import host_generator, pair_count, pair_numbers, rewritten

__all__ = ["CARD", "edge_rand"]

CARD = Card(
    title="EdgeRand",
    paper="Wu, Long, Zhang, Li. LinkTeller: Recovering Private Edges. S&P 2022",
    url="https://arxiv.org/abs/2108.06504",
    year=2022,
    modality="graph",
    hook="graph, spent",
)


def edge_rand(*, epsilon: float = 6.0) -> Defense:
    """The defense: a graph whose pairs were flipped, once.

    Args:
      epsilon: of the privacy of one edge, above 0; the larger, the fewer pairs flip.

    Raises:
      ValueError: for an epsilon that is not finite and above 0; when applied, for edges of nodes
        that there are not.

    >>> import jax
    >>> edge_rand(epsilon=40.0).graph(jax.random.key(0), [[0, 2], [1, 2]], 3).tolist()
    [[0, 2], [1, 2]]
    """
    above_zero(epsilon=epsilon)
    flip = float(expit(-epsilon))

    def graph(key: Any, edges: Any, nodes: int) -> Any:
        rng, numbers = host_generator(key), pair_numbers(edges, nodes)
        kept = rng.random(len(numbers)) >= flip
        false = int(rng.binomial(pair_count(nodes) - len(numbers), flip))
        return rewritten(rng, numbers, kept, false, nodes)

    def spent(size: int, examples: int, steps: int) -> str:
        return f"epsilon {epsilon:g} for one edge"

    return Defense(graph=graph, spent=spent)
