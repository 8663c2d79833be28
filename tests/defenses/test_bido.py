"""BiDO's two measures against their formulas in float64, their gradients, and what training with them does."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import threadpoolctl

from jaxmia import engine, train
from jaxmia.core import Defense
from jaxmia.defenses.bido import bido
from jaxmia.oracle import Outputs

ROWS, CLASSES, EPSILON, SIGMA = 24, 4, 1e-5, 5.0


def _data(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    x = rng.random((rows, 6, 6, 1)).astype(np.float32)
    y = rng.integers(0, CLASSES, rows).astype(np.int32)
    mixing = rng.normal(size=(36, 10)) + np.where(rng.random((36, 10)) < 0.3, 2, 0)
    hidden = np.tanh(x.reshape(rows, -1) @ mixing) * 4 + 2 * np.eye(CLASSES)[y] @ rng.normal(size=(CLASSES, 10))
    return {"x": x, "y": y}, hidden.astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small factorizations by several OpenBLAS threads take 100 times longer on a machine that is busy."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


# ---- the formulas, in numpy float64


def _gaussian(x, sigma=SIGMA):
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    distances = ((flat[:, None] - flat[None]) ** 2).sum(-1)
    return np.exp(-distances / (2 * sigma**2 * flat.shape[1]))


def _one_sided_hsic(one, other, epsilon=EPSILON):
    """As released: K H on one side, plain inverses."""
    m = len(one)
    centering = np.eye(m) - np.ones((m, m)) / m
    shrunk = [k @ centering @ np.linalg.inv(k @ centering + epsilon * m * np.eye(m)) for k in (one, other)]
    return float(np.sum(shrunk[0] * shrunk[1].T))


def _coco(one, other):
    """The largest singular value of the product of the centered kernels' square roots, over m."""
    m = len(one)
    centering = np.eye(m) - np.ones((m, m)) / m
    roots = []
    for kernel in (one, other):
        values, vectors = np.linalg.eigh(centering @ kernel @ centering)
        roots.append(vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T)
    return float(np.linalg.norm(roots[0] @ roots[1], 2)) / m


ORACLES = {"hsic": _one_sided_hsic, "coco": _coco}


def _dependence(measure, batch, hidden, side, **options):
    """One of the two terms, out of the loss: the plain loss is zero and the other weight too."""
    weights = {"lambda_x": 1.0, "lambda_y": 0.0} if side == "x" else {"lambda_x": 0.0, "lambda_y": -1.0}
    loss = bido(measure=measure, **weights, **options).loss(lambda outputs, batch: 0.0)
    return loss(Outputs(jnp.zeros((len(hidden), CLASSES)), {"z": hidden}), batch)


