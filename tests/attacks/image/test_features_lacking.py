"""An attack that needs a feature of the target says which, and never goes on without it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Outputs, attacks, from_function, from_linen, models
from jaxmia.attacks.image.deep_inversion import deep_inversion
from jaxmia.attacks.image.gmi import gmi
from jaxmia.priors import pixels
from jaxmia.testing.benches import networks

KEY, SHAPE, CLASSES = jax.random.key(0), (4, 4, 1), 3
IMAGES = np.random.default_rng(0).random((6, *SHAPE)).astype(np.float32)
MASK = np.eye(4, dtype=bool)
LOGITS = lambda params, x: x.reshape(len(x), -1) @ params  # noqa: E731
WEIGHTS = np.random.default_rng(1).normal(size=(16, CLASSES)).astype(np.float32)
OTHERWISE = from_function(lambda p, x: Outputs(LOGITS(p, x), {"inner/penultimate": x}), WEIGHTS, classes=CLASSES)
PRIOR = pixels(SHAPE)
INPUTS = {
    "gallery": jnp.asarray(IMAGES),
    "mask": jnp.asarray(MASK),
    "shape": SHAPE,
    "classes": CLASSES,
    "surrogates": (),
    "layers": ("penultimate",),
    "inverses": (networks.Surrogate(16), networks.Surrogate(16)),
    "inpainter": models.InpaintingGenerator(2),
    "critic": models.WGANCritic(2),
    "prior": PRIOR,
    "base": lambda oracle, objective: gmi(oracle, PRIOR, objective=objective),
    "conditional_generator": networks.ConditionalGenerator(CLASSES, SHAPE),
}


@pytest.mark.parametrize(
    "name, option, feature",
    [
        ("secret_gen", "feature", "penultimate"),
        ("lomma", "feature", "penultimate"),
        ("ensemble_inversion", "feature", "penultimate"),
        ("data_free_split", "layers", "penultimate"),
        ("smi", "feature", "attention"),
    ],
)
def test_a_feature_that_the_target_does_not_show(name, option, feature):
    method = attacks.get(f"image/{name}")
    given = {key: INPUTS[key] for key in method.inputs if key != "oracle"}
    with pytest.raises(ValueError, match=f"{option}: '{feature}'; the target shows inner/penultimate"):
        attack = method.factory(OTHERWISE.view(Access.WEIGHTS), **given)
        for stage in attack.train:  # at the latest while its first stage that reads it is traced
            process = stage(())
            batch = {"x": IMAGES}
            jax.eval_shape(lambda process=process: process.step(KEY, process.init(KEY, batch), batch))


def test_ensemble_inversion_can_be_asked_to_do_without():
    factory = attacks.get("image/ensemble_inversion").factory
    view = OTHERWISE.view(Access.WEIGHTS)
    attack = factory(view, INPUTS["conditional_generator"], CLASSES, feature=None, dimensions=4, batch=2)
    process = attack.train[0](())
    jax.eval_shape(lambda: process.step(KEY, process.init(KEY, None), None))


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(nn.BatchNorm(use_running_average=True)(x.reshape(len(x), -1)))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.BatchNorm(use_running_average=True, name="b")(x), None


class Scanned(Norm):
    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "batch_stats": 0}
        x = nn.scan(Layer, variable_axes=axes, split_rngs={"params": True}, length=2)(name="scan")(x, None)[0]
        return Norm(name="norm")(x)


def linen(module):
    return from_linen(module, module.init(KEY, IMAGES), classes=CLASSES).view(Access.WEIGHTS)


def test_deep_inversion_needs_what_every_batch_norm_reads():
    deep_inversion(linen(Norm()), SHAPE)
    with pytest.raises(ValueError, match="moments: 'batch_norm/<i>/<path>'; the target shows inner/penultimate"):
        deep_inversion(OTHERWISE.view(Access.WEIGHTS), SHAPE)
    with pytest.raises(ValueError, match="moments: 'batch_norm/<i>/scan/b'; the target shows batch_norm/0000/norm/"):
        deep_inversion(linen(Scanned()), SHAPE)
    for view in (OTHERWISE.view(Access.WEIGHTS), linen(Scanned())):
        process = deep_inversion(view, SHAPE, moments=0.0, jitter=0).solve(())
        labels = jnp.arange(2)
        jax.eval_shape(lambda process=process: process.step(KEY, process.init(KEY, labels), labels))
