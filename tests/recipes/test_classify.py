"""The classifier learns what its rows say, whether they are held or come in minibatches."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia.models.pair_classifier import PairClassifier
from jaxmia.recipes.classify import classify, logits

KEY = jax.random.key(0)


class Linear(nn.Module):
    """Logistic regression."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(2, kernel_init=nn.initializers.zeros)(x)


@functools.cache
def labeled(seed: int, n: int = 200) -> dict[str, jax.Array]:
    """y is 1 with the probability sigmoid(2 a - b)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = rng.random(n) < 1 / (1 + np.exp(-(2 * x[:, 0] - x[:, 1])))
    return {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y)}


def fitted(process, batches=lambda step: None):
    state, step = process.init(KEY, batches(0)), jax.jit(process.step)
    for t in range(process.steps):
        state, told = step(jax.random.fold_in(KEY, t + 1), state, batches(t))
    return process.read(state), told


def odds(module, found, x):
    told = logits(module, found, x)
    return np.asarray(told[:, 1] - told[:, 0])


def newton(x, y):
    """Weights and bias of the logistic regression of greatest likelihood."""
    x, y, w = np.c_[np.asarray(x, float), np.ones(len(x))], np.asarray(y, float), np.zeros(3)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x.T * (p * (1 - p))) @ x, x.T @ (y - p))
    return w


@pytest.mark.parametrize("moved", [False, True])
def test_all_rows_give_the_regression_of_greatest_likelihood(moved):
    rows = labeled(0)
    if moved:  # far from the origin and in other units: standardized, it is the same problem
        rows = {"x": rows["x"] * jnp.asarray([100.0, 0.01]) + 50.0, "y": rows["y"]}
    found, told = fitted(classify(Linear(), optax.sgd(2.0), steps=200, rows=rows, batch=None))
    a, b, c = newton(labeled(0)["x"], labeled(0)["y"])
    wanted = np.asarray(labeled(0)["x"], float) @ [a, b] + c
    np.testing.assert_allclose(odds(Linear(), found, rows["x"]), wanted, atol=0.02 if moved else 1e-3)
    loss = np.mean(np.log1p(np.exp(np.where(rows["y"], -wanted, wanted))))
    assert float(told.loss) == pytest.approx(loss, rel=1e-3) and int(told.queries) == 0


def accuracy(found):
    x = labeled(9, 2000)["x"]
    return np.mean((odds(Linear(), found, x) > 0) == np.asarray(2 * x[:, 0] > x[:, 1]))


def test_drawn_rows_and_minibatches_teach_the_same():
    rows, none = labeled(0), {"x": jnp.zeros((0, 2)), "y": jnp.zeros(0, bool)}
    drawn, _ = fitted(classify(Linear(), optax.sgd(0.5), steps=60, rows=rows, batch=32))
    public, _ = fitted(classify(Linear(), optax.sgd(0.5), steps=60, moments=(0.0, 1.0)), lambda t: labeled(t % 20, 32))
    other, _ = fitted(classify(Linear(), optax.sgd(0.5), steps=60, rows=rows, batch=32), lambda t: {"scores": 0})
    empty, _ = fitted(classify(Linear(), optax.sgd(0.5), steps=60, rows=rows, batch=32), lambda t: none)
    assert min(accuracy(drawn), accuracy(public)) > 0.93
    for same in (other, empty):  # data that are no rows are not looked at
        jax.tree.map(np.testing.assert_array_equal, drawn, same)


def test_minibatches_join_the_rows():
    """Rows of one class alone teach nothing about the boundary; with minibatches of the other they do."""
    one = jax.tree.map(lambda leaf: leaf[np.asarray(labeled(0)["y"])], labeled(0))

    def rest(step):
        return jax.tree.map(lambda leaf: leaf[~np.asarray(labeled(1)["y"])][:32], labeled(1))

    alone, _ = fitted(classify(Linear(), optax.sgd(0.5), steps=60, rows=one, batch=32, moments=(0.0, 1.0)))
    joined, _ = fitted(classify(Linear(), optax.sgd(0.5), steps=60, rows=one, batch=32, moments=(0.0, 1.0)), rest)
    assert np.all(odds(Linear(), alone, labeled(9)["x"]) > 0)
    assert accuracy(joined) > 0.9


def test_what_does_not_vary_among_the_rows_is_not_made_large():
    """A column that is constant but for rounding would else be divided by it, where other rows do vary."""
    rows = {"x": jnp.concatenate([labeled(0)["x"], jnp.full((200, 1), 0.1)], 1), "y": labeled(0)["y"]}
    found, _ = fitted(classify(Linear(), optax.sgd(0.5), steps=5, rows=rows))
    assert float(found.deviation[2]) == 1.0
    np.testing.assert_allclose(found.mean[:2], np.mean(labeled(0)["x"], 0), atol=1e-5)
    np.testing.assert_allclose(found.deviation[:2], np.std(labeled(0)["x"], 0), rtol=1e-5)


def test_dropout_is_of_training_alone_and_keeps_the_mean():
    module, x = PairClassifier((64,), 2, dropout=0.25), jnp.ones((4, 3))
    variables = module.init(KEY, x)
    hidden = nn.relu(x @ variables["params"]["Dense_0"]["kernel"] + variables["params"]["Dense_0"]["bias"])
    last = variables["params"]["Dense_1"]
    np.testing.assert_allclose(module.apply(variables, x), hidden @ last["kernel"] + last["bias"], rtol=1e-5)

    def trained(key):
        return module.apply(variables, x, train=True, rngs={"dropout": key})

    many = jax.vmap(trained)(jax.random.split(KEY, 2000))
    spread = np.std(many, 0) / np.sqrt(2000)
    assert np.all(spread > 0)
    assert np.all(np.abs(np.mean(many, 0) - module.apply(variables, x)) < 5 * spread)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, None, "moments: None"),
        ({"rows": labeled(0), "batch": 0}, None, "batch: 0"),
        ({"moments": (0.0, 1.0)}, {"x": jnp.zeros((3, 2))}, "public: a minibatch lacks 'x' or 'y'"),
        ({"moments": (0.0, 1.0)}, None, "public: a minibatch lacks"),
    ],
)
def test_what_is_missing_is_named(options, data, message):
    with pytest.raises(ValueError, match=message):
        classify(Linear(), optax.sgd(0.1), steps=1, **options).init(KEY, data)
