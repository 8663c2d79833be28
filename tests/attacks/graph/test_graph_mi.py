"""GraphMI on two-block graphs of 40 nodes, where what a target can give away is known.

Nodes of one block are linked with probability 0.9, others with 0.05, and the label is the block. With one-hot features
no two nodes are alike: what the attack knows of the edges it has from the weights, or from the labels it was given.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import Access, Outputs, Plan, Target, ThreatModelError, solve
from jaxmia.attacks.graph.graph_mi import graph_mi
from jaxmia.metrics.graph import link_auc
from jaxmia.models.graph import GCN

NODES, SEEDS = 40, (0, 1)
BLOCKS = (np.arange(NODES) // (NODES // 2)).astype(np.int32)
FEW = np.where(np.arange(NODES) % 20 < 2, BLOCKS, -1)  # a tenth of the labels, as in the released code
ONE_HOT = np.eye(NODES, dtype=np.float32)
KEY = jax.random.key(0)


@functools.cache
def graph(seed: int) -> np.ndarray:
    chance = np.where(BLOCKS[:, None] == BLOCKS[None], 0.9, 0.05)
    upper = np.triu(np.random.default_rng(seed).random((NODES, NODES)) < chance, 1)
    return (upper | upper.T).astype(np.float32)


def noisy(seed: int) -> np.ndarray:
    """Features that say little about the block of one node, more about that of its neighborhood."""
    rng = np.random.default_rng(seed)
    return (0.5 * rng.normal(size=(2, 8))[BLOCKS] + rng.normal(size=(NODES, 8))).astype(np.float32)


@functools.cache
def target_of(seed: int, features: str = "one_hot", shuffled: bool = False) -> tuple[Target, jax.Array]:
    """A two-layer GCN trained on all labels, and its features."""
    x = jnp.asarray(ONE_HOT if features == "one_hot" else noisy(seed))
    labels = np.random.default_rng(seed + 9).permutation(BLOCKS) if shuffled else BLOCKS
    module, adjacency = GCN(hidden=8, classes=2), jnp.asarray(graph(seed))
    params = module.init(jax.random.key(seed), adjacency, x)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.adam(0.05))

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(module.apply(params, adjacency, x), labels).mean()

    def update(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jax.jit(lambda carry: jax.lax.scan(update, carry, length=200)[0][0])((params, optimizer.init(params)))

    def apply(params, candidate):
        logits, sown = module.apply(params, candidate, x, mutable=["features"])
        return Outputs(logits, {name: value[0] for name, value in sown["features"].items()})

    return Target(apply, params, classes=2), x


@functools.cache
def descended(seed: int, features: str = "one_hot", shuffled: bool = False, few: bool = True, **options):
    """Final state and last info of the descent: what engine.solve does with one case, without its compilation."""
    target, x = target_of(seed, features, shuffled)
    process = graph_mi(target.view(Access.WEIGHTS), x, FEW if few else BLOCKS, **options).solve(())

    def run(state):
        def step(state, t):
            return process.step(jax.random.fold_in(KEY, t), state, 0)

        return jax.lax.scan(step, state, jnp.arange(process.steps))

    state, told = jax.jit(run)(process.init(KEY, 0))
    return state, jax.tree.map(lambda leaf: leaf[-1], told)


def recovered(seed: int, features: str = "one_hot", shuffled: bool = False, few: bool = True, **reading):
    """The attack's output; `reading` are options that only matter after the descent."""
    state, _ = descended(seed, features, shuffled, few)
    target, x = target_of(seed, features, shuffled)
    return graph_mi(target.view(Access.WEIGHTS), x, BLOCKS, **reading).solve(()).read(state)


def auc(scores, seed: int) -> float:
    return link_auc(np.asarray(scores, float), graph(seed))


