"""LapGraph: the sparse draw against noise on every pair, the number of edges, and precision on Cora's size."""

import jax
import numpy as np
import pytest
import scipy.stats

from jaxmia.defenses.lap_graph import lap_graph, largest_laplace

NODES = 10
EDGES = np.array([[0, 1], [0, 4], [1, 7], [2, 3], [2, 9], [5, 6], [7, 8]], np.int32)


def dense(rng, epsilon, share=0.01):
    """The mechanism as it is written: noise on each of the pairs, the largest stay."""
    rows, columns = np.triu_indices(NODES, 1)
    adjacency = np.zeros((NODES, NODES))
    adjacency[EDGES[:, 0], EDGES[:, 1]] = 1
    count = np.clip(np.rint(len(EDGES) + rng.laplace(scale=1 / (share * epsilon))), 0, len(rows))
    noisy = adjacency[rows, columns] + rng.laplace(scale=1 / ((1 - share) * epsilon), size=len(rows))
    chosen = np.argsort(-noisy)[: int(count)]
    return rows[chosen], columns[chosen]


def test_largest_draws_have_the_distribution_of_sorted_ones():
    rng = np.random.default_rng(0)
    sparse = np.array([largest_laplace(rng, 20, 12) for _ in range(2000)])
    full = -np.sort(-rng.laplace(size=(2000, 20)))[:, :12]
    assert (np.diff(sparse, axis=1) <= 0).all()
    for rank in (0, 3, 11):  # the last is below the median
        assert scipy.stats.ks_2samp(sparse[:, rank], full[:, rank], method="asymp").pvalue > 1e-3
    np.testing.assert_allclose(np.cov(sparse.T), np.cov(full.T), atol=0.15)
    assert scipy.stats.ks_2samp(largest_laplace(rng, 3000, 3000), rng.laplace(size=3000), method="asymp").pvalue > 1e-3


@pytest.mark.parametrize("share", [0.3, 0.01])
def test_every_pair_is_an_edge_as_often_as_with_noise_on_all_of_them(share):
    draws, rng = 600, np.random.default_rng(1)
    graph = lap_graph(epsilon=2.0, count_share=share).graph
    sparse, full = (np.zeros((draws, NODES, NODES)) for _ in range(2))
    for i in range(draws):
        made = graph(jax.random.key(i), EDGES, NODES)
        sparse[i, made[:, 0], made[:, 1]] = 1
        rows, columns = dense(rng, 2.0, share)
        full[i, rows, columns] = 1
    assert np.abs(sparse.mean(0) - full.mean(0)).max() < 4.5 * np.sqrt(2 * 0.25 / draws)
    is_edge = np.zeros((NODES, NODES), bool)
    is_edge[EDGES[:, 0], EDGES[:, 1]] = True
    kept = [chosen[:, is_edge].sum(1) for chosen in (sparse, full)]
    assert scipy.stats.ks_2samp(*kept, method="asymp").pvalue > 1e-3
    sizes = [chosen.sum((1, 2)) for chosen in (sparse, full)]
    assert scipy.stats.ks_2samp(*sizes, method="asymp").pvalue > 1e-3


@pytest.mark.parametrize(("epsilon", "precision"), [(4.0, 0.070), (6.0, 0.354), (8.0, 0.749)])
def test_precision_on_a_graph_of_coras_size_is_the_expected_one(epsilon, precision):
    nodes, m = 2708, 5278
    edges = np.stack([np.arange(m) % (nodes // 2), nodes // 2 + np.arange(m) // 7], 1).astype(np.int32)
    edges = np.unique(edges, axis=0)
    assert len(edges) == m and edges.max() < nodes
    true, found, size = {tuple(e) for e in edges.tolist()}, 0, 0
    for i in range(4):
        made = lap_graph(epsilon=epsilon).graph(jax.random.key(i), edges, nodes)
        found += sum(tuple(e) in true for e in made.tolist())
        size += len(made)
        assert abs(len(made) - m) < 12 / (0.01 * epsilon)
    assert found / size == pytest.approx(precision, abs=0.01)


def test_a_large_epsilon_gives_the_graph_back():
    np.testing.assert_array_equal(lap_graph(epsilon=1e5).graph(jax.random.key(0), EDGES, NODES), EDGES)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"epsilon": 0.0}, "epsilon: 0.0; legal is finite and above 0"),
        ({"count_share": 0.0}, "count_share: 0.0; legal is between 0 and 1"),
        ({"count_share": 1.0}, "count_share: 1.0"),
    ],
)
def test_illegal_arguments_are_named(arguments, told):
    with pytest.raises(ValueError, match=told):
        lap_graph(**arguments)
