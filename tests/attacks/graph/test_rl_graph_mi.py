"""Label-only searches for the graph, on two blocks of 24 nodes whose features tell little of one node."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Outputs, Target, ThreatModelError, attacks, solve
from jaxmia.attacks.graph.rl_graph_mi import rl_graph_mi
from jaxmia.metrics.graph import link_auc
from jaxmia.testing.attacks import STRUCTURE
from jaxmia.testing.benches.graph import BLOCKS, NODES, graph
from jaxmia.testing.benches.rl_graph_mi import features, make
from jaxmia.testing.trial import ONE, Trial

KEY, X = jax.random.key(0), features()
EDGES = int(graph().sum()) // 2
LEARNS = {"method": "q_learning", "edges": 48}


def process(which: str = "leaks", **options):
    return rl_graph_mi(make().target(which).view(Access.LABELS), X, BLOCKS, **options).solve(())


@functools.cache
def ran(which: str = "leaks", seed: int = 0, take: int | None = None, **options):
    """Scores, last state and infos of all steps; one program."""
    p = process(which, **options)
    key = jax.random.key(seed)

    def run():
        def step(state, t):
            return p.step(jax.random.fold_in(key, t), state, 0)

        end, told = jax.lax.scan(step, p.init(key, 0), jnp.arange(1, (take or p.steps) + 1))
        return p.read(end), end, told

    return jax.device_get(jax.jit(run)())


def auc(scores) -> float:
    return link_auc(np.asarray(scores, float), graph())


def test_gradient_estimation_finds_the_blocks_from_labels():
    """Alike features alone have 0.62, and equal labels, which the adversary knows, 0.92."""
    options = {"edges": EDGES, "directions": 50, "smoothness": 0.0}
    leaked, control = (ran(which, **options)[0] for which in ("leaks", "shuffled"))
    assert auc(leaked) >= 0.85
    assert auc(control) <= 0.55


@pytest.mark.nightly
def test_q_learning_finds_the_blocks_from_labels():
    leaked, control = (ran(which, steps=1500, **LEARNS) for which in ("leaks", "shuffled"))
    assert auc(leaked[0]) >= 0.7
    assert auc(control[0]) <= 0.65
    empty = float(leaked[1].empty)
    assert leaked[2].loss[-200:].mean() < empty < leaked[2].loss[:200].mean(), "edges by chance make it worse"


@pytest.mark.parametrize("options", [{"directions": 7, "steps": 3}, LEARNS | {"steps": 50}])
def test_queries_are_twice_the_directions_or_one_for_each_edge(options):
    asked = []
    target = make().target("leaks")

    def answer(key, adjacency):
        jax.debug.callback(lambda _: asked.append(1), adjacency[0, 0])
        return target.view(Access.LABELS).answer(key, adjacency)

    p = rl_graph_mi(target.view(Access.LABELS)._replace(answer=answer), X, BLOCKS, **options).solve(())
    state = jax.jit(p.init)(KEY, 0)
    jax.effects_barrier()
    assert len(asked) == state.queries == (1 if "method" in options else 0)
    step = jax.jit(p.step)
    for t in range(3):
        state, told = step(jax.random.fold_in(KEY, t), state, 0)
    jax.effects_barrier()
    assert len(asked) == told.queries == (1 + 3 if "method" in options else 3 * 2 * 7)


def numpy_wrong(adjacency) -> float:
    looped = np.asarray(adjacency, np.float64) + np.eye(NODES)
    scale = looped.sum(1) ** -0.5
    logits = (scale[:, None] * looped * scale) @ X @ make().params["leaks"]
    return float((logits.argmax(1) != BLOCKS).mean())


def test_a_step_is_the_central_difference_along_random_directions():
    options = {"edges": EDGES, "directions": 5, "radius": 0.2, "rate": 0.3, "smoothness": 0.0, "sparsity": 0.01}
    p = process(**options)
    before = p.init(KEY, 0)
    np.testing.assert_allclose(before.a, EDGES / 276, rtol=1e-6)
    after, told = jax.jit(p.step)(KEY, before, 0)
    v = np.asarray(jax.random.normal(jax.random.split(KEY)[0], (5, 276)), np.float64)
    upper = np.triu_indices(NODES, 1)

    def wrong(values):
        adjacency = np.zeros((NODES, NODES))
        adjacency[upper] = np.clip(values, 0, 1)
        return numpy_wrong(adjacency + adjacency.T)

    a = np.full(276, EDGES / 276)
    rises = [wrong(a + 0.2 * row) - wrong(a - 0.2 * row) for row in v]
    moved = a - 0.3 * (np.array(rises) @ v / (2 * 5 * 0.2) + 0.01)
    low, high = -2.0, 2.0
    for _ in range(60):  # what to take from every pair so that they sum to the budget
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(moved - middle, 0, 1).sum() > EDGES else (low, middle)
    np.testing.assert_allclose(after.a, np.clip(moved - max(high, 0), 0, 1), atol=1e-5)
    assert np.abs(rises).max() > 0
    both = np.mean([wrong(a + sign * 0.2 * row) for row in v for sign in (1, -1)])
    assert float(told.extra["wrong"]) == pytest.approx(both, abs=1e-6)


def test_the_score_is_the_mean_of_the_second_half():
    p = process(edges=EDGES, directions=4, steps=6)
    state, seen, step = p.init(KEY, 0), [], jax.jit(p.step)
    for t in range(6):
        state, _ = step(jax.random.fold_in(KEY, t), state, 0)
        seen.append(np.asarray(state.a))
    np.testing.assert_allclose(p.read(state)[np.triu_indices(NODES, 1)], np.mean(seen[3:], 0), atol=1e-6)


def test_episodes_grow_a_graph_edge_by_edge_and_the_score_counts_the_last():
    scores, state, told = ran(steps=300, method="q_learning", edges=10, sparsity=0.01, batch=2)
    episodes = state.added.reshape(30, 10)
    assert all(len(set(episode.tolist())) == 10 for episode in episodes), "no edge twice"
    upper = np.triu_indices(NODES, 1)
    for episode, rewards in zip(episodes[:3], state.rewards.reshape(30, 10)):
        adjacency = np.zeros((NODES, NODES))
        before = numpy_wrong(adjacency)
        for pair, reward in zip(episode, rewards):
            i, j = upper[0][pair], upper[1][pair]
            adjacency[i, j] = adjacency[j, i] = 1
            after = numpy_wrong(adjacency)
            assert reward == pytest.approx(NODES * (before - after - 0.01), abs=1e-4)
            before = after
    share = np.bincount(episodes[10:].ravel(), minlength=276) / 20
    np.testing.assert_allclose(scores[upper], share, atol=0.02)  # and a thousandth of the value
    assert np.corrcoef(scores[upper], share)[0, 1] > 0.99
    assert told.queries[-1] == 301


def test_exploration_ends_and_leaves_a_share():
    """Without learning the best pairs stay the same; late steps take them but for a tenth, early ones nearly never."""
    _, state, _ = ran(steps=400, method="q_learning", edges=4, batch=1, learning_rate=0.0, explore=0.1)
    early, late = state.added[:40], state.added[200:]
    greedy = set(np.bincount(late).argsort()[-4:].tolist())
    assert np.isin(late, list(greedy)).mean() >= 0.75
    assert np.isin(early, list(greedy)).mean() <= 0.4


def test_candidates_are_the_pairs_of_largest_cosine_and_others_score_zero():
    scores = ran(edges=20, candidates=40, directions=4, steps=4)[0]
    units = X / np.linalg.norm(X, axis=1, keepdims=True)
    upper = np.triu_indices(NODES, 1)
    best = np.argsort(-(units @ units.T)[upper])[:40]
    assert np.all(scores[upper][best] > 0) and np.count_nonzero(scores[upper]) == 40


@pytest.mark.parametrize("options", [{}, LEARNS | {"steps": 60}])
def test_scores_are_an_undirected_graph_without_loops(options):
    scores = ran(take=60 if options else 4, **options)[0]
    np.testing.assert_array_equal(scores, scores.T)
    np.testing.assert_array_equal(np.diagonal(scores), 0)


@pytest.mark.parametrize("check", STRUCTURE, ids=[check.__name__ for check in STRUCTURE])
def test_q_learning_keeps_the_contracts_of_structure(check):
    check(Trial(attacks.get("graph/rl_graph_mi"), settings=LEARNS | {"steps": 60}))


@pytest.mark.nightly
def test_the_engine_gives_the_same_scores_for_the_same_key():
    p = process(**LEARNS, steps=60, batch=4)
    two, one = (solve(p, KEY, np.arange(n, dtype=np.int32), plan=ONE) for n in (2, 1))
    np.testing.assert_allclose(two.output[0], one.output[0], atol=1e-5)
    assert np.any(two.output[0] != two.output[1])
    assert two.info.queries.tolist() == [61, 61]


def test_no_access_is_refused():
    with pytest.raises(ThreatModelError, match="graph/rl_graph_mi needs access LABELS"):
        rl_graph_mi(make().target("leaks").view(Access.NONE), X, BLOCKS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sarsa"}, "method: 'sarsa'"),
        ({"steps": 0}, "steps: 0"),
        ({"steps": 47} | LEARNS, "steps: 47; legal is 48 or more"),
        ({"edges": 277}, "edges: 277; legal is 1 or more, up to 276"),
        ({"candidates": 0}, "candidates: 0"),
        ({"candidates": 40, "edges": 41}, "edges: 41; legal is 1 or more, up to 40"),
        ({"directions": 0}, "directions: 0"),
        ({"batch": 0}, "batch: 0"),
        ({"width": 0}, "width: 0"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        process(**options)


def test_labels_and_answers_of_other_nodes_are_refused():
    with pytest.raises(ValueError, match="labels: all are negative"):
        rl_graph_mi(make().target("leaks").view(Access.LABELS), X, np.full(NODES, -1))
    one = Target(lambda params, a: Outputs(a.sum(0)[:2] * params, {}), jnp.ones(()), classes=2)
    with pytest.raises(ValueError, match=r"oracle: answers \(\)"):
        rl_graph_mi(one.view(Access.LABELS), X, BLOCKS)


def test_many_nodes_need_candidates():
    target = Target(lambda params, a: Outputs(a[:, :2] * params, {}), jnp.ones(()), classes=2)
    x, y = np.eye(201, 8, dtype=np.float32), np.zeros(201, int)
    with pytest.raises(ValueError, match="candidates: None; legal for 201 nodes, more than 200, is a number of pairs"):
        rl_graph_mi(target.view(Access.LABELS), x, y)
    rl_graph_mi(target.view(Access.LABELS), x, y, candidates=500)