@pytest.mark.nightly
@pytest.mark.parametrize("decoder", ["sigmoid", "cosine"])
@pytest.mark.parametrize("seed", SEEDS)
def test_edges_are_ranked_by_what_the_weights_hold(seed, decoder):
    leaked = auc(recovered(seed, decoder=decoder).scores, seed)
    control = auc(recovered(seed, shuffled=True, decoder=decoder).scores, seed)
    assert leaked >= 0.9, "chance is 0.5"
    assert control <= 0.6
    assert leaked - control >= 0.35


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_hold_more_than_the_blocks(seed):
    """Knowing only the block of every node ranks edges with an AUC of 0.93: above that is about single edges."""
    assert auc(recovered(seed).scores, seed) >= auc(BLOCKS[:, None] == BLOCKS[None], seed) + 0.01


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
def test_descent_finds_edges_from_features_that_alone_say_little(seed):
    target, x = target_of(seed, "noisy")
    _, told = descended(seed, "noisy", False, False)
    found = recovered(seed, "noisy", few=False, decoder="cosine")
    control = recovered(seed, "noisy", shuffled=True, few=False, decoder="cosine")
    normed = np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)
    start = target.apply(target.params, jnp.zeros((NODES, NODES))).logits
    start = optax.softmax_cross_entropy_with_integer_labels(start, BLOCKS).mean()
    assert told.extra["identity"] <= start / 10
    assert told.extra["edges"] > 1
    assert auc(found.relaxed, seed) >= 0.7
    assert auc(found.scores, seed) >= auc(normed @ normed.T, seed) + 0.15
    assert auc(found.scores, seed) >= auc(control.scores, seed) + 0.1


@pytest.mark.nightly
@pytest.mark.parametrize("decoder", ["sigmoid", "cosine"])
def test_output_is_an_undirected_graph_without_loops(decoder):
    found = recovered(0, "noisy", few=False, decoder=decoder, edges=50, trials=3)
    for matrix in (found.scores, found.relaxed, found.sampled):
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(np.diagonal(matrix), 0)
        assert 0 <= matrix.min() < matrix.max() <= 1
    assert set(np.unique(found.sampled)) == {0, 1}
    assert found.sampled.sum() == 2 * 50


def test_scores_are_the_decoded_embedding_of_the_target_at_the_relaxed_graph():
    target, _ = target_of(0, "noisy")
    found = recovered(0, "noisy", few=False)
    hidden = np.asarray(target.apply(target.params, found.relaxed).features["embedding"], np.float64)
    np.testing.assert_allclose(found.embedding, hidden, atol=1e-5)
    upper = np.triu_indices(NODES, 1)
    np.testing.assert_allclose(found.scores[upper], (1 / (1 + np.exp(-hidden @ hidden.T)))[upper], atol=1e-5)
    hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
    cosine = recovered(0, "noisy", few=False, decoder="cosine").scores
    np.testing.assert_allclose(cosine[upper], (hidden @ hidden.T)[upper], atol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"norm": 2}, {"smooth_after": 0}, {"smooth_after": 0, "norm": 2}])
def test_first_step_is_gradient_descent_at_the_empty_graph(options):
    """At A = 0 no node has a degree; the slope is finite, and that of the cross entropy is a finite difference."""
    target, x = target_of(0, "noisy")
    process = graph_mi(target.view(Access.WEIGHTS), x, BLOCKS, rate=1.0, **options).solve(())
    state, told = process.step(KEY, process.init(KEY, 0), 0)
    assert np.all(np.isfinite(state.latent)) and np.isfinite(told.loss)
    if options.get("smooth_after") == 0:
        np.testing.assert_array_equal(state.latent, 0)  # the slope of the smoothness outweighs all
        return

    def entropy(i, j, value):
        adjacency = jnp.zeros((NODES, NODES)).at[i, j].set(value).at[j, i].set(value)
        logits = target.apply(target.params, adjacency).logits
        return float(optax.softmax_cross_entropy_with_integer_labels(logits, BLOCKS).mean())

    taken = 1e-3 if options.get("norm", 1) == 1 else 0.0
    found = np.argwhere(state.latent > 1e-3)[:5]
    assert len(found) == 5
    for i, j in found:
        slope = (entropy(i, j, 1e-2) - entropy(i, j, -1e-2)) / 2e-2
        assert float(state.latent[i, j]) == pytest.approx(-slope - taken, rel=0.05, abs=2e-5)


@pytest.mark.nightly
def test_smoothness_starts_late_and_changes_the_result():
    early, late = (descended(0, "noisy", False, False, smooth_after=k, steps=20) for k in (10, 20))
    rough = descended(0, "noisy", False, False, smoothness=0.0, steps=20)
    np.testing.assert_allclose(late[0].latent, rough[0].latent, atol=1e-6)
    assert np.abs(early[0].latent - late[0].latent).max() > 1e-3


