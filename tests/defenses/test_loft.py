"""The head's rank and activation, what the tanh does to gradients, and where it fits."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import models
from jaxmia.defenses.bido import bido
from jaxmia.defenses.loft import loft
from jaxmia.models.face_networks import VGG16
from jaxmia.oracle import Outputs, sown_features

KEY = jax.random.key(0)
CLASSES, WIDTH = 12, 10
X = jax.random.normal(KEY, (40, 6))


def _applied(defense, scale=1.0):
    module = defense.model(models.MLP(CLASSES, width=WIDTH))
    variables = module.init(KEY, X)
    head = jax.tree.map(lambda leaf: scale * leaf, variables["params"]["LowRankHead_0"])
    variables = {"params": {**variables["params"], "LowRankHead_0": head}}
    logits, changed = module.apply(variables, X, mutable=["features"])
    return np.asarray(logits), sown_features(changed), jax.tree.map(np.asarray, head)


@pytest.mark.parametrize("activation", ["tanh", "none"])
def test_logits_are_the_formula(activation):
    logits, features, head = _applied(loft(rank=3, activation=activation))
    low = np.asarray(features["penultimate"]) @ head["down"]["kernel"] + head["down"]["bias"]
    np.testing.assert_allclose(features["LowRankHead_0/_low_rank"], low, atol=1e-5)
    middle = np.tanh(low) if activation == "tanh" else low
    np.testing.assert_allclose(logits, middle @ head["up"]["kernel"] + head["up"]["bias"], atol=1e-5)
    assert np.linalg.matrix_rank(logits, tol=1e-4) == 3
    assert np.linalg.matrix_rank(head["down"]["kernel"] @ head["up"]["kernel"], tol=1e-4) == 3


def test_the_tanh_takes_the_gradient_where_it_is_flat_and_goes_around_no_layer_below():
    def slope(activation, scale):
        module = loft(rank=3, activation=activation).model(models.MLP(CLASSES, width=WIDTH))
        params = module.init(KEY, X)["params"]
        down = jax.tree.map(lambda leaf: scale * leaf, params["LowRankHead_0"]["down"])
        params = {**params, "LowRankHead_0": {**params["LowRankHead_0"], "down": down}}
        gradient = jax.grad(lambda x: module.apply({"params": params}, x)[:, 0].sum())(X)
        return float(jnp.abs(gradient).mean())

    assert slope("tanh", 100.0) < 0.1 * slope("tanh", 1.0)
    assert slope("none", 100.0) == pytest.approx(100 * slope("none", 1.0), rel=1e-3)


@pytest.mark.parametrize("classes, rank", [(2, 1), (3, 2), (5, 2), (20, 5), (530, 132)])
def test_the_default_rank_is_a_quarter_of_the_classes(classes, rank):
    module = loft().model(models.MLP(classes, width=4))
    shapes = jax.eval_shape(module.init, KEY, X)["params"]["LowRankHead_0"]
    assert shapes["down"]["kernel"].shape == (4, rank) and shapes["up"]["kernel"].shape == (rank, classes)


@pytest.mark.nightly
def test_it_fits_named_and_wrapped_heads_and_hides_its_feature_from_others():
    named = jax.eval_shape(loft(rank=2).model(VGG16(3, width=8)).init, KEY, jnp.ones((1, 32, 32, 3)))
    assert set(named["params"]["fc_layer"]) == {"down", "up"}
    wrapped = loft(rank=2).model(models.CenteredInput(models.MLP(3, width=4)))
    assert set(jax.eval_shape(wrapped.init, KEY, X)["params"]["inner"]) == {"Dense_0", "LowRankHead_0"}
    logits, features, _ = _applied(loft(rank=2))
    batch = {"x": X, "y": np.arange(len(X), dtype=np.int32) % CLASSES}

    def penalty(features):
        return float(bido().loss(lambda o, b: 0.0)(Outputs(jnp.asarray(logits), features), batch))

    assert penalty(features) == penalty({"penultimate": features["penultimate"]})


def test_models_without_a_head_and_illegal_arguments_are_named():
    with pytest.raises(ValueError, match="SoftmaxRegression has no 'head' to exchange"):
        loft().model(models.SoftmaxRegression(3))
    with pytest.raises(ValueError, match="rank: 0; legal is None or 1 or more"):
        loft(rank=0)
    with pytest.raises(ValueError, match="activation: 'relu'; legal is 'tanh' or 'none'"):
        inspect.unwrap(loft)(activation="relu")  # without the type checks of the tests
