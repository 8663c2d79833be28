"""GAP's noise against the table of its calibration, the exact curve and a neighbor's likelihood ratio."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from jaxmia.defenses.gap import delta_of, gap, noise_for
from jaxmia.models import GCN
from jaxmia.models.aggregation import Aggregation, HopClassifier

DELTA = 1e-5


@pytest.mark.parametrize(
    ("epsilon", "sigma"), [(0.5, 9.9445), (1.0, 5.2759), (2.0, 2.8197), (4.0, 1.5290), (8.0, 0.8489)]
)
def test_sigma_of_two_hops_is_that_of_the_table(epsilon, sigma):
    assert noise_for(epsilon, DELTA, 2, undirected=False) == pytest.approx(sigma, abs=1e-3)
    assert noise_for(epsilon, DELTA, 2) == pytest.approx(np.sqrt(2) * sigma, abs=1.5e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 30.0])
@pytest.mark.parametrize("hops", [1, 5])
def test_delta_at_that_sigma_is_delta_exactly_and_not_above(epsilon, hops):
    one = noise_for(epsilon, DELTA, hops) / np.sqrt(2 * hops)
    assert DELTA * (1 - 1e-6) < delta_of(one, epsilon) <= DELTA * (1 + 1e-9)


@pytest.mark.parametrize(("sigma", "epsilon"), [(0.7, 1.0), (2.0, 0.5)])
def test_delta_is_the_hockey_stick_divergence_of_two_gaussians(sigma, epsilon):
    grid = np.linspace(-10 * sigma, 10 * sigma + 1, 200_001)
    one, other = (scipy.stats.norm.pdf(grid, mean, sigma) for mean in (0, 1))
    excess = scipy.integrate.trapezoid(np.maximum(other - np.exp(epsilon) * one, 0), grid)
    assert delta_of(sigma, epsilon) == pytest.approx(excess, abs=1e-6)


@pytest.mark.parametrize(("claimed", "true"), [(1.0, 1.47), (2.0, 2.95), (4.0, 5.99), (8.0, 12.3)])
def test_at_the_sensitivity_of_one_direction_an_edge_has_more_than_is_claimed(claimed, true):
    sigma = noise_for(claimed, DELTA, 1, undirected=False) / np.sqrt(2)
    found = scipy.optimize.brentq(lambda epsilon: delta_of(sigma, epsilon) - DELTA, 0, 40)
    assert found == pytest.approx(true, rel=0.01)


def test_the_hook_gives_the_network_its_deviation_by_the_hops_that_it_has():
    defense = gap(epsilon=2.0)
    network = defense.model(Aggregation(jnp.ones((4, 2)), HopClassifier(2), hops=3))
    assert network.deviation(network.hops) == pytest.approx(noise_for(2.0, DELTA, 3))
    assert network.deviation is defense.model(network).deviation  # two such models are equal
    quiet = Aggregation(jnp.ones((4, 2)), HopClassifier(2), hops=3)
    edges = np.array([[0, 1], [2, 3]], np.int32)
    key = jax.random.key(0)
    assert np.abs(network.private(key, edges) - quiet.private(key, edges)).max() > 0.1
    np.testing.assert_allclose(
        gap(epsilon=2.0).model(quiet).private(key, edges), network.private(key, edges), atol=1e-6
    )
    spent = defense.spent
    assert spent is not None and spent(1, 1, 1) == "epsilon 2 for one edge at delta 1e-05"


def test_a_network_without_such_sums_is_refused():
    with pytest.raises(ValueError, match="GCN has no 'deviation' to exchange"):
        gap().model(GCN(4, 2))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"epsilon": 0.0}, "epsilon: 0.0; legal is finite and above 0"),
        ({"delta": 0.0}, "delta: 0.0; legal is between 0 and 1"),
        ({"delta": 1.0}, "delta: 1.0"),
    ],
)
def test_illegal_arguments_are_named(arguments, told):
    with pytest.raises(ValueError, match=told):
        gap(**arguments)


def test_an_illegal_number_of_hops_is_named():
    with pytest.raises(ValueError, match="hops: 0; legal is 1 or more"):
        noise_for(1.0, DELTA, 0)
