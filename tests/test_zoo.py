"""Every named classifier trains on easy pictures, and the autoencoder's layers are pre-trained one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import Plan, fit
from jaxmia.core import Defense
from jaxmia.data.batches import minibatches
from jaxmia.modalities.image import zoo
from jaxmia.models import DenoisingAutoencoderClassifier
from jaxmia.train import denoising, predict, supervised

SHAPE, CLASSES = (16, 16, 1), 3
PLAN = Plan(progress=False)


def pictures(seed: int, n: int = 96) -> dict[str, np.ndarray]:
    """A bright block whose place tells the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n).astype(np.int32)
    x = 0.2 + 0.1 * rng.standard_normal((n, *SHAPE))
    for i, label in enumerate(y):
        x[i, 5 * label : 5 * label + 5, 4:12] += 0.5
    return {"x": np.clip(x, 0, 1).astype(np.float32), "y": y}


SMALL = {name: make for name, make in (zoo.TARGETS | zoo.EVALUATORS).items() if name not in zoo.PUBLISHED}


@pytest.mark.nightly
@pytest.mark.parametrize("name", SMALL)
def test_learns_in_a_few_steps(name):
    recipe = SMALL[name](steps=60)
    module, data = recipe.module(CLASSES, SHAPE), pictures(0)
    batches, key, start = minibatches(data, 16, 0), jax.random.key(0), None
    for stage in recipe.pretrain:
        start, _ = fit(stage(module, start), key, batches, steps=20, plan=PLAN)
    process = supervised(module, recipe.optimizer, steps=recipe.steps, start=start)
    variables, _ = fit(process, key, batches, plan=PLAN)
    test = pictures(1)
    assert (predict(module, variables, test["x"]).argmax(1) == test["y"]).mean() > 0.8


@pytest.mark.parametrize("augment", [zoo.shift_and_flip, zoo.degrade])
def test_augmentation_keeps_shape_and_depends_on_the_key(augment):
    image = jnp.asarray(pictures(0)["x"][0])
    one, same, other = (np.asarray(augment(jax.random.key(k), image)) for k in (0, 0, 1))
    assert one.shape == image.shape and np.isfinite(one).all()
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_pretraining_lowers_a_layers_loss_and_leaves_the_ones_below():
    module = DenoisingAutoencoderClassifier(CLASSES, SHAPE, (32, 8))
    batches = minibatches({"x": pictures(0)["x"]}, 32, 0)
    first, history = fit(denoising(module, 1, optax.adam(3e-3), steps=150), jax.random.key(0), batches, plan=PLAN)
    assert history.loss[-10:].mean() < 0.9 * history.loss[:10].mean()
    stage = denoising(module, 2, optax.adam(3e-3), steps=150, start=first)
    second, history = fit(stage, jax.random.key(1), batches, plan=PLAN)
    assert history.loss[-10:].mean() < 0.9 * history.loss[:10].mean()
    np.testing.assert_array_equal(first["params"]["kernel1"], second["params"]["kernel1"])
    assert np.abs(first["params"]["kernel2"] - second["params"]["kernel2"]).max() > 1e-3


def test_training_starts_from_given_variables():
    recipe = zoo.softmax(steps=1)
    module = recipe.module(CLASSES, SHAPE)
    batches = minibatches(pictures(0), 16, 0)
    start = module.init(jax.random.key(5), jnp.zeros((1, *SHAPE)))
    start = jax.tree.map(lambda leaf: leaf + 1.0, start)
    process = supervised(module, optax.sgd(0.0), steps=1, defense=Defense(), start=start)
    variables, _ = fit(process, jax.random.key(0), batches, plan=PLAN)
    jax.tree.map(np.testing.assert_array_equal, variables["params"], start["params"])
