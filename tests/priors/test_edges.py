"""The prior over edges against numpy on whole matrices, and against an independent projection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxmia.priors import edges

NODES = 7


def _graph(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [7, 4] and an adjacency with entries in [0, 1]; the last node has no edge."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.uniform(0, 1, (NODES, NODES)), 1)
    upper[:, -1] = 0
    return rng.normal(size=(NODES, 4)).astype(np.float32), (upper + upper.T).astype(np.float32)


def test_decode_mirrors_the_upper_triangle_and_drops_the_diagonal():
    prior = edges(NODES)
    latent = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (NODES, NODES)), jnp.float32)
    adjacency = np.asarray(prior.decode(latent))
    np.testing.assert_array_equal(adjacency, adjacency.T)
    np.testing.assert_array_equal(np.diagonal(adjacency), 0)
    np.testing.assert_array_equal(np.triu(adjacency, 1), np.triu(np.asarray(latent), 1))
    np.testing.assert_array_equal(prior.decode(prior.init(jax.random.key(0))), 0)


def test_smoothness_is_the_normalized_laplacian_form():
    features, adjacency = _graph()
    degrees = adjacency.sum(1)
    root = np.diag((degrees + 1e-3) ** -0.5)
    wanted = 0.3 * np.trace(features.T @ root @ (np.diag(degrees) - adjacency) @ root @ features)
    prior = edges(NODES, features=features, smoothness=0.3)
    assert float(prior.penalty(jnp.asarray(adjacency), jnp.asarray(adjacency))) == pytest.approx(wanted, rel=1e-5)


def test_smoothness_is_the_sum_over_edges():
    features, adjacency = _graph()
    with np.errstate(divide="ignore"):
        scaled = features * np.where(adjacency.sum(1) > 0, adjacency.sum(1) ** -0.5, 0)[:, None]
    distances = ((scaled[:, None] - scaled[None]) ** 2).sum(-1)
    wanted = (np.triu(adjacency, 1) * distances).sum()
    prior = edges(NODES, features=features, smoothness=1.0, offset=1e-7)
    assert float(prior.penalty(jnp.asarray(adjacency), jnp.asarray(adjacency))) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("norm", [1, 2])
def test_sparsity_is_a_norm_of_the_pairs(norm):
    _, adjacency = _graph()
    pairs = adjacency[np.triu_indices(NODES, 1)]
    penalty = edges(NODES, sparsity=0.7, norm=norm).penalty(jnp.asarray(adjacency), jnp.asarray(adjacency))
    assert float(penalty) == pytest.approx(0.7 * np.linalg.norm(pairs, norm), rel=1e-5)


@pytest.mark.parametrize("norm", [1, 2])
def test_gradient_at_the_empty_graph_is_finite_and_known(norm):
    features, _ = _graph()
    prior = edges(NODES, features=features, smoothness=0.1, sparsity=0.5, norm=norm)
    gradient = jax.grad(lambda latent: prior.penalty(latent, prior.decode(latent)))(jnp.zeros((NODES, NODES)))
    distances = ((features[:, None] - features[None]) ** 2).sum(-1)
    wanted = np.triu(0.1 * distances / 1e-3 + (0.5 if norm == 1 else 0.0), 1)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("budget", [0.5, 3.0, 1000.0])
def test_projection_is_the_nearest_point_of_the_budget(budget):
    latent = np.triu(np.random.default_rng(1).normal(0.4, 1.0, (NODES, NODES)), 1).astype(np.float32)
    upper = np.triu_indices(NODES, 1)
    projected = np.asarray(edges(NODES, budget=budget).project(jnp.asarray(latent)))
    assert 0 <= projected.min() and projected.max() <= 1
    assert projected[upper].sum() <= budget * (1 + 1e-5)
    nearest = minimize(
        lambda a: ((a - latent[upper]) ** 2).sum(),
        np.full(len(upper[0]), 0.01),
        jac=lambda a: 2 * (a - latent[upper]),
        bounds=[(0, 1)] * len(upper[0]),
        constraints={"type": "ineq", "fun": lambda a: budget - a.sum(), "jac": lambda a: -np.ones_like(a)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert nearest.success
    np.testing.assert_allclose(projected[upper], nearest.x, atol=1e-4)


def test_projection_without_a_budget_is_the_box():
    latent = jnp.asarray([[0.0, -0.5], [0.0, 0.0]])
    np.testing.assert_array_equal(edges(2).project(latent), 0)
    np.testing.assert_array_equal(edges(2).project(latent + 1.7), [[1, 1], [1, 1]])


def test_numbers_can_be_traced():
    features, adjacency = _graph()

    def penalty(number):
        prior = edges(NODES, features=features, smoothness=number, sparsity=number, budget=number, offset=number)
        return prior.penalty(prior.project(jnp.asarray(adjacency)), jnp.asarray(adjacency))

    values = jax.vmap(penalty)(jnp.asarray([0.1, 0.2]))
    assert np.all(np.isfinite(values)) and values[0] != values[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 1}, "nodes: 1"),
        ({"nodes": 3, "norm": 3}, "norm: 3"),
        ({"nodes": 3, "smoothness": 0.1}, "features: None"),
        ({"nodes": 3, "features": np.zeros((2, 5), np.float32)}, "features: 2 rows"),
    ],
)
def test_illegal_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        edges(**arguments)
