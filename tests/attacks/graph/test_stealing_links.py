"""Stealing links on sparse random graphs of 60 nodes, whose edges have nothing to do with features or labels.

The network is a GCN of two layers with drawn weights: nodes that share neighbors get posteriors that are alike, and
nothing but the posteriors tells an edge. The control is the same network on another graph.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxmia import Plan, attacks, solve
from jaxmia.attacks.graph.stealing_links import stealing_links
from jaxmia.metrics.graph import link_auc
from jaxmia.oracle import Nothing
from jaxmia.recipes.pairs import DISTANCES
from jaxmia.testing.attacks import STRUCTURE
from jaxmia.testing.trial import Trial

MODULE = importlib.import_module("jaxmia.attacks.graph.stealing_links")
NODES, CLASSES = 60, 6
PLAN = Plan(devices=(jax.devices()[0],), progress=False)
LEARNED = {"epochs": 200, "rate": 5e-3}
UPPER = np.stack(np.triu_indices(NODES, 1), 1)


@functools.cache
def graph(seed: int, nodes: int = NODES) -> np.ndarray:
    """Two edges a node, on average."""
    upper = np.triu(np.random.default_rng(seed).random((nodes, nodes)) < 2 / nodes, 1)
    return (upper | upper.T).astype(np.float64)


def described(seed: int, nodes: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features, and labels that follow from them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(nodes, features))
    return x.astype(np.float32), (x @ rng.normal(size=(features, classes))).argmax(1)


def posteriors(adjacency: np.ndarray, x: np.ndarray, classes: int, seed: int) -> np.ndarray:
    rng, looped = np.random.default_rng(seed), adjacency + np.eye(len(adjacency))
    scale = looped.sum(1) ** -0.5
    spread = scale[:, None] * looped * scale
    hidden = np.maximum(spread @ x @ rng.normal(size=(x.shape[1], 16)) / np.sqrt(x.shape[1]), 0)
    logits = spread @ hidden @ rng.normal(size=(16, classes))
    scores = np.exp(logits - logits.max(1, keepdims=True))
    return (scores / scores.sum(1, keepdims=True)).astype(np.float32)


FEATURES, LABELS = described(1, NODES, 24, CLASSES)
SCORES = posteriors(graph(0), FEATURES, CLASSES, 2)
OTHER = posteriors(graph(9), FEATURES, CLASSES, 2)


@functools.cache
def known() -> dict[str, np.ndarray]:
    """Half of the edges, and as many other pairs."""
    linked, rng = graph(0)[tuple(UPPER.T)] > 0, np.random.default_rng(3)
    rows = [rng.choice(np.flatnonzero(linked == kind), int(linked.sum()) // 2, replace=False) for kind in (True, False)]
    return {"pairs": UPPER[np.concatenate(rows)], "linked": linked[np.concatenate(rows)]}


@functools.cache
def shadow() -> dict[str, np.ndarray]:
    """Of other nodes, with fewer features and more classes."""
    x, labels = described(4, 50, 18, 8)
    edges = np.argwhere(np.triu(graph(5, 50))).astype(np.int32)
    return {"features": x, "labels": labels, "scores": posteriors(graph(5, 50), x, 8, 6), "edges": edges}


def made(features=FEATURES, labels=LABELS, known=known, shadow=shadow, **options):
    given = [value() if callable(value) else value for value in (features, labels, known, shadow)]
    return stealing_links(Nothing(), *given, **options)


@functools.cache
def found(**options) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the leaking posteriors and of the control."""
    result = solve(
        made(**options).solve(()), jax.random.key(0), {"scores": np.stack([SCORES, OTHER])}, ids=[0, 0], plan=PLAN
    )
    for scores in result.output:
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, scores.T)
        np.testing.assert_array_equal(np.diagonal(scores), 0)
        assert np.ptp(scores[tuple(UPPER.T)]) > 0
    return tuple(result.output.astype(np.float64))


def auc(scores: np.ndarray) -> float:
    """On the pairs that are not known."""
    unknown = np.triu(np.ones_like(scores), 1)
    unknown[tuple(known()["pairs"].T)] = 0
    return link_auc(scores, graph(0), np.argwhere(unknown))


def without_model() -> float:
    """The AUC of what features and labels tell."""
    units = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    return auc(units.astype(float) @ units.T + (LABELS[:, None] == LABELS))