@pytest.mark.parametrize("measure", ["hsic", "coco"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_terms_equal_their_formulas(measure, seed):
    batch, hidden = _data(seed)
    labels = np.eye(CLASSES)[batch["y"]]
    oracle, of_hidden = ORACLES[measure], _gaussian(hidden)
    on_input = oracle(of_hidden, _gaussian(batch["x"]))
    on_label = oracle(of_hidden, labels @ labels.T)
    tolerance = {"rtol": 2e-3}  # float32 kernels against a ridge of 1e-5 m
    np.testing.assert_allclose(_dependence(measure, batch, hidden, "x"), on_input, **tolerance)
    np.testing.assert_allclose(_dependence(measure, batch, hidden, "y"), on_label, **tolerance)
    gaussian = _dependence(measure, batch, hidden, "y", label_kernel="gaussian")
    np.testing.assert_allclose(gaussian, oracle(of_hidden, _gaussian(labels)), **tolerance)


def test_coco_is_not_the_frobenius_form_of_the_released_code():
    batch, hidden = _data()
    m, centering = ROWS, np.eye(ROWS) - np.ones((ROWS, ROWS)) / ROWS
    kernels = [centering @ k @ centering for k in (_gaussian(hidden), _gaussian(batch["x"]))]
    frobenius = np.sqrt(np.linalg.norm(kernels[0] @ kernels[1])) / m
    spectral = np.sqrt(np.linalg.norm(kernels[0] @ kernels[1], 2)) / m
    ours = float(_dependence("coco", batch, hidden, "x"))
    assert ours < 0.99 * spectral < 0.99 * frobenius
    assert ours == pytest.approx(np.sqrt(max(scipy.linalg.eigvals(kernels[0] @ kernels[1]).real)) / m, rel=1e-3)


def test_coco_is_the_largest_covariance_of_unit_functions():
    """No pair of functions in the unit balls does better, and the definition's optimum is reached."""
    batch, hidden = _data()
    centering = np.eye(ROWS) - np.ones((ROWS, ROWS)) / ROWS
    k, g = (centering @ kernel @ centering for kernel in (_gaussian(hidden), _gaussian(batch["x"])))
    ours = float(_dependence("coco", batch, hidden, "x"))
    rng = np.random.default_rng(0)
    covariances = []
    for _ in range(300):
        c, d = rng.normal(size=(2, ROWS))
        covariances.append(c @ k @ g @ d / np.sqrt((c @ k @ c) * (d @ g @ d)) / ROWS)
    assert max(covariances) < ours
    for _ in range(300):  # alternating maximization climbs to it
        c, d = g @ d, k @ c
        c, d = c / np.linalg.norm(c), d / np.linalg.norm(d)
    assert c @ k @ g @ d / np.sqrt((c @ k @ c) * (d @ g @ d)) / ROWS == pytest.approx(ours, rel=1e-3)


@pytest.mark.nightly
@pytest.mark.parametrize("measure", ["hsic", "coco"])
@pytest.mark.parametrize("side", ["x", "y"])
def test_gradient_equals_finite_differences_of_the_formula(measure, side):
    batch, hidden = _data()
    # At 1e-5 the label term is saturated, its gradient a thousandth of the input term's: too small for float32.
    epsilon = 1e-5 if side == "x" else 1e-4
    labels = np.eye(CLASSES)[batch["y"]]
    fixed = _gaussian(batch["x"]) if side == "x" else labels @ labels.T
    term = lambda h: _dependence(measure, batch, h, side, epsilon=epsilon)  # noqa: E731
    formula = functools.partial(_one_sided_hsic, epsilon=epsilon) if measure == "hsic" else _coco
    gradient = np.asarray(jax.grad(term)(jnp.asarray(hidden)), np.float64)
    rng = np.random.default_rng(3)
    directions = [gradient, *rng.normal(size=(5, *hidden.shape))]
    for direction in directions:
        direction = direction / np.linalg.norm(direction)
        ends = [formula(_gaussian(hidden + step * direction), fixed) for step in (1e-3, -1e-3)]
        expected = (ends[0] - ends[1]) / 2e-3
        np.testing.assert_allclose(np.sum(gradient * direction), expected, atol=0.01 * np.linalg.norm(gradient))


@pytest.mark.nightly
@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_more_dependence_is_a_larger_value(measure):
    batch, _ = _data(rows=96)
    flat = batch["x"].reshape(96, -1)
    noise = np.random.default_rng(9).random(flat.shape).astype(np.float32)
    values = [
        float(_dependence(measure, batch, share * flat + (1 - share) * noise, "x", epsilon=1e-3))
        for share in (0.0, 0.5, 1.0)
    ]
    assert values[0] < values[1] < values[2]
    assert float(_dependence(measure, batch, np.ones((96, 3), np.float32), "x")) == pytest.approx(0, abs=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_gradient_is_finite_where_features_are_constant(measure):
    batch, _ = _data()
    for side in ("x", "y"):
        gradient = jax.grad(lambda h, s=side: _dependence(measure, batch, h, s))(jnp.ones((ROWS, 3)))
        assert np.isfinite(gradient).all()


@pytest.mark.nightly
@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_padding_rows_count_nowhere(measure):
    batch, hidden = _data()
    padded = {
        "x": np.concatenate([batch["x"], np.zeros((5, 6, 6, 1), np.float32)]),
        "y": np.concatenate([batch["y"], np.zeros(5, np.int32)]),
        "mask": np.concatenate([np.ones(ROWS), np.zeros(5)]).astype(np.float32),
    }
    garbage = np.concatenate([hidden, np.full((5, 10), 7.0, np.float32)])
    for side in ("x", "y"):
        np.testing.assert_allclose(
            _dependence(measure, padded, garbage, side), _dependence(measure, batch, hidden, side), rtol=1e-3
        )
        gradient = jax.grad(lambda h, s=side: _dependence(measure, padded, h, s))(jnp.asarray(garbage))
        assert np.abs(gradient[ROWS:]).max() < 1e-5 * np.abs(gradient).max()
    empty = {**padded, "mask": np.zeros(ROWS + 5, np.float32)}
    assert float(_dependence(measure, empty, garbage, "x")) == pytest.approx(0, abs=1e-5)


def test_layers_add_up_and_can_be_named():
    batch, hidden = _data()
    features = {"low": hidden[:, :4], "high": hidden[:, 4:]}
    outputs = Outputs(jnp.zeros((ROWS, CLASSES)), features)

    def total(layers):
        return float(bido(layers=layers, lambda_x=0.3, lambda_y=0.7).loss(lambda o, b: 2.0)(outputs, batch))

    both, low, high = total(None), total(("low",)), total(("high",))
    assert both - 2 == pytest.approx(low - 2 + high - 2, rel=1e-5) and low != high
    expected = 0.3 * _dependence("hsic", batch, hidden[:, :4], "x") - 0.7 * _dependence(
        "hsic", batch, hidden[:, :4], "y"
    )
    assert low - 2 == pytest.approx(float(expected), rel=1e-4)


def test_default_weights_are_the_released_ones_of_each_measure():
    batch, hidden = _data()
    outputs = Outputs(jnp.zeros((ROWS, CLASSES)), {"z": hidden})
    for measure, (x, y) in {"hsic": (0.05, 0.5), "coco": (1.0, 50.0)}.items():
        default, named = (
            float(bido(measure=measure, **kwargs).loss(lambda o, b: 0.0)(outputs, batch))
            for kwargs in ({}, {"lambda_x": x, "lambda_y": y})
        )
        assert default == named


@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_hyperparameters_can_be_traced(measure):
    batch, hidden = _data()
    outputs = Outputs(jnp.zeros((ROWS, CLASSES)), {"z": hidden})

    def value(lambda_x, lambda_y, sigma, epsilon):
        defense = bido(measure=measure, lambda_x=lambda_x, lambda_y=lambda_y, sigma=sigma, epsilon=epsilon)
        return defense.loss(lambda o, b: 0.0)(outputs, batch)

    grid = [jnp.array(v) for v in ([0.1, 0.2], [0.5, 0.0], [5.0, 2.0], [1e-5, 1e-4])]
    swept = jax.jit(jax.vmap(value))(*grid)
    np.testing.assert_allclose(swept, [value(*map(float, row)) for row in zip(*grid)], rtol=1e-3)


# ---- training


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(32)(x.reshape(len(x), -1)))
        self.sow("features", "block1", x)
        x = nn.relu(nn.Dense(16)(x))
        self.sow("features", "penultimate", x)
        return nn.Dense(CLASSES)(x)


def _problem(rows, seed):
    """Classes are blurred prototypes: hard enough for accuracy to have something to lose."""
    rng = np.random.default_rng(seed)
    prototypes = np.random.default_rng(0).random((CLASSES, 36))
    y = rng.integers(0, CLASSES, rows).astype(np.int32)
    x = np.clip(prototypes[y] + 0.55 * rng.normal(size=(rows, 36)), 0, 1).astype(np.float32)
    return x.reshape(rows, 6, 6, 1), y


def _trained(defense, steps=200):
    """Accuracy on unseen data, and the penultimate layer there."""
    x, y = _problem(2000, 1)
    rng = np.random.default_rng(2)
    order = [rng.integers(0, 2000, 64) for _ in range(steps)]
    process = train.supervised(Net(), optax.adam(3e-3), steps=steps, defense=defense)
    variables, _ = engine.fit(
        process,
        jax.random.key(0),
        lambda s: {"x": x[order[s]], "y": y[order[s]]},
        plan=engine.Plan(progress=False),
    )
    test_x, test_y = _problem(1000, 3)
    accuracy = float(np.mean(train.predict(Net(), variables, test_x).argmax(1) == test_y))
    _, sown = Net().apply(variables, test_x[:128], mutable=["features"])
    return accuracy, np.asarray(sown["features"]["penultimate"][0])


def _on_input_and_label(measure, hidden):
    x, y = _problem(1000, 3)
    labels = np.eye(CLASSES)[y[:128]]
    of_hidden = _gaussian(hidden)
    return ORACLES[measure](of_hidden, _gaussian(x[:128])), ORACLES[measure](of_hidden, labels @ labels.T)


@pytest.fixture(scope="module")
def undefended():
    return _trained(Defense())


@pytest.mark.nightly
def test_hsic_halves_the_dependence_on_inputs_and_keeps_accuracy(undefended):
    accuracy, hidden = _trained(bido())
    before, after = (_on_input_and_label("hsic", h) for h in (undefended[1], hidden))
    assert undefended[0] > 0.85 and accuracy > undefended[0] - 0.05
    assert after[0] < 0.5 * before[0] and after[1] > 0.95 * before[1]


@pytest.mark.nightly
def test_without_the_label_term_accuracy_is_lost(undefended):
    """The paper's case for two terms: the input term alone empties the layer."""
    accuracy, hidden = _trained(bido(lambda_y=0.0))
    assert accuracy < undefended[0] - 0.3
    assert _on_input_and_label("hsic", hidden)[1] < 0.5 * _on_input_and_label("hsic", undefended[1])[1]


@pytest.mark.nightly
def test_coco_lowers_the_dependence_on_inputs_or_raises_that_on_labels(undefended):
    before = _on_input_and_label("coco", undefended[1])
    accuracy, hidden = _trained(bido(measure="coco", lambda_x=100.0, lambda_y=0.0))
    assert _on_input_and_label("coco", hidden)[0] < 0.6 * before[0] and accuracy > undefended[0] - 0.05
    accuracy, hidden = _trained(bido(measure="coco", lambda_x=0.0, lambda_y=50.0))
    assert _on_input_and_label("coco", hidden)[1] > 2 * before[1] and accuracy > undefended[0] - 0.05


def test_a_model_without_features_is_refused():
    class Silent(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(CLASSES)(x.reshape(len(x), -1))

    batch, _ = _data()
    for module, layers, words in (
        (Silent(), None, "legal is one or more of what the model sows: no feature"),
        (Net(), ("block9",), r"layers: \['block9'\]; .* sows: block1, penultimate"),
        (Net(), (), "layers: none"),
    ):
        process = train.supervised(module, optax.sgd(0.1), steps=1, defense=bido(layers=layers))
        state = process.init(jax.random.key(0), batch)
        with pytest.raises(ValueError, match=words):
            process.step(jax.random.key(1), state, batch)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"measure": "mi"}, "measure: 'mi'; legal is 'hsic' or 'coco'"),
        ({"label_kernel": "imq"}, "label_kernel: 'imq'; legal is 'linear' or 'gaussian'"),
    ],
)
def test_illegal_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        bido(**arguments)
