"""ExplainSim on explanations of a graph convolution whose graph has nothing to do with its features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxmia import Outputs, Plan, solve
from jaxmia.attacks.graph.explain_sim import explain_sim
from jaxmia.metrics.graph import link_auc
from jaxmia.models.graph import GCN, normalize_adjacency
from jaxmia.models.graph_explanations import gradient_input, mask_gradient
from jaxmia.oracle import Nothing

NODES, WORDS = 50, 60
RNG = np.random.default_rng(0)
LINKED = np.triu(RNG.random((NODES, NODES)) < 0.06, 1)
A = (LINKED | LINKED.T).astype(np.float32)
X = jnp.asarray(RNG.random((NODES, WORDS)) < 0.1, jnp.float32)
MODULE = GCN(hidden=16, classes=3)
VARIABLES = jax.jit(MODULE.init)(jax.random.key(0), jnp.asarray(A), X)


def similarity(explanation):
    process = explain_sim(Nothing()).solve(())
    assert process.steps == 0
    return np.asarray(process.read(process.init(jax.random.key(0), {"explanation": jnp.asarray(explanation)})))


@functools.partial(jax.jit, static_argnums=0)
def explained(explain, adjacency=A):
    return explain(lambda x: Outputs(MODULE.apply(VARIABLES, jnp.asarray(adjacency), x), {}), X)


def test_scores_are_the_cosines():
    rows = RNG.normal(size=(20, 7)).astype(np.float32)
    found = similarity(rows)
    np.testing.assert_allclose(found, (1 - cdist(rows, rows, "cosine")) * (1 - np.eye(20)), atol=1e-5)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diagonal(found), 0)


def test_a_row_of_zeros_is_like_nothing_and_tiny_rows_are_rows():
    rows = np.array([[0, 0], [1e-25, 0], [3, 0], [0, 5]], np.float32)
    np.testing.assert_allclose(similarity(rows), [[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(("explain", "margin"), [(mask_gradient, 0.3), (gradient_input, 0.2)])
def test_explanations_tell_edges_that_features_do_not(explain, margin):
    features = link_auc(similarity(X), A)
    found = link_auc(similarity(explained(explain)), A)
    assert features <= 0.6
    assert found >= features + margin
    order = np.random.default_rng(1).permutation(NODES)
    control = similarity(explained(explain, A[order][:, order]))
    assert link_auc(control, A) <= 0.6 <= link_auc(control, A[order][:, order])


def test_the_neighborhoods_words_need_no_network():
    """The mechanism: cos(A' X) finds what the explanations find, and more."""
    words = link_auc(similarity(normalize_adjacency(jnp.asarray(A)) @ X), A)
    assert words >= link_auc(similarity(explained(mask_gradient)), A)


def test_the_engine_asks_nothing():
    process = explain_sim(Nothing()).solve(())
    rows = np.asarray(explained(mask_gradient))[None]
    plan = Plan(devices=(jax.devices()[0],), progress=False)
    result = solve(process, jax.random.key(0), {"explanation": rows}, steps=0, plan=plan)
    np.testing.assert_array_equal(result.info.queries, [0])
    np.testing.assert_allclose(result.output[0], similarity(rows[0]), atol=1e-6)
