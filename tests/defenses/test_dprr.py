"""DPRR: what each user says against rows of bits, expected degrees, and the two ways of joining."""

import jax
import numpy as np
import pytest

from jaxmia.defenses.dprr import dprr, kept_share

NODES = 14
EDGES = np.array([[0, k] for k in range(1, 9)] + [[2, 3], [5, 9], [9, 13], [11, 12]], np.int32)
EPSILON, DEGREE = 3.0, 1.0


def rows_of_bits(rng, lower):
    """The mechanism as it is written, on a dense adjacency."""
    adjacency = np.zeros((NODES, NODES), bool)
    adjacency[EDGES[:, 0], EDGES[:, 1]] = adjacency[EDGES[:, 1], EDGES[:, 0]] = True
    degree = adjacency.sum(1) + rng.laplace(scale=1 / DEGREE, size=NODES)
    degree = np.clip(degree, 0, NODES - 1)
    p = np.exp(EPSILON - DEGREE) / (1 + np.exp(EPSILON - DEGREE))
    keep = np.minimum(degree / (degree * (2 * p - 1) + (NODES - 1) * (1 - p)), 1)
    said = adjacency ^ (rng.random((NODES, NODES)) < 1 - p)
    said &= rng.random((NODES, NODES)) < keep[:, None]
    np.fill_diagonal(said, False)
    if lower:
        said = np.tril(said)
    return np.triu(said | said.T)


@pytest.mark.parametrize("lower", [False, True])
def test_every_pair_is_an_edge_as_often_as_with_rows_of_bits(lower):
    draws, rng = 300, np.random.default_rng(0)
    graph = dprr(epsilon=EPSILON, degree_epsilon=DEGREE, lower=lower).graph
    sparse, dense = np.zeros((NODES, NODES)), np.zeros((NODES, NODES))
    for i in range(draws):
        made = graph(jax.random.key(i), EDGES, NODES)
        sparse[made[:, 0], made[:, 1]] += 1
        dense += rows_of_bits(rng, lower)
    assert np.abs(sparse - dense).max() / draws < 4.5 * np.sqrt(2 * 0.25 / draws)
    assert abs(sparse.sum() - dense.sum()) / draws < 0.9
    assert dense.sum() > 3 * draws  # there is something to compare


def test_a_row_expects_as_many_entries_as_the_noisy_degree():
    degree, p, nodes = np.array([1.0, 7.5, 40.0]), 0.9, 300
    q = kept_share(degree, nodes, p)
    assert (q < 1).all()
    for d in (degree,):
        np.testing.assert_allclose(q * (d * p + (nodes - 1 - d) * (1 - p)), d, rtol=1e-12)


def test_a_degree_below_zero_keeps_nothing_and_one_that_is_too_large_everything():
    np.testing.assert_array_equal(kept_share(np.array([-500.0, 0.0, 1e6]), 30, 0.9), [0, 0, 1])
    np.testing.assert_array_equal(kept_share(np.array([-1.0, 3.0]), 30, 1.0), [0, 1])


def test_degrees_are_kept_about_and_twice_over_where_both_ends_are_asked():
    nodes = 400
    rng = np.random.default_rng(3)
    edges = np.unique(np.sort(rng.choice(nodes, (1300, 2)), 1), axis=0)
    edges = edges[edges[:, 0] < edges[:, 1]].astype(np.int32)
    sizes = {lower: [] for lower in (False, True)}
    for lower, found in sizes.items():
        for i in range(6):
            found.append(len(dprr(epsilon=3.0, degree_epsilon=1.0, lower=lower).graph(jax.random.key(i), edges, nodes)))
    assert np.mean(sizes[True]) == pytest.approx(len(edges), rel=0.1)
    assert 1.5 * len(edges) < np.mean(sizes[False]) < 2.1 * len(edges)


def test_a_large_epsilon_gives_the_graph_back():
    for lower in (False, True):
        made = dprr(epsilon=120.0, degree_epsilon=60.0, lower=lower).graph(jax.random.key(0), EDGES, NODES)
        kept = {tuple(e) for e in made.tolist()} & {tuple(e) for e in EDGES.tolist()}
        assert len(made) == len(kept) >= 0.8 * len(EDGES)  # a degree that is drawn a little low loses an entry


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"epsilon": 0.0}, "epsilon: 0.0; legal is finite and above 0"),
        ({"degree_epsilon": -1.0}, "degree_epsilon: -1.0; legal is finite and above 0"),
    ],
)
def test_illegal_arguments_are_named(arguments, told):
    with pytest.raises(ValueError, match=told):
        dprr(**arguments)


def test_a_budget_that_the_degree_uses_up_is_refused():
    with pytest.raises(ValueError, match="degree_epsilon: 0.784 of 14 nodes; legal is below epsilon, 0.5"):
        dprr(epsilon=0.5).graph(jax.random.key(0), EDGES, NODES)


def test_what_is_spent_counts_both_ends_of_an_edge():
    spent = dprr(epsilon=3.0).spent
    assert spent is not None
    assert spent(1, 1, 1) == "epsilon 3 for one entry of one list of neighbors, and at most 6 for one edge"
