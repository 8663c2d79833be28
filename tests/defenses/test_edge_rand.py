"""EdgeRand: flip rates pair by pair, expected counts on a graph of Cora's size, and one draw for a training."""

import jax
import numpy as np
import pytest

from jaxmia.composing import compose, sets
from jaxmia.defenses.edge_rand import edge_rand

NODES = 12
EDGES = np.array([[i, (5 * i + 1) % 12] for i in (0, 1, 2, 3, 4)] + [[0, 7], [8, 10], [9, 11]], np.int32)
EDGES = np.unique(np.sort(EDGES, 1), axis=0)


def adjacency(edges, nodes=NODES):
    full = np.zeros((nodes, nodes), int)
    full[edges[:, 0], edges[:, 1]] = 1
    assert not np.tril(full).any()
    return full


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_every_pair_flips_at_the_rate_and_by_itself(epsilon):
    draws, true = 500, adjacency(EDGES)
    graph = edge_rand(epsilon=epsilon).graph
    flipped = np.array([adjacency(graph(jax.random.key(i), EDGES, NODES)) != true for i in range(draws)])
    rows, columns = np.triu_indices(NODES, 1)
    flipped = flipped[:, rows, columns]
    rate = 1 / (1 + np.exp(epsilon))
    error = np.sqrt(rate * (1 - rate) / draws)
    assert np.abs(flipped.mean(0) - rate).max() < 4.5 * error
    is_edge = true[rows, columns] == 1
    for kind in (is_edge, ~is_edge):
        assert abs(flipped[:, kind].mean() - rate) < 4 * error / np.sqrt(kind.sum())
        # The number of flips is binomial: drawing a fixed number would give no variance here.
        expected = kind.sum() * rate * (1 - rate)
        assert abs(flipped[:, kind].sum(1).var() / expected - 1) < 5 * np.sqrt(2 / draws)


@pytest.mark.parametrize(("epsilon", "false"), [(4.0, 65_830), (8.0, 1_227)])
def test_counts_on_a_graph_of_coras_size_are_the_expected_ones(epsilon, false):
    nodes, m = 2708, 5278
    rng = np.random.default_rng(0)
    edges = np.unique(np.sort(rng.choice(nodes, (3 * m, 2)), 1), axis=0)
    edges = edges[edges[:, 0] < edges[:, 1]]
    edges = edges[np.sort(rng.choice(len(edges), m, replace=False))].astype(np.int32)
    made = edge_rand(epsilon=epsilon).graph(jax.random.key(1), edges, nodes)
    true = {tuple(e) for e in edges.tolist()}
    kept = sum(tuple(e) in true for e in made.tolist())
    rate = 1 / (1 + np.exp(epsilon))
    assert abs(len(made) - kept - false) < 5 * np.sqrt(false)
    assert abs(kept - m * (1 - rate)) < 5 * np.sqrt(m * rate) + 1


def test_a_large_epsilon_gives_the_graph_back():
    np.testing.assert_array_equal(edge_rand(epsilon=60.0).graph(jax.random.key(0), EDGES, NODES), EDGES)


def test_defenses_change_the_graph_one_after_the_other_with_keys_of_their_own():
    """The second sees what the first made; its own noise is another, or two flips would undo one another."""
    one = edge_rand(epsilon=1.0)
    key = jax.random.key(5)
    both = compose({"one": one, "other": one})
    first, second = jax.random.split(key)
    expected = one.graph(second, one.graph(first, EDGES, NODES), NODES)
    np.testing.assert_array_equal(both.graph(key, EDGES, NODES), expected)
    assert not np.array_equal(one.graph(first, EDGES, NODES), one.graph(second, EDGES, NODES))
    np.testing.assert_array_equal(compose({"one": one}).graph(key, EDGES, NODES), one.graph(key, EDGES, NODES))
    assert not sets(compose({}), "graph")
    assert both.spent is not None and both.spent(1, 1, 1) == "epsilon 1 for one edge; epsilon 1 for one edge"


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_an_illegal_epsilon_is_named(epsilon):
    with pytest.raises(ValueError, match="epsilon: .*; legal is finite and above 0"):
        edge_rand(epsilon=epsilon)


def test_an_edge_of_a_node_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"edges: \(2, 11\); legal is two different nodes of 0 to 10"):
        edge_rand().graph(jax.random.key(0), EDGES, 11)
