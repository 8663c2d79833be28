"""The homophily of a relaxed graph against loops over pairs and over paths of two steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.priors.edges import edges
from jaxmia.priors.homophily import homophily

NODES = 7
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(NODES, 4)).astype(np.float32)
FEATURES[2] = 0  # a node without features


def relaxed(seed: int = 1) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).uniform(0, 1, (NODES, NODES)), 1)
    return (upper + upper.T).astype(np.float32)


def unit(row):
    size = np.linalg.norm(row)
    return row / size if size else row


def first_by_hand(adjacency):
    pairs = [(i, j) for i in range(NODES) for j in range(NODES)]
    apart = sum(adjacency[i, j] * np.sum((unit(FEATURES[i]) - unit(FEATURES[j])) ** 2) for i, j in pairs)
    return apart / adjacency.sum()


def second_by_hand(adjacency):
    alike = total = 0.0
    for i in range(NODES):
        for j in range(NODES):
            if i != j:
                paths = sum(adjacency[i, k] * adjacency[k, j] for k in range(NODES))
                alike += paths * unit(FEATURES[i]) @ unit(FEATURES[j])
                total += paths
    return 1 - alike / total


def penalty(adjacency, **weights) -> float:
    prior = homophily(NODES, FEATURES, **{"first": 0.0, "second": 0.0} | weights)
    return float(prior.penalty(jnp.asarray(adjacency), jnp.asarray(adjacency)))


def test_first_order_is_the_mean_distance_of_neighbors():
    assert penalty(relaxed(), first=0.7) == pytest.approx(0.7 * first_by_hand(relaxed()), rel=1e-5)


def test_second_order_is_over_paths_of_two_steps():
    assert penalty(relaxed(), second=0.7) == pytest.approx(0.7 * second_by_hand(relaxed()), rel=1e-5)


def test_both_say_which_edges_and_not_how_many():
    for weights in ({"first": 1.0}, {"second": 1.0}):
        assert penalty(relaxed(), **weights) == pytest.approx(penalty(0.3 * relaxed(), **weights), rel=1e-4)


def test_a_graph_without_edges_costs_nothing_and_is_no_wall():
    prior = homophily(NODES, FEATURES)
    value, slope = jax.value_and_grad(lambda latent: prior.penalty(latent, prior.decode(latent)))(jnp.zeros((7, 7)))
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    one = np.zeros((NODES, NODES))
    one[0, 1] = one[1, 0] = 0.5  # an edge, and no path of two steps between different nodes
    assert penalty(one, second=1.0) == pytest.approx(0, abs=1e-6)


def test_slope_is_a_finite_difference():
    prior = homophily(NODES, FEATURES, first=1.0, second=1.0)

    def cost(latent):
        return prior.penalty(latent, prior.decode(latent))

    latent = np.triu(relaxed(), 1)
    slope = jax.grad(cost)(jnp.asarray(latent))
    for i, j in ((0, 1), (3, 5)):
        bump = np.zeros_like(latent)
        bump[i, j] = 1e-2
        rise = float(cost(jnp.asarray(latent + bump)) - cost(jnp.asarray(latent - bump))) / 2e-2
        assert float(slope[i, j]) == pytest.approx(rise, rel=0.02, abs=1e-4)


def test_start_decoding_and_projection_are_those_of_edges():
    ours, plain = homophily(NODES, FEATURES, budget=2.0), edges(NODES, budget=2.0)
    latent = jnp.asarray(relaxed(2) * 2 - 0.5)
    np.testing.assert_array_equal(ours.project(latent), plain.project(latent))
    np.testing.assert_array_equal(ours.decode(latent), plain.decode(latent))
    np.testing.assert_array_equal(ours.init(jax.random.key(0)), 0)


def test_features_of_other_nodes_are_refused():
    with pytest.raises(ValueError, match="features: 7 rows"):
        homophily(3, FEATURES)