def test_budget_bounds_the_edges():
    free, _ = descended(0, "noisy", False, False, norm=2)
    bound, told = descended(0, "noisy", False, False, norm=2, budget=2.0)
    assert np.sum(free.latent) > 4
    assert np.sum(bound.latent) == pytest.approx(2.0, rel=1e-3) == told.extra["edges"]


@pytest.mark.nightly
def test_sampled_graph_follows_the_scores_and_is_the_least_lossy():
    target, x = target_of(0, "noisy")
    first, more = (recovered(0, "noisy", few=False, decoder="cosine", edges=300, trials=k) for k in (1, 20))
    upper = np.triu_indices(NODES, 1)
    assert (
        more.scores[upper][more.sampled[upper] == 1].mean() > more.scores[upper][more.sampled[upper] == 0].mean() + 0.1
    )
    process = graph_mi(target.view(Access.WEIGHTS), x, BLOCKS).solve(())
    state = process.init(KEY, 0)._replace(steps=jnp.asarray(100))
    losses = [process.step(KEY, state._replace(latent=found.sampled), 0)[1].loss for found in (first, more)]
    assert losses[1] < losses[0]


@pytest.mark.nightly
def test_the_engine_gives_the_same_graph_for_the_same_key():
    target, x = target_of(1, "noisy")
    process = graph_mi(target.view(Access.WEIGHTS), x, BLOCKS, edges=100, trials=2, steps=20).solve(())
    plan = Plan(devices=(jax.devices()[0],), progress=False)
    both, again = (solve(process, KEY, np.arange(n), plan=plan).output for n in (2, 1))
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one[0], two[0], atol=1e-6), both, again)
    np.testing.assert_array_equal(both.relaxed[0], both.relaxed[1])  # the descent draws nothing
    assert np.any(both.sampled[0] != both.sampled[1])
    own, _ = descended(1, "noisy", False, False, steps=20)
    np.testing.assert_allclose(both.relaxed[0], own.latent + own.latent.T, atol=1e-5)


def test_access_below_weights_is_refused():
    target, x = target_of(0)
    for access in (Access.LABELS, Access.SCORES):
        with pytest.raises(ThreatModelError, match="graph/graph_mi needs access WEIGHTS"):
            graph_mi(target.view(access), x, BLOCKS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": np.full(NODES, -1)}, "labels: all are negative"),
        ({"labels": BLOCKS + 1}, "labels: 2; legal is below 2"),
        ({"steps": 0}, "steps: 0"),
        ({"smooth_after": -1}, "smooth_after: -1"),
        ({"edges": 0}, "edges: 0"),
        ({"edges": 781}, "edges: 781"),
        ({"trials": 0}, "trials: 0"),
        ({"norm": 3}, "norm: 3"),
        ({"decoder": "dot"}, "decoder: 'dot'"),
        ({"layer": "hidden"}, "layer: 'hidden'; the target shows embedding"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    target, x = target_of(0)
    with pytest.raises(ValueError, match=message):
        graph_mi(target.view(Access.WEIGHTS), x, **({"labels": BLOCKS} | options))


def test_labels_of_other_nodes_are_refused():
    target, x = target_of(0)
    with pytest.raises((ValueError, TypeError), match="labels"):  # the checked shapes of the tests come first
        graph_mi(target.view(Access.WEIGHTS), x, BLOCKS[:5])


def test_a_target_that_does_not_answer_for_every_node_is_refused():
    target = Target(lambda params, a: Outputs(a.sum(0)[:2] * params, {}), jnp.ones(()), classes=2)
    with pytest.raises(ValueError, match=r"oracle: answers \(2,\)"):
        graph_mi(target.view(Access.WEIGHTS), ONE_HOT, BLOCKS)


def test_the_released_budget_is_said_to_be_that_of_the_attacked_nodes():
    """int(density of the graph * pairs of the attacked nodes), for Cora and a tenth of its nodes."""
    said = " ".join(importlib.import_module("jaxmia.attacks.graph.graph_mi").__doc__.split())
    assert f"5,278 * (270 / 2,708)^2 = {int(5278 * (270 / 2708) ** 2)}" in said and "density" in said
