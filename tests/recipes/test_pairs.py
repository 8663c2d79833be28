"""Features of pairs of nodes, against scipy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import entropy as shannon

from jaxmia.recipes import pairs

RNG = np.random.default_rng(0)
POSTERIORS = RNG.dirichlet(np.ones(5), 12)
ROWS = {
    "posteriors": POSTERIORS,
    "features": (RNG.random((12, 30)) < 0.3).astype(float) * (np.arange(12) > 1)[:, None],  # two nodes without any
    "numbers": RNG.normal(size=(12, 7)),
    "alike": np.tile(POSTERIORS[0], (4, 1)),
    "without_correlation": np.concatenate([np.full((2, 4), 0.25), np.eye(4)]),
}


def both_ways(fn, rows):
    nodes = jax.vmap(pairs.vector)(jnp.asarray(rows, jnp.float32))
    return np.asarray(jax.jit(jax.vmap(jax.vmap(fn, (None, 0)), (0, None)))(nodes, nodes))


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_distances_are_those_of_scipy_and_zero_where_they_are_not_defined(rows):
    found = both_ways(pairs.distances, rows)
    for k, name in enumerate(pairs.DISTANCES):
        with np.errstate(invalid="ignore", divide="ignore"):
            wanted = np.nan_to_num(cdist(rows, rows, name))
        # scipy takes one vector less than 1e-16 long for defined, float32 does not hold it.
        if name == "correlation":
            wanted[np.ptp(rows, axis=1) < 1e-12] = wanted[:, np.ptp(rows, axis=1) < 1e-12] = 0
        np.testing.assert_allclose(found[..., k], wanted, rtol=1e-5, atol=2e-6, err_msg=name)
        np.testing.assert_array_equal(found[..., k], found[..., k].T)
        one = both_ways(functools.partial(pairs.distance, name), rows[:3])
        np.testing.assert_allclose(one, wanted[:3, :3], rtol=1e-5, atol=2e-6)


def test_the_angle_of_near_vectors_keeps_its_digits():
    """1 - cos of float32 would be 0 or 6e-8 here."""
    rows = np.array([[0.4, 0.3, 0.3], [0.4 + 1e-4, 0.3 - 1e-4, 0.3], [0.4 + 2e-4, 0.3 - 1e-4, 0.3 - 1e-4]])
    rows = rows.astype(np.float32).astype(float)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    wanted = np.sum((units[:, None] - units[None]) ** 2, -1) / 2
    upper = np.triu_indices(3, 1)
    assert wanted[upper].max() < 1e-7
    found = both_ways(functools.partial(pairs.distance, "cosine"), rows)
    np.testing.assert_allclose(found[upper], wanted[upper], rtol=0.02)


def test_operations_and_entropies_are_their_formulas():
    u, v = (jnp.asarray(row, jnp.float32) for row in POSTERIORS[:2])
    a, b = POSTERIORS[:2]
    wanted = np.concatenate([(a + b) / 2, a * b, abs(a - b), (a - b) ** 2])
    np.testing.assert_allclose(pairs.operations(u, v), wanted, rtol=1e-5)
    np.testing.assert_array_equal(pairs.operations(u, v), pairs.operations(v, u))
    assert float(pairs.entropy(u)) == pytest.approx(shannon(a), abs=1e-3)
    assert float(pairs.entropy(jnp.asarray([1.0, 0.0]))) == pytest.approx(1e-5 * (5 * np.log(10) - 1), rel=1e-2)


def test_an_unknown_distance_is_named():
    with pytest.raises(ValueError, match="distance: 'hamming'; legal is one of cosine, euclidean"):
        pairs.distance("hamming", pairs.vector(jnp.ones(2)), pairs.vector(jnp.ones(2)))


@pytest.mark.parametrize("n", [2, 9])
def test_every_pair_is_scored_once_and_mirrored(n):
    x = jnp.asarray(RNG.normal(size=(n, 3)), jnp.float32)
    found = np.asarray(pairs.every_pair(lambda u, v: jnp.sum(2 * u[0] - v[0]) + u[1], (x, jnp.arange(n) * 1.0)))
    sums = np.asarray(x).sum(1)
    wanted = np.triu(2 * sums[:, None] - sums + np.arange(n)[:, None], 1)
    np.testing.assert_allclose(found, wanted + wanted.T, rtol=1e-5, atol=1e-5)


def test_some_pairs_are_those_named_in_their_order():
    x = jnp.asarray(RNG.normal(size=(40, 3)), jnp.float32)
    named = RNG.integers(0, 40, (pairs.PAIRS + 3, 2))  # more than one slice
    found = pairs.some_pairs(lambda u, v: u - 3 * v, x, named)
    np.testing.assert_allclose(found, np.asarray(x)[named[:, 0]] - 3 * np.asarray(x)[named[:, 1]], rtol=1e-6)
