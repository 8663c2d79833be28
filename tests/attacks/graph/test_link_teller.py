"""LinkTeller against influences that are known: of linear graph convolutions in closed form, of others by derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path

from jaxmia import Access, Outputs, Plan, Target, ThreatModelError, solve
from jaxmia.attacks.graph.link_teller import link_teller
from jaxmia.defenses.rounding import rounding
from jaxmia.metrics.graph import link_auc, link_precision
from jaxmia.models.graph import GCN, normalize_adjacency
from tests.compiling import as_users_do

KEY = jax.random.key(0)
ONE = Plan(devices=(jax.devices()[0],), progress=False)
NODES = 34
LINKED = np.triu(np.random.default_rng(3).random((NODES, NODES)) < 0.08, 1)
A = (LINKED | LINKED.T).astype(np.float32)
X = jnp.asarray(np.random.default_rng(0).normal(size=(NODES, 6)), jnp.float32)
W = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
SPREAD = np.asarray(normalize_adjacency(jnp.asarray(A)), np.float64)
HOPS = shortest_path(A, unweighted=True)
MODULE = GCN(hidden=8, classes=3)
VARIABLES = jax.jit(MODULE.init)(jax.random.key(1), jnp.asarray(A), X)
OFF = ~np.eye(NODES, dtype=bool)


def served(logits, **options):
    """A target of node features that answers probabilities."""
    return Target(lambda params, x: Outputs(logits(x), {}), {}, classes=3, granted=Access.SCORES, **options)


def linear(hops):
    return lambda x: jnp.asarray(np.linalg.matrix_power(SPREAD, hops), jnp.float32) @ (x @ W)


def relu_network(x):
    """Two layers whose weights are drawn."""
    return MODULE.apply(VARIABLES, jnp.asarray(A), x)


def rows(target, features=X, nodes=np.arange(NODES), **options):
    """`[nodes, n]`, row v the influences of node v."""
    process = link_teller(target.view(Access.SCORES), features, **options).solve(())
    return jax.jit(jax.vmap(lambda v: process.init(KEY, {"node": v})))(nodes)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_a_linear_network_gives_its_closed_form(hops):
    """|(A'^k)_vu| |x_v W|, of scores that are logits less their mean: W less the mean of its rows."""
    found = rows(served(linear(hops)), delta=0.1).scores
    centered = np.asarray(W, np.float64) - W.mean(1, keepdims=True)
    wanted = np.abs(np.linalg.matrix_power(SPREAD, hops)) * np.linalg.norm(np.asarray(X) @ centered, axis=1)[:, None]
    np.testing.assert_allclose(found[OFF], wanted[OFF], rtol=1e-3, atol=1e-4)
    logits = served(linear(hops), serve=lambda outputs: outputs.logits, answers="anything")
    raw = rows(logits, delta=0.1, transform="none").scores
    wanted = np.abs(np.linalg.matrix_power(SPREAD, hops)) * np.linalg.norm(np.asarray(X) @ W, axis=1)[:, None]
    np.testing.assert_allclose(raw[OFF], wanted[OFF], rtol=1e-3, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize(("transform", "seen"), [("log", jax.nn.log_softmax), ("none", jax.nn.softmax)])
def test_a_network_with_relus_gives_the_derivative(transform, seen):
    """At the paper's delta, in float32: the difference is that of a directional derivative to a few hundredths."""

    def derivative(v):
        _, moved = jax.jvp(lambda x: seen(relu_network(x)), (X,), (jnp.zeros_like(X).at[v].set(X[v]),))
        return jnp.linalg.norm(moved - jnp.mean(moved, 1, keepdims=True), axis=1)

    wanted = np.asarray(jax.vmap(derivative)(jnp.arange(NODES)))
    found = np.asarray(rows(served(relu_network), transform=transform).scores)
    large = OFF & (wanted > 0.05 * wanted[OFF].max())
    assert large.sum() > 100
    assert np.median(np.abs(found[large] / wanted[large] - 1)) <= 0.03
    closer = np.asarray(rows(served(relu_network), transform=transform, delta=1e-2).scores)
    assert np.median(np.abs(closer[large] / wanted[large] - 1)) <= 0.01


@pytest.mark.parametrize("transform", ["log", "none"])
def test_influence_beyond_the_networks_hops_is_exactly_zero(transform):
    """Compiled as users do: a compiler that is free to takes the difference of two products with one rounding."""
    with as_users_do():
        found = np.asarray(rows(served(relu_network), transform=transform).scores)
    np.testing.assert_array_equal(found[HOPS > 2], 0.0)
    np.testing.assert_array_equal(np.diagonal(found), 0.0)
    assert (HOPS > 2).sum() > 300 and (found[HOPS == 1] > 0).mean() > 0.9


def test_a_network_that_reads_no_graph_gives_zero_though_its_answers_move():
    alone = served(lambda x: jnp.tanh(x @ W))
    np.testing.assert_array_equal(rows(alone, delta=1.0).scores, 0.0)
    answer = alone.view(Access.SCORES).answer
    assert jnp.abs(answer(KEY, X.at[5].multiply(2.0)) - answer(KEY, X))[5].max() > 0.01


def test_edges_of_the_served_graph_are_found_where_features_and_scores_tell_little():
    """And those of the graph that it was not served on are not."""
    found = np.asarray(rows(served(relu_network)).scores)
    found = np.maximum(found, found.T)
    density = float(A.sum()) / (NODES * (NODES - 1))
    unit = np.asarray(X / jnp.linalg.norm(X, axis=1, keepdims=True))
    posteriors = np.corrcoef(np.asarray(jax.nn.log_softmax(relu_network(X))))
    assert link_auc(found, A) >= 0.9
    best_known = max(
        link_precision(unit @ unit.T, A, density), link_precision((posteriors + posteriors.T) / 2, A, density)
    )
    assert link_precision(found, A, density) >= best_known + 0.2
    order = np.random.default_rng(2).permutation(NODES)
    assert 0.4 <= link_auc(found, A[order][:, order]) <= 0.6


def test_rounded_scores_need_a_large_step():
    target = served(relu_network, defense=rounding(level=0.01))
    small = rows(target, floor=0.005).scores
    np.testing.assert_array_equal(small, 0.0)
    large = np.asarray(rows(target, delta=1.0, floor=0.005).scores)
    assert link_auc(np.maximum(large, large.T), A) >= 0.75


def test_probabilities_of_zero_have_the_logarithm_of_the_floor():
    sure = served(lambda x: 1e3 * relu_network(x))
    found = np.asarray(rows(sure, delta=1.0, floor=1e-6).scores)
    assert np.all(np.isfinite(found)) and found.max() > 1


def test_a_node_without_features_has_no_influence():
    found = np.asarray(rows(served(relu_network), X.at[3].set(0.0), delta=1.0).scores)
    np.testing.assert_array_equal(found[3], 0.0)
    assert found[0].max() > 0


def test_the_engine_counts_two_queries_for_each_node():
    process = link_teller(served(relu_network).view(Access.SCORES), X, delta=0.1).solve(())
    result = solve(process, KEY, {"node": np.array([4, 9], np.int32)}, steps=0, plan=ONE)
    np.testing.assert_array_equal(result.info.queries, [2, 2])
    np.testing.assert_array_equal(result.output.queries, [2, 2])
    np.testing.assert_allclose(
        result.output.scores, rows(served(relu_network), delta=0.1).scores[np.array([4, 9])], atol=1e-4
    )


def test_labels_are_not_enough():
    with pytest.raises(ThreatModelError, match="graph/link_teller needs access SCORES"):
        link_teller(served(relu_network).view(Access.LABELS), X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0}, "delta: 0.0"),
        ({"floor": 0.0}, "floor: 0.0"),
        ({"transform": "logit"}, "transform: 'logit'; legal is one of log, none"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        link_teller(served(relu_network).view(Access.SCORES), X, **options)


def test_a_target_that_does_not_answer_for_every_node_is_refused():
    one = Target(lambda params, x: Outputs(x.sum(0)[:3], {}), {}, classes=3, granted=Access.SCORES)
    with pytest.raises(ValueError, match=r"oracle: answers \(3,\); legal is \[34, classes\]"):
        link_teller(one.view(Access.SCORES), X)


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ({"node": np.array([0, 34])}, "cases: node 34; legal is 0 to 33"),
        ({"node": np.array([-1])}, "cases: node -1"),
        ({"restart": np.array([0])}, 'legal is {"node": integers'),
        (np.array([0]), 'legal is {"node": integers'),
    ],
)
def test_illegal_cases_are_named(cases, message):
    attack = link_teller(served(relu_network).view(Access.SCORES), X)
    with pytest.raises(ValueError, match=message):
        attack.check(cases, 3)