@pytest.mark.parametrize("name", DISTANCES)
def test_attack_0_is_the_distance_of_scipy(name):
    scores = np.asarray(jax.jit(made(distance=name).solve(()).init)(jax.random.key(0), {"scores": SCORES}))
    wanted = cdist(SCORES.astype(float), SCORES.astype(float), name)
    np.testing.assert_allclose(scores[tuple(UPPER.T)], -wanted[tuple(UPPER.T)], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"attack": 0}, {"attack": 0, "log": True}, {"attack": 3, **LEARNED}]
    + [pytest.param({"attack": k, **LEARNED}, marks=pytest.mark.nightly) for k in (1, 4, 5, 6, 7)],
    ids=str,
)
def test_posteriors_tell_edges_that_features_and_labels_do_not(options):
    leaked, control = map(auc, found(**options))
    assert without_model() < 0.6, "features and labels have nothing to do with the edges"
    assert leaked >= 0.7, "chance is 0.5"
    assert control <= 0.6
    assert leaked - control >= 0.15


def test_logarithms_of_posteriors_are_compared_as_logits_would_be():
    logits = np.log(SCORES.astype(float)) + np.random.default_rng(0).normal(size=(NODES, 1))  # any offset is one table
    np.testing.assert_allclose(
        found(attack=0, log=True)[0][tuple(UPPER.T)], -cdist(logits, logits, "correlation")[tuple(UPPER.T)], atol=1e-5
    )


@pytest.mark.parametrize("log", [False, True])
def test_whitening_is_of_each_predicted_class_whose_pairs_come_first(log):
    rows, predicted = SCORES.astype(float), SCORES.argmax(1)
    if log:
        rows = np.log(rows) - np.log(rows).mean(1, keepdims=True)
    white = np.zeros_like(rows)
    for label in np.flatnonzero(np.bincount(predicted) > 1):
        apart = rows[predicted == label] - rows[predicted == label].mean(0)
        variances, axes = np.linalg.eigh(apart.T @ apart / len(apart))
        white[predicted == label] = apart @ axes / np.sqrt(variances.clip(0) + 1e-3 * variances.mean()) @ axes.T
    with np.errstate(invalid="ignore"):  # a node alone in its class has no direction
        within, across = (cdist(table, table, "correlation") for table in (white, rows))
    same = predicted[:, None] == predicted
    wanted = np.where(same, -within / (1 + within), -1 - across / (1 + across))
    scores = np.asarray(
        jax.jit(made(log=log, whiten=True).solve(()).init)(jax.random.key(0), {"scores": jnp.asarray(SCORES)})
    )
    assert np.bincount(predicted).max() > 3
    np.testing.assert_allclose(scores[tuple(UPPER.T)], wanted[tuple(UPPER.T)], atol=1e-3)
    upper = np.triu(np.ones_like(same), 1)
    assert scores[same & upper].min() > scores[~same & upper].max()


def test_attack_2_compares_with_a_reference_that_learned_the_labels():
    first, second = found(attack=2, distance="euclidean")
    reference = [s + cdist(p, p) for s, p in ((first, SCORES), (second, OTHER))]
    np.testing.assert_allclose(*reference, atol=1e-5)  # it knows no posteriors
    assert reference[0][tuple(UPPER.T)].min() >= -1e-6
    same = (LABELS[:, None] == LABELS).astype(float)
    assert link_auc(-reference[0], np.triu(same, 1) + np.triu(same, 1).T) > 0.8


