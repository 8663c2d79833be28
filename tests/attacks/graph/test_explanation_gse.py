"""GSE, GSEF and SLAPS: each part against numpy, and on explanations of a graph that features say nothing about."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxmia import attacks
from jaxmia.attacks.graph.explanation_gse import _chances, explanation_gse
from jaxmia.metrics.graph import link_auc
from jaxmia.models.graph_autoencoder import WeightedGCN, learned_edges, nearest
from jaxmia.oracle import Nothing
from jaxmia.testing.trial import Trial

KEY = jax.random.key(0)
NODES, WORDS = 12, 8
RNG = np.random.default_rng(0)
X = (RNG.random((NODES, WORDS)) < 0.4).astype(np.float32)
E = jnp.asarray(RNG.random((NODES, WORDS)), jnp.float32)
Y = RNG.integers(0, 3, NODES)
CASE = {"explanation": E}
SMALL = {"neighbors": 3, "width": 6, "classifier_width": 4, "steps": 10, "classify_after": 2}
SOURCES = {"gse": ("explanation",), "gsef": ("features", "explanation"), "slaps": ("features",)}


def process(method, labels=Y, **options):
    return explanation_gse(Nothing(), X, labels, method=method, **{**SMALL, **options}).solve(())


def first(started, case=CASE):
    """State and info after one step."""
    return jax.jit(lambda case: started.step(KEY, started.init(KEY, case), case))(case)


def edges_of(w):
    """A(W) in double precision."""
    w = np.asarray(w, np.float64)
    above = np.where(w > 0, w + 1, np.exp(np.minimum(w, 0)))
    symmetric = (above + above.T) / 2
    return symmetric / np.sqrt(np.outer(symmetric.sum(1), symmetric.sum(1)))


def test_nearest_are_the_k_of_largest_cosine_and_the_node_itself():
    far = cdist(E, E, "cosine") + 9 * np.eye(NODES)
    wanted = np.eye(NODES)
    for i in range(NODES):
        wanted[i, np.argsort(far[i])[:3]] = 1
    np.testing.assert_array_equal(nearest(E, 3), wanted)


def test_learned_edges_are_symmetric_and_normalized():
    w = 3 * RNG.normal(size=(NODES, NODES)).astype(np.float32)
    np.testing.assert_allclose(learned_edges(jnp.asarray(w)), edges_of(w), atol=1e-6)
    assert np.linalg.eigvalsh(edges_of(w)).max() == pytest.approx(1)


def test_the_network_is_two_layers_on_the_weights_it_is_given():
    module = WeightedGCN(5, 2, 0.5, 0.25)
    weights = edges_of(RNG.normal(size=(NODES, NODES)))
    variables = jax.tree.map(lambda leaf: leaf + 0.1, module.init(KEY, E, jnp.zeros((NODES, NODES))))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    hidden = np.maximum(weights @ (E @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]), 0)
    wanted = weights @ (hidden @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"])
    weights = jnp.asarray(weights, jnp.float32)
    np.testing.assert_allclose(module.apply(variables, E, weights), wanted, atol=1e-5)
    one = jax.jit(lambda key: module.apply(variables, E, weights, train=True, rngs={"dropout": key}))
    drawn = np.asarray(jax.vmap(one)(jax.random.split(KEY, 2)))
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01


@pytest.mark.parametrize(("shares", "nodes", "width"), [((0.0, 0.25), 400, 1), ((0.25, 0.0), 1, 4000)])
def test_dropout_keeps_the_mean(shares, nodes, width):
    """Of a network that adds up all entries of a row, or as many hidden units."""
    module = WeightedGCN(width, 1, *shares)
    x, a = jnp.ones((nodes, 1)), jnp.full((nodes, nodes), 1 / nodes)
    variables = jax.tree.map(jnp.zeros_like, module.init(KEY, x, a))
    variables["params"]["Dense_0"]["bias"] += 1
    variables["params"]["Dense_1"]["kernel"] += 1 / width
    plain = np.asarray(module.apply(variables, x, a))
    dropped = np.asarray(module.apply(variables, x, a, train=True, rngs={"dropout": KEY}))
    np.testing.assert_allclose(plain, 1, atol=1e-4)
    assert np.abs(dropped - plain).max() > 1e-4
    assert dropped.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("method", SOURCES)
def test_it_starts_at_the_nearest_neighbors_of_what_it_reads(method):
    start = process(method)
    state = start.init(KEY, CASE)
    assert tuple(state.graphs) == SOURCES[method]
    wanted = np.zeros((NODES, NODES))
    for name in SOURCES[method]:
        w = np.where(nearest(jnp.asarray(X) if name == "features" else E, 3) > 0, 0.0, -6.0)
        np.testing.assert_array_equal(state.graphs[name], w)
        wanted += edges_of(w)
    scores = np.asarray(start.read(state))
    np.testing.assert_allclose(scores, wanted * (1 - np.eye(NODES)), atol=1e-6)
    np.testing.assert_array_equal(scores, scores.T)


@pytest.mark.nightly
def test_the_error_is_of_the_masked_entries():
    """All are masked: the networks read zeros, and answer their biases, which are zero at first."""
    for options, wanted in (({"loss": "mse"}, float(jnp.mean(E**2))), ({"loss": "bce"}, np.log(2))):
        started = process("gse", masked=1.0, weight=10.0, **options)
        _, told = first(started)
        assert float(told.extra["reconstruction"]) == pytest.approx(wanted, rel=1e-5)
        assert float(told.loss) == pytest.approx(10 * wanted, rel=1e-5)


@pytest.mark.nightly
def test_binary_features_have_the_cross_entropy_and_explanations_the_square():
    started = process("gsef", masked=1.0, zeros=1e9)
    _, told = first(started)
    assert float(told.loss) == pytest.approx(np.log(2) + float(jnp.mean(E**2)), rel=1e-5)
    alone = process("slaps", masked=1.0, zeros=1e9)
    assert float(first(alone)[1].loss) == pytest.approx(0.1 * np.log(2), rel=1e-5)
    numbers = explanation_gse(Nothing(), 2 * X, Y, method="slaps", **{**SMALL, "masked": 1.0}).solve(())
    _, told = first(numbers)
    assert float(told.loss) == pytest.approx(0.1 * np.mean((2 * X) ** 2), rel=1e-5)


def test_zeros_are_masked_by_the_number_of_ones():
    wide = (RNG.random((50, 80)) < 0.05).astype(np.float32)
    chances = np.asarray(_chances(jnp.asarray(wide), "bce", 0.05, 5.0))
    assert chances[wide > 0].sum() == pytest.approx(0.05 * wide.sum(), rel=1e-4)
    assert chances[wide == 0].sum() == pytest.approx(5 * 0.05 * wide.sum(), rel=1e-4)
    assert np.ptp(chances[wide == 0]) == 0
    np.testing.assert_allclose(_chances(jnp.asarray(wide), "mse", 0.05, 5.0), 0.05)


def test_the_classifier_rests_until_it_begins():
    started = process("gse", classify_after=2)
    step = jax.jit(started.step)
    states, told = [started.init(KEY, CASE)], []
    for t in range(4):
        state, info = step(jax.random.fold_in(KEY, t), states[-1], CASE)
        states.append(state)
        told.append(info)
    moved = [
        max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), old.classifier, new.classifier)))
        for old, new in zip(states, states[1:])
    ]
    assert moved[:2] == [0, 0] and min(moved[2:]) > 1e-4
    for t, info in enumerate(told):
        entropy = float(info.extra["classification"]) * (t >= 2)
        assert float(info.loss) == pytest.approx(0.1 * float(info.extra["reconstruction"]) + entropy, rel=1e-5)


def test_labels_move_the_edges():
    """On a graph of equal edges all nodes are alike to a classifier: what it learns, it learns by moving them."""
    labels = np.arange(NODES) % 2
    case = {"explanation": 2.0 * labels[:, None] - 1 + E}
    options = {"neighbors": NODES - 1, "rate": 0.05, "classifier_rate": 0.05, "classify_after": 0, "dropout": 0.0}
    started = process("gse", labels, weight=0.0, **options)

    def step(state, key):
        state, told = started.step(key, state, case)
        return state, told.extra["classification"]

    state, entropy = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, 60)))(started.init(KEY, case))
    assert entropy[0] == pytest.approx(np.log(2), abs=0.1) and entropy[-1] <= 0.2
    scores, same = np.asarray(started.read(state)), labels[:, None] == labels
    within, across = scores[same & ~np.eye(NODES, dtype=bool)].mean(), scores[~same].mean()
    assert max(within, across) >= 2 * min(within, across)  # which of them is up to the classifier's draw


@pytest.mark.parametrize("method", ["gse", "gsef"])
def test_the_cross_entropy_is_of_the_known_labels_on_the_sum_of_the_graphs(method):
    labels = np.where(np.arange(NODES) < 5, Y, -1)
    started = process(method, labels, dropout=0.0)
    state = started.init(KEY, CASE)
    edges = sum(edges_of(w) for w in state.graphs.values())
    edges /= np.sqrt(np.outer(edges.sum(1), edges.sum(1)))
    read = E if method == "gse" else jnp.asarray(X)
    module = WeightedGCN(SMALL["classifier_width"], int(Y[:5].max()) + 1)
    logits = np.asarray(module.apply(state.classifier, read, jnp.asarray(edges, jnp.float32)), np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(NODES), Y % logits.shape[1]]
    assert float(first(started)[1].extra["classification"]) == pytest.approx(losses[:5].mean(), rel=1e-4)


@pytest.fixture(scope="module")
def trial():
    return Trial(attacks.get("graph/explanation_gse"))


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["gse", "gsef"])
def test_explanations_tell_edges_that_features_do_not(trial, method):
    """On the bench's graph, and no edges of it where the explanations are of another graph."""
    from jaxmia.testing.benches import link_teller

    def found(which, method):
        own = Trial(trial.method, settings={"method": method})
        return link_auc(np.asarray(own.meaning(which).whole[0], float), link_teller.graph())

    features = found("leaks", "slaps")
    assert found("leaks", method) >= features + 0.15
    assert found("shuffled", method) <= 0.65


