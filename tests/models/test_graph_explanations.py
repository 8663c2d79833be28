"""Explanations of all nodes against their closed form for a graph convolution, and against a mask taken node by node."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Outputs, Target
from jaxmia.models import graph_explanations
from jaxmia.models.graph import GCN, normalize_adjacency
from jaxmia.models.graph_explanations import gradient_input, mask_gradient

NODES, WORDS, CLASSES = 15, 9, 3
RNG = np.random.default_rng(0)
LINKED = np.triu(RNG.random((NODES, NODES)) < 0.2, 1)
A = (LINKED | LINKED.T).astype(np.float32)
X = jnp.asarray(RNG.normal(size=(NODES, WORDS)), jnp.float32)
MODULE = GCN(hidden=6, classes=CLASSES)
VARIABLES = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(MODULE.init)(jax.random.key(0), jnp.asarray(A), X))


def model(x):
    return Outputs(MODULE.apply(VARIABLES, jnp.asarray(A), x), {})


def closed_form():
    """G_i = P_i - onehot; e_i = |sum over u of A'_iu (A' X)_u * (W1 [relu'_u * (W2 G_i)])|, in double precision."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), VARIABLES["params"])
    spread = np.asarray(normalize_adjacency(jnp.asarray(A)), np.float64)
    near = spread @ np.asarray(X, np.float64)
    before = near @ params["Dense_0"]["kernel"] + params["bias1"]
    logits = spread @ np.maximum(before, 0) @ params["Dense_1"]["kernel"] + params["bias2"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    g = p / p.sum(1, keepdims=True) - np.eye(CLASSES)[logits.argmax(1)]
    rows = np.zeros((NODES, WORDS))
    for i in range(NODES):
        for u in range(NODES):
            back = params["Dense_0"]["kernel"] @ ((before[u] > 0) * (params["Dense_1"]["kernel"] @ g[i]))
            rows[i] += spread[i, u] * near[u] * back
    return np.abs(rows)


def loss(x, i):
    logits = model(x).logits[i]
    return -jax.nn.log_softmax(logits)[jnp.argmax(logits)]


def test_mask_gradient_is_its_closed_form_for_a_graph_convolution():
    np.testing.assert_allclose(jax.jit(lambda x: mask_gradient(model, x))(X), closed_form(), atol=1e-5)


def test_mask_gradient_is_that_of_a_mask_of_ones_node_by_node():
    one = jax.jit(lambda i: jnp.abs(jax.grad(lambda mask: loss(X * mask, i))(jnp.ones(WORDS))))
    np.testing.assert_allclose(mask_gradient(model, X), [one(i) for i in range(NODES)], atol=1e-5)


def test_gradient_input_is_that_of_each_nodes_own_loss():
    one = jax.jit(lambda i: jnp.mean(jnp.abs(X * jax.grad(loss)(X, i)), 0))
    np.testing.assert_allclose(gradient_input(model, X), [one(i) for i in range(NODES)], atol=1e-5)


@pytest.mark.parametrize("explain", [mask_gradient, gradient_input])
def test_slices_change_nothing(explain, monkeypatch):
    whole = explain(model, X)
    monkeypatch.setattr(graph_explanations, "SLICE", 4 * X.size)  # neither 9 nor 15 is a multiple of four
    np.testing.assert_allclose(explain(model, X), whole, atol=1e-6)


def test_an_explanation_reaches_as_far_as_the_network():
    """A word of one node is in the explanations of the nodes within two hops, and in no other."""
    path = jnp.eye(6, k=1) + jnp.eye(6, k=-1)
    one = jnp.zeros((6, 4)).at[0, 2].set(1.0)
    module = GCN(hidden=6, classes=CLASSES)
    variables = module.init(jax.random.key(1), path, one)
    found = mask_gradient(lambda x: Outputs(module.apply(variables, path, x), {}), one)
    np.testing.assert_array_equal(np.argwhere(np.asarray(found) > 0), [[0, 2], [1, 2], [2, 2]])


@pytest.mark.parametrize("explain", [mask_gradient, gradient_input])
def test_a_target_serves_it_with_its_scores(explain):
    target = Target(lambda params, x: model(x), {}, classes=CLASSES, granted=Access.SCORES)
    told = target.explained(explain).view(Access.SCORES).answer(jax.random.key(0), X)
    np.testing.assert_allclose(told["explanation"], explain(model, X), atol=1e-6)
    np.testing.assert_allclose(told["scores"], jax.nn.softmax(model(X).logits), atol=1e-6)
