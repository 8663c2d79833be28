"""NetMF against its definition in double precision: powers of P one after another, and eigenvectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models.proximity import netmf, walk_proximity


def graph(n=30, seed=0, density=0.15):
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < density, 1)
    return (upper | upper.T).astype(float)


def connected(n=30, seed=0, density=0.15):
    return np.maximum(graph(n, seed, density), np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0))


def by_definition(a, window):
    """log max(1, vol / T * sum of P^r D^-1), P = D^-1 A."""
    degrees = a.sum(1)
    inverse = np.diag(np.divide(1.0, degrees, out=np.zeros_like(degrees), where=degrees > 0))
    step = inverse @ a
    walks = sum(np.linalg.matrix_power(step, r) for r in range(1, window + 1))
    return np.log(np.maximum(1.0, degrees.sum() / window * walks @ inverse))


def by_spectrum(a, window):
    """1 + vol / T * D^-1/2 V diag(l (1 - l^T) / (1 - l)) V' D^-1/2 over all eigenvalues but 1, of a connected graph."""
    degrees = a.sum(1)
    root = np.diag(degrees**-0.5)
    values, vectors = np.linalg.eigh(root @ a @ root)
    rest, v = values[:-1], vectors[:, :-1]
    inner = (v * (rest * (1 - rest**window) / (1 - rest))) @ v.T
    return np.log(np.maximum(1.0, 1.0 + degrees.sum() / window * root @ inner @ root))


def test_the_two_references_are_the_same_matrix():
    np.testing.assert_allclose(by_definition(connected(), 10), by_spectrum(connected(), 10), atol=1e-12)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 7, 10])
@pytest.mark.parametrize("form", ["powers", "spectrum"])
def test_both_forms_are_the_definition(form, window):
    found = walk_proximity(jnp.asarray(connected(), jnp.float32), window, form=form)
    np.testing.assert_allclose(found, by_definition(connected(), window), atol=2e-5)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("form", ["powers", "spectrum"])
def test_nodes_without_edges_and_graphs_in_two_parts(form):
    """Eigenvalue 1 occurs twice, where the closed form of the sum is 0 / 0."""
    apart = np.zeros((21, 21))
    apart[:10, :10], apart[10:20, 10:20] = connected(10), connected(10, 1)
    found = walk_proximity(jnp.asarray(apart, jnp.float32), form=form)
    np.testing.assert_allclose(found, by_definition(apart, 10), atol=2e-5)
    np.testing.assert_array_equal(found[20], 0.0)


@pytest.mark.parametrize("rank", [1, 4, 29])
def test_low_rank_is_the_nearest_matrix_of_that_rank(rank):
    whole = by_definition(connected(), 10)
    values = np.sort(np.abs(np.linalg.eigvalsh(whole)))[::-1]
    found = np.asarray(netmf(jnp.asarray(connected(), jnp.float32), rank=rank), float)
    assert np.linalg.matrix_rank(found, tol=1e-3) == rank
    assert np.linalg.norm(whole - found) == pytest.approx(np.linalg.norm(values[rank:]), abs=1e-3)  # Eckart and Young
    np.testing.assert_array_equal(found, found.T)


def test_full_rank_is_the_whole_matrix():
    adjacency = jnp.asarray(connected(), jnp.float32)
    np.testing.assert_array_equal(netmf(adjacency, rank=128), walk_proximity(adjacency))


def test_slope_is_that_of_the_definition_at_a_relaxed_graph():
    rng = np.random.default_rng(3)
    upper = np.triu(rng.uniform(0.1, 0.9, (8, 8)), 1)
    relaxed, weights = upper + upper.T, rng.normal(size=(8, 8))
    slope = jax.grad(lambda a: jnp.sum(weights * walk_proximity(a)))(jnp.asarray(relaxed, jnp.float32))
    for i, j in ((0, 1), (2, 5), (3, 7)):
        moved = np.zeros((8, 8))
        moved[i, j] = moved[j, i] = 1e-5
        change = np.sum(weights * (by_definition(relaxed + moved, 10) - by_definition(relaxed - moved, 10))) / 2e-5
        assert float(slope[i, j] + slope[j, i]) == pytest.approx(change, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: walk_proximity(a, 0), "window: 0; legal is 1 or more"),
        (lambda a: walk_proximity(a, form="series"), "form: 'series'; legal is powers or spectrum"),
        (lambda a: netmf(a, rank=0), "rank: 0; legal is 1 or more"),
    ],
)
def test_illegal_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((3, 3)))
