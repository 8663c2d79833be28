"""DeepWalking backwards on a graph of two blocks of 30 nodes, whose NetMF matrix is known at every rank."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from jaxmia.attacks.graph.deepwalk_backwards import deepwalk_backwards
from jaxmia.metrics.graph import link_auc
from jaxmia.models.proximity import netmf
from jaxmia.oracle import Nothing

NODES = 60
UPPER = np.triu_indices(NODES, 1)
BLOCKS = np.arange(NODES) // 30
KEY = jax.random.key(0)


@functools.cache
def graph():
    chance = np.where(BLOCKS[:, None] == BLOCKS, 0.5, 0.05)
    upper = np.triu(np.random.default_rng(0).random((NODES, NODES)) < chance, 1)
    return (upper | upper.T).astype(np.float32)


def process_of(**options):
    return deepwalk_backwards(Nothing(), float(graph().sum()), **options).solve(())


@functools.cache
def descended(rank, steps=50, other=False):
    """Losses and output; `other` publishes the matrix of the graph with its nodes in another order."""
    order = np.random.default_rng(5).permutation(NODES) if other else np.arange(NODES)
    case = {"matrix": netmf(jnp.asarray(graph()[order][:, order]), rank=rank)}
    process = process_of(steps=steps)

    @jax.jit
    def run(case):
        def step(state, t):
            state, told = process.step(KEY, state, case)
            return state, told.loss

        state, losses = jax.lax.scan(step, process.init(KEY, case), jnp.arange(process.steps))
        return losses, process.read(state)

    return jax.device_get(run(case))


def auc(rank, **options):
    return link_auc(descended(rank, **options)[1].scores, graph())


def known_before(rank):
    matrix = np.asarray(netmf(jnp.asarray(graph()), rank=rank), float)
    return link_auc(matrix, graph())


def test_edges_are_found_from_the_whole_matrix_better_than_the_matrix_ranks_them():
    assert auc(NODES) >= 0.995
    assert auc(NODES) >= known_before(NODES) + 0.03
    assert auc(NODES) >= link_auc((BLOCKS[:, None] == BLOCKS).astype(float), graph()) + 0.1


@pytest.mark.nightly
@pytest.mark.parametrize(("rank", "expected"), [(60, 0.998), (16, 0.964), (8, 0.908), (2, 0.824)])
def test_fewer_numbers_tell_fewer_edges(rank, expected):
    """The values are of double precision."""
    assert auc(rank) == pytest.approx(expected, abs=0.003)


def test_the_matrix_of_another_graph_tells_nothing():
    assert abs(auc(NODES, other=True) - 0.5) <= 0.1
    assert descended(NODES, other=True)[0][-1] <= 1e-3  # though it is explained as well


def test_the_loss_falls_to_nearly_nothing_at_full_rank():
    losses, _ = descended(NODES)
    assert losses[-1] <= 2e-4 <= losses[0] / 100


def test_the_loss_is_zero_at_the_true_graph_and_at_no_graph_beside_it():
    matrix = np.asarray(netmf(jnp.asarray(graph()), rank=NODES), float)
    process = process_of()
    start = jax.jit(process.init)(KEY, {"matrix": jnp.asarray(matrix, jnp.float32)})

    def loss(edges):
        logits = jnp.asarray(np.where(edges > 0, 40.0, -40.0), jnp.float32)
        found = np.asarray(process.read(start._replace(logits=logits)).scores)
        np.testing.assert_allclose(found, edges, atol=1e-6)  # no shift moves what is certain
        return np.sum((np.asarray(netmf(jnp.asarray(found), rank=NODES)) - matrix) ** 2) / np.sum(matrix**2)

    moved, (i, j), (k, m) = graph().copy(), np.argwhere(graph() > 0)[0], np.argwhere(graph() == 0)[1]
    moved[i, j] = moved[j, i] = 0
    moved[k, m] = moved[m, k] = 1
    assert loss(graph()) <= 1e-10
    assert loss(moved) >= 1e-4


@pytest.mark.parametrize(("center", "spread"), [(0.0, 1.0), (-12.0, 2.0), (9.0, 3.0), (0.0, 8.0)])
def test_the_shift_keeps_the_volume(center, spread):
    """Against a root finder of scipy, from logits near and far."""
    logits = np.random.default_rng(1).normal(center, spread, (NODES, NODES)).astype(np.float32)
    process, edges = process_of(), graph().sum() / 2
    state = jax.jit(process.init)(KEY, {"matrix": jnp.asarray(graph())})._replace(logits=jnp.asarray(logits))
    scores = np.asarray(process.read(state).scores, float)
    assert scores[UPPER].sum() == pytest.approx(edges, rel=1e-5)
    shift: Any = brentq(lambda s: expit(logits[UPPER].astype(float) + s).sum() - edges, -100, 100, xtol=1e-12)
    np.testing.assert_allclose(scores[UPPER], expit(logits[UPPER].astype(float) + shift), atol=1e-5)


def test_the_first_slope_is_that_of_the_loss_with_the_volume_kept():
    """Finite differences in double precision, whose shift is solved anew for every logit."""
    case = {"matrix": netmf(jnp.asarray(graph()), rank=8)}
    start = jax.jit(process_of().init)(KEY, case)
    matrix, edges = np.asarray(case["matrix"], float), graph().sum() / 2

    def loss(i, j, by):
        x = np.zeros(len(UPPER[0]))
        x[(UPPER[0] == i) & (UPPER[1] == j)] = by
        shift: Any = brentq(lambda s: expit(x + s).sum() - edges, -50, 50, xtol=1e-14)
        a = np.zeros((NODES, NODES))
        a[UPPER] = expit(x + shift)
        a += a.T
        step = a / a.sum(1, keepdims=True)
        walks = sum(np.linalg.matrix_power(step, r) for r in range(1, 11))
        found = np.log(np.maximum(1.0, a.sum() / 10 * walks / a.sum(1)))
        return np.sum((found - matrix) ** 2) / np.sum(matrix**2)

    slope = np.asarray(start.optimizer[2].grad)
    largest = np.argsort(-np.abs(slope[UPPER]))[:3]
    for i, j in zip(UPPER[0][largest], UPPER[1][largest]):
        change = (loss(i, j, 1e-3) - loss(i, j, -1e-3)) / 2e-3
        assert slope[i, j] == pytest.approx(change, rel=0.02)
    np.testing.assert_array_equal(np.tril(slope), 0.0)


def test_the_graph_holds_the_pairs_of_largest_score():
    found = descended(16)[1]
    assert set(np.unique(found.graph)) == {0, 1}
    assert found.graph.sum() == graph().sum()
    linked = found.graph[UPPER] > 0
    assert found.scores[UPPER][linked].min() >= found.scores[UPPER][~linked].max()
    for matrix in found:
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(np.diagonal(matrix), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window: 0; legal is 1 or more"),
        ({"memory": 0}, "memory: 0; legal is 1 or more"),
        ({"volume": 0.0}, "volume: 0.0; legal is above 0"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        deepwalk_backwards(Nothing(), **({"volume": 10.0} | options))