@pytest.mark.parametrize(("attack", "size"), [(1, 12), (3, 4 * CLASSES + 12), (4, 12), (5, 32), (6, 80), (7, 32)])
def test_inputs_of_the_classifier_are_those_of_the_table(attack, size):
    rng = np.random.default_rng(0)
    reference = rng.dirichlet(np.ones(CLASSES), NODES).astype(np.float32)
    p, r = (table.astype(float) for table in (SCORES, reference))
    seen, told, x = map(jnp.asarray, (SCORES, reference, FEATURES))
    nodes = MODULE._nodes(seen, told if attack in MODULE.REFERRING else None, x)
    one, other = (jax.tree.map(lambda leaf: leaf[i], nodes) for i in (3, 41))
    inputs = MODULE._inputs(attack, one, other)

    def apart(table):
        return [cdist(table[3:4], table[41:42], name)[0, 0] for name in DISTANCES]

    def operated(table):
        u, v = table[3], table[41]
        return [*(u + v) / 2, *u * v, *abs(u - v), *(u - v) ** 2]

    def uncertain(table):
        return operated(-np.sum((table + 1e-5) * np.log(table + 1e-5), 1, keepdims=True))

    wanted = apart(p) + uncertain(p)
    if attack >= 5:
        wanted += apart(r) + apart(FEATURES.astype(float)) + uncertain(r)
    wanted += {3: operated(p), 6: operated(p) + operated(r)}.get(attack, [])
    assert inputs.shape == (size,) == (len(wanted),)
    np.testing.assert_allclose(np.sort(inputs), np.sort(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attack", "learned"), [(1, "shadow"), (3, "known"), (4, "both")])
def test_a_classifier_learns_from_the_pairs_it_is_given(attack, learned):
    """The rows, their labels, and as many steps as the epochs take."""
    edges, half = len(shadow()["edges"]), len(known()["pairs"])
    count = {"shadow": 2 * edges, "known": half, "both": 2 * edges + half}[learned]
    process = made(attack=attack, epochs=3, batch=50).solve(())
    assert process.steps == 3 * -(-count // 50)
    held, _ = jax.eval_shape(process.init, jax.random.key(0), {"scores": jnp.asarray(SCORES)})
    assert held.rows["x"].shape == (count, 4 * CLASSES + 12 if attack == 3 else 12)
    assert made(attack=attack).solve(()).steps == 50 * -(-count // 128)


@pytest.mark.parametrize("nodes", [6, 50])
def test_pairs_that_are_no_edges_are_distinct_and_as_many_where_there_are(nodes):
    adjacency = graph(5, 50) if nodes == 50 else 1 - np.eye(6) - np.eye(6)[::-1]  # 12 of 15 pairs
    edges = np.argwhere(np.triu(adjacency))
    others = MODULE._others(edges, nodes, np.random.default_rng(0))
    assert len(others) == min(len(edges), nodes * (nodes - 1) // 2 - len(edges)) > 0
    assert np.all(others[:, 0] < others[:, 1]) and len(np.unique(others, axis=0)) == len(others)
    assert np.all(adjacency[tuple(others.T)] == 0)
    again = MODULE._others(edges, nodes, np.random.default_rng(1))
    assert nodes == 6 or np.any(np.sort(others, 0) != np.sort(again, 0))


@pytest.mark.nightly
@pytest.mark.parametrize("attack", [0, 1, 2, 4, 5, 6, 7])
@pytest.mark.parametrize("check", STRUCTURE, ids=[check.__name__ for check in STRUCTURE])
def test_every_number_satisfies_the_structure_of_an_attack(attack, check):
    check(Trial(attacks.get("graph/stealing_links"), settings={"attack": attack}))


def test_what_an_attack_does_not_use_may_be_missing():
    nothing = dict.fromkeys(("features", "labels", "known", "shadow"))
    scores = made(**nothing).solve(()).init(jax.random.key(0), {"scores": SCORES})
    assert auc(np.asarray(scores, float)) > 0.7
    made(**nothing | {"known": known()}, attack=3)
    made(**nothing | {"shadow": {part: shadow()[part] for part in ("scores", "edges")}}, attack=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": 8}, "attack: 8; legal is 0 to 7"),
        ({"distance": "hamming"}, "distance: 'hamming'; legal is one of cosine"),
        ({"attack": 2, "log": True}, "log: True; legal is False in attack 2"),
        ({"attack": 3, "whiten": True}, "whiten: True; legal is False in attack 3"),
        ({"epochs": 0}, "epochs: 0; legal is 1 or more"),
        ({"batch": 0}, "batch: 0; legal is 1 or more"),
        ({"rate": 0.0}, "rate: 0.0; legal is finite and above 0"),
        ({"reference_decay": -1.0}, "reference_decay: -1.0"),
        ({"dropout": 1.0}, "dropout: 1.0; legal is 0 or more, below 1"),
        ({"attack": 3, "known": None}, "known: None; attack 3 needs pairs"),
        ({"attack": 1, "shadow": None}, "shadow: None; attack 1 needs a public graph"),
        ({"attack": 5, "features": None}, "features: None; attack 5 needs features"),
        ({"attack": 2, "labels": None}, "labels: None; attack 2 needs labels of the nodes, for its reference"),
        ({"attack": 2, "labels": np.full(NODES, -1)}, "labels: all are negative"),
        ({"attack": 2, "labels": LABELS[:5]}, "labels"),
        ({"attack": 4, "known": {"pairs": UPPER[:9], "linked": np.ones(9, bool)}}, "known: 9 pairs, 9 of them edges"),
        ({"attack": 4, "known": {"pairs": UPPER[:9], "linked": np.ones(3, bool)}}, r"known: pairs \(9, 2\)"),
        ({"attack": 1, "shadow": {"scores": SCORES, "edges": np.zeros((0, 2), int)}}, "shadow: 0 edges"),
        ({"attack": 7, "shadow": lambda: shadow() | {"labels": LABELS, "features": FEATURES}}, "shadow: scores"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):  # checked shapes of the tests may come first
        made(**options)


@pytest.mark.parametrize(
    ("options", "scores", "message"),
    [
        ({}, SCORES[0], r"cases: scores \(6,\); legal is \[n, classes\]"),
        ({}, np.zeros((5001, 2), np.float32), "with 2 to 5000 nodes"),
        ({"attack": 2}, SCORES[:7], "features: 60 nodes; legal is 7"),
        ({"attack": 3}, SCORES[:7], "known: node 59; legal is below 7"),
    ],
)
def test_cases_that_do_not_agree_with_what_is_known_are_refused(options, scores, message):
    with pytest.raises(ValueError, match=message):
        made(**options).solve(()).init(jax.random.key(0), {"scores": scores})
