"""MID's divergence against Monte Carlo, its noise, its head in classifiers, its price."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import engine, models, train
from jaxmia.core import Defense
from jaxmia.defenses.mid import divergence, mid
from jaxmia.models.face_networks import VGG16
from jaxmia.oracle import Outputs, sown_features
from jaxmia.train import mean_cross_entropy

CLASSES, DIMENSIONS = 4, 6
KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (8, DIMENSIONS))


def test_divergence_is_the_mean_log_ratio_of_the_two_densities():
    mean, deviation = jnp.array([0.7, -1.2, 0.1]), jnp.array([0.3, 1.0, 1.8])
    draws = mean + deviation * jax.random.normal(KEY, (200_000, 3))
    ratio = -0.5 * ((draws - mean) / deviation) ** 2 - jnp.log(deviation) + 0.5 * draws**2
    assert float(divergence(mean, deviation)) == pytest.approx(float(ratio.sum(1).mean()), rel=0.01)
    assert float(divergence(jnp.zeros(3), jnp.ones(3))) == pytest.approx(0, abs=1e-5)


def _applied(module, variables, x=X, rngs=None):
    logits, changed = module.apply(variables, x, train=rngs is not None, rngs=rngs, mutable=["features"])
    return np.asarray(logits), sown_features(changed)


@pytest.mark.nightly
def test_the_noise_of_training_has_the_deviation_and_serving_has_none():
    module = mid(width=2).model(models.MLP(CLASSES, width=5))
    variables = module.init(KEY, X)
    head = variables["params"]["Bottleneck_0"]
    served, features = _applied(module, variables)
    mean, deviation = features["Bottleneck_0/_mean"], features["Bottleneck_0/_deviation"]
    assert mean.shape == deviation.shape == (8, 2) and set(variables) == {"params"}
    expected = mean @ head["logits"]["kernel"] + head["logits"]["bias"]
    np.testing.assert_allclose(served, expected, atol=1e-6)
    assert (served == _applied(module, variables)[0]).all()

    raw = features["penultimate"] @ head["statistics"]["kernel"] + head["statistics"]["bias"]
    np.testing.assert_allclose(mean, raw[:, :2], atol=1e-6)
    np.testing.assert_allclose(deviation, np.log1p(np.exp(raw[:, 2:] - 5)), rtol=1e-4)

    keys = jax.random.split(KEY, 4000)
    noisy = jax.vmap(lambda key: module.apply(variables, X[:1], train=True, rngs={"dropout": key})[0])(keys)
    spread = np.sqrt((deviation[0] ** 2) @ (head["logits"]["kernel"] ** 2))
    np.testing.assert_allclose(np.std(noisy, 0), spread, rtol=0.05)
    np.testing.assert_allclose(np.mean(noisy, 0), served[0], atol=4 * spread.max() / np.sqrt(4000))


def test_the_loss_adds_beta_times_the_mean_divergence_and_padding_counts_nowhere():
    rng = np.random.default_rng(1)
    mean, deviation = rng.normal(size=(5, 3)), rng.random((5, 3)) + 0.1
    rows = 0.5 * (mean**2 + deviation**2 - 1 - 2 * np.log(deviation)).sum(1)

    def term(mean, deviation, **more):
        features = {"inner/head/_mean": jnp.asarray(mean), "inner/head/_deviation": jnp.asarray(deviation)}
        batch = {"x": np.zeros((len(mean), 2)), "y": np.zeros(len(mean), np.int32), **more}
        return float(mid(beta=0.5).loss(lambda o, b: 2.0)(Outputs(jnp.zeros((len(mean), 2)), features), batch))

    assert term(mean, deviation) == pytest.approx(2 + 0.5 * rows.mean(), rel=1e-5)
    mask = np.array([1, 1, 1, 0, 0], np.float32)
    assert term(mean, deviation, mask=mask) == pytest.approx(2 + 0.5 * rows[:3].mean(), rel=1e-5)
    assert term(mean, deviation, mask=0 * mask) == 2


def test_the_head_goes_into_wrapped_and_named_classifiers():
    x = jnp.ones((1, 8, 8, 1))
    wrapped = mid().model(models.CenteredInput(models.ResNet(3, widths=(4, 8))))
    shapes = jax.eval_shape(wrapped.init, KEY, x)["params"]
    assert shapes["inner"]["Bottleneck_0"]["statistics"]["kernel"].shape == (8, 8)
    named = jax.eval_shape(mid().model(VGG16(3, width=8)).init, KEY, jnp.ones((1, 32, 32, 3)))
    assert set(named["params"]["fc_layer"]) == {"statistics", "logits"}
    with pytest.raises(ValueError, match="SoftmaxRegression has no 'head' to exchange"):
        mid().model(models.SoftmaxRegression(3))


def _trained(defense, steps=60):
    module = models.MLP(CLASSES, width=16)
    rng = np.random.default_rng(0)
    prototypes = rng.random((CLASSES, DIMENSIONS))

    def batches(step):
        rng = np.random.default_rng(step)
        y = rng.integers(0, CLASSES, 32).astype(np.int32)
        return {"x": (prototypes[y] + 0.1 * rng.normal(size=(32, DIMENSIONS))).astype(np.float32), "y": y}

    process = train.supervised(module, optax.adam(0.03), steps=steps, defense=defense)
    variables, _ = engine.fit(process, KEY, batches, plan=engine.Plan(progress=False))
    batch = batches(1000)
    logits, features = _applied(defense.model(module), variables, jnp.asarray(batch["x"]))
    return float(mean_cross_entropy(Outputs(jnp.asarray(logits), {}), batch)), features


@pytest.mark.nightly
def test_a_higher_price_lets_less_through():
    def passed(beta):
        loss, features = _trained(mid(beta=beta))
        mean, deviation = features["Bottleneck_0/_mean"], features["Bottleneck_0/_deviation"]
        return float(divergence(mean, deviation).mean()), loss

    cheap, dear = passed(0.003), passed(3.0)
    assert dear[0] < 0.1 * cheap[0] and dear[1] > cheap[1] + 0.5
    assert cheap[1] < 0.5  # chance is log 4


@pytest.mark.nightly
def test_price_zero_is_the_same_head_undefended():
    logits, labels = jax.random.normal(KEY, (8, CLASSES)), {"x": X, "y": np.arange(8, dtype=np.int32) % CLASSES}

    def value(logits, mean, defense):
        features = {"_mean": mean, "_deviation": jnp.ones_like(mean)}
        return defense.loss(mean_cross_entropy)(Outputs(logits, features), labels)

    both = jax.value_and_grad(value, (0, 1))
    (free, slopes), (plain, expected) = (both(logits, 3 * X, defense) for defense in (mid(beta=0.0), Defense()))
    assert free == plain and (slopes[0] == expected[0]).all() and (slopes[1] == 0).all()


def test_a_model_without_the_head_is_refused_and_illegal_arguments_are_named():
    defense = mid()._replace(model=Defense().model)
    process = train.supervised(models.MLP(CLASSES, width=4), optax.sgd(0.1), steps=1, defense=defense)
    batch = {"x": X, "y": np.zeros(8, np.int32)}
    with pytest.raises(ValueError, match="mid: the model sows no '_mean'"):
        process.step(KEY, process.init(KEY, batch), batch)
    for beta in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"beta: {beta}; legal is finite and 0 or more"):
            mid(beta=beta)
    with pytest.raises(ValueError, match="width: 0; legal is None or 1 or more"):
        mid(width=0)
