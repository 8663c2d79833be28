"""Graph convolution against its definition, and its gradient with respect to the edges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models import GCN, normalize_adjacency


def _graph(n=6, d=4):
    upper = jnp.triu(jax.random.bernoulli(jax.random.key(0), 0.4, (n, n)).astype(jnp.float32), 1)
    return upper + upper.T, jax.random.normal(jax.random.key(1), (n, d))


def test_normalization_is_the_textbook_one():
    adjacency, _ = _graph()
    looped = np.asarray(adjacency, np.float64) + np.eye(6)
    inverse_root = np.diag(looped.sum(1) ** -0.5)
    normalized = normalize_adjacency(adjacency)
    np.testing.assert_allclose(normalized, inverse_root @ looped @ inverse_root, atol=1e-6)
    # The leading eigenvalue of the normalized adjacency is 1, so layers neither blow up nor fade.
    np.testing.assert_allclose(np.linalg.eigvalsh(np.asarray(normalized)).max(), 1.0, atol=1e-6)


def test_isolated_node_keeps_its_own_features():
    adjacency = jnp.zeros((3, 3)).at[0, 1].set(1.0).at[1, 0].set(1.0)
    np.testing.assert_allclose(normalize_adjacency(adjacency)[2], [0.0, 0.0, 1.0])


def test_logits_embedding_and_parameters():
    adjacency, features = _graph()
    module = GCN(hidden=5, classes=3)
    variables = module.init(jax.random.key(2), adjacency, features)
    assert set(variables) == {"params"}
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables)) == 4 * 5 + 5 + 5 * 3 + 3
    logits, sown = module.apply(variables, adjacency, features, train=True, mutable=["features"])
    p = variables["params"]
    normalized = np.asarray(normalize_adjacency(adjacency))
    hidden = np.maximum(normalized @ features @ p["Dense_0"]["kernel"] + p["bias1"], 0)
    np.testing.assert_allclose(sown["features"]["embedding"][0], hidden, atol=1e-5)
    np.testing.assert_allclose(logits, normalized @ hidden @ p["Dense_1"]["kernel"] + p["bias2"], atol=1e-5)


def test_relabeling_the_nodes_relabels_the_logits():
    adjacency, features = _graph()
    module = GCN(hidden=5, classes=3)
    variables = module.init(jax.random.key(2), adjacency, features)
    order = jnp.array([3, 1, 5, 0, 2, 4])
    moved = module.apply(variables, adjacency[order][:, order], features[order])
    np.testing.assert_allclose(moved, module.apply(variables, adjacency, features)[order], atol=1e-5)


@pytest.mark.nightly
def test_gradient_with_respect_to_every_edge():
    with jax.enable_x64(True):
        adjacency, features = (array.astype(jnp.float64) for array in _graph())
        adjacency = 0.1 + 0.8 * adjacency * (1 - jnp.eye(6))  # inside the box, where attacks move
        module = GCN(hidden=5, classes=3)
        variables = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64), module.init(jax.random.key(2), adjacency, features)
        )
        labels = jnp.array([0, 1, 2, 0, 1, 2])

        @jax.jit
        def loss(adjacency):
            logits = module.apply(variables, adjacency, features)
            return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(6), labels])

        gradient = jax.grad(loss)(adjacency)
        step = 1e-6 * jnp.eye(36).reshape(36, 6, 6)
        numeric = jax.vmap(lambda d: (loss(adjacency + d) - loss(adjacency - d)) / 2e-6)(step).reshape(6, 6)
        np.testing.assert_allclose(gradient, numeric, atol=1e-7)
        assert float(jnp.abs(gradient).min()) > 0
