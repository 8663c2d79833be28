"""Aggregates against loops over neighbors, noise once and out of sight of who asks, and GAP's network as it is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import engine, train
from jaxmia.models.aggregation import Aggregation, HopClassifier, HopEncoder, aggregates, unit_rows
from jaxmia.oracle import sown_features

KEY = jax.random.key(0)
NODES, CLASSES = 40, 2
RNG = np.random.default_rng(0)
LABELS = np.arange(NODES) % CLASSES
LINKED = np.triu(RNG.random((NODES, NODES)) < np.where(LABELS[:, None] == LABELS, 0.3, 0.02), 1)
LINKED[:, 39] = LINKED[39] = False  # a node without neighbors
EDGES = np.argwhere(LINKED).astype(np.int32)
ADJACENCY = (LINKED | LINKED.T).astype(np.float32)
X = (RNG.normal(size=(NODES, 6)) + LABELS[:, None] * 0.4).astype(np.float32)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def test_aggregates_without_noise_are_sums_over_neighbors_of_unit_rows():
    x = unit(X.astype(np.float64))
    stack = [x]
    for _ in range(3):
        total = np.stack([sum((x[j] for j in np.flatnonzero(ADJACENCY[i])), np.zeros(6)) for i in range(NODES)])
        x = unit(total)
        stack.append(x)
    network = Aggregation(jnp.asarray(X), HopClassifier(CLASSES), hops=3)
    np.testing.assert_allclose(network.private(KEY, EDGES), stack, atol=1e-5)
    np.testing.assert_allclose(aggregates(jnp.asarray(X), lambda x: ADJACENCY @ x, 3), stack, atol=1e-5)
    assert not np.any(stack[1][39])


def test_noise_has_the_deviation_and_comes_before_the_rows_are_scaled():
    network = Aggregation(jnp.zeros((500, 8)), HopClassifier(CLASSES), hops=2, deviation=lambda hops: 3.0 + hops)
    x1 = np.asarray(network.private(KEY, np.zeros((0, 2), np.int32)))[1:]
    np.testing.assert_allclose(np.linalg.norm(x1, axis=-1), 1, atol=1e-5)  # of nothing but noise
    assert abs(np.mean(x1[0] * x1[1])) < 0.02  # each hop its own
    sums = jnp.full((500, 8), 10.0)
    _, noisy = aggregates(jnp.ones((500, 8)), lambda x: sums, 1, key=KEY, deviation=5.0)
    raw = 10 + 5 * jax.random.normal(jax.random.fold_in(KEY, 0), (500, 8))
    np.testing.assert_allclose(noisy, unit(np.asarray(raw)), atol=1e-5)


def test_one_edge_moves_two_rows_of_a_sum_by_a_norm_of_at_most_one_each():
    """The sensitivity of an undirected edge: the root of two."""
    x, worst = np.asarray(unit_rows(jnp.asarray(X))), 0.0
    for i, j in ((0, 1), (3, 20), (39, 5)):
        more = ADJACENCY.copy()
        more[i, j] = more[j, i] = 1 - more[i, j]
        moved = (more - ADJACENCY) @ x
        assert (np.abs(moved).sum(1) > 0).sum() == 2
        worst = max(worst, np.linalg.norm(moved))
    assert worst == pytest.approx(np.sqrt(2), abs=1e-5)


def test_who_asks_about_a_graph_of_their_own_meets_no_noise_and_rows_have_a_gradient():
    quiet = Aggregation(jnp.asarray(X), HopClassifier(CLASSES))
    noisy = quiet.clone(deviation=lambda hops: 10.0)
    one = jnp.asarray(ADJACENCY)
    variables = jax.jit(quiet.init)(KEY, one[None])
    asked = jax.jit(quiet.apply)(variables, one[None])
    np.testing.assert_array_equal(asked, jax.jit(noisy.apply)(variables, one[None]))
    np.testing.assert_allclose(asked[0], jax.jit(quiet.apply)(variables, one), atol=1e-5)
    assert np.abs(noisy.private(KEY, EDGES) - quiet.private(KEY, EDGES)).max() > 0.5
    by_edges = jax.jit(jax.grad(lambda a: jnp.sum(quiet.apply(variables, a) ** 2)))(jnp.zeros((NODES, NODES)))
    by_rows = jax.grad(lambda x: jnp.sum(unit_rows(x)))(jnp.zeros((2, 3)))
    assert np.isfinite(by_edges).all() and np.isfinite(by_rows).all() and np.abs(by_edges).max() > 0


def _fitted(module, x):
    """Variables of a training on the labels of 16 nodes."""

    def loss(outputs, batch):
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch["y"])
        return jnp.mean(losses[:, :16])

    process = train.supervised(module, optax.adam(0.02), steps=60, loss=loss)
    batch = {"x": x[None], "y": LABELS[None].astype(np.int32)}
    return engine.fit(process, KEY, lambda step: batch, plan=engine.Plan(progress=False))[0]


def _accuracy(encoded, deviation):
    """Sums once, and a classifier of these; on nodes without a label in training."""
    network = Aggregation(encoded, HopClassifier(CLASSES, width=8), hops=2, deviation=lambda hops: deviation)
    private = network.private(jax.random.key(7), EDGES)
    variables = _fitted(network.classifier, private)
    told = jax.jit(network.classifier.apply)(variables, private[None])[0]
    whole = {kind: {"classifier": leaves} for kind, leaves in variables.items()}
    if deviation == 0:  # the same network from its own graph, as it is served
        np.testing.assert_allclose(jax.jit(network.apply)(whole, jnp.asarray(ADJACENCY)[None])[0], told, atol=1e-4)
    return float(np.mean(np.argmax(told, 1)[16:39] == LABELS[16:39]))


@pytest.mark.nightly
def test_the_network_learns_from_its_graph_and_noise_takes_the_graph_away():
    encoder, x = HopEncoder(CLASSES, width=8), jnp.asarray(X)
    _, sown = encoder.apply(_fitted(encoder, x), x[None], mutable=["features"])
    encoded = sown_features(sown)["encoded"][0]
    np.testing.assert_allclose(np.linalg.norm(encoded, axis=1), 1, atol=1e-5)
    assert _accuracy(encoded, 0.0) >= 0.9
    assert _accuracy(encoded, 100.0) < 0.8