@pytest.mark.nightly
def test_features_alone_do_not_look_at_the_explanation():
    started = process("slaps")
    one = first(started)[0]
    two = first(started, {"explanation": E[::-1]})[0]
    np.testing.assert_array_equal(started.read(one), started.read(two))
    assert np.abs(np.asarray(started.read(one)) - started.read(started.init(KEY, CASE))).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "concat"}, "method: 'concat'; legal is one of gse, gsef, slaps"),
        ({"loss": "l1"}, "loss: 'l1'; legal is one of bce, mse, or None"),
        ({"neighbors": 12}, "neighbors: 12; legal is 1 or more, up to 11"),
        ({"steps": 0}, "steps: 0"),
        ({"classify_after": -1}, "classify_after: -1"),
        ({"width": 0}, "width: 0"),
        ({"masked": 1.5}, "masked: 1.5; legal is 0 to 1"),
        ({"dropout": -0.1}, "dropout: -0.1"),
        ({"labels": np.full(NODES, -1)}, "labels: all are negative"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        explanation_gse(Nothing(), X, **{"labels": Y, "neighbors": 3, **options})


def test_illegal_cases_are_named():
    attack = explanation_gse(Nothing(), X, Y, neighbors=3)
    attack.check({"explanation": E[None]}, None)
    for wrong in (
        {"explanation": E},
        {"explanation": E[None, :5]},
        {"explanation": E[None, :, :3]},
        {"scores": E[None]},
    ):
        with pytest.raises(ValueError, match=r"cases: explanation .* legal is \[cases, 12, 8\]"):
            attack.check(wrong, None)
