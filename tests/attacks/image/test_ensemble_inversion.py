"""Ensemble inversion: what several models tell together, and what one of them does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, Scenario, from_function, run
from jaxmia.attacks.image.ensemble_inversion import ensemble_inversion
from jaxmia.testing.benches.networks import ConditionalGenerator

KEY, CLASSES, SHAPE = jax.random.key(6), 2, (4, 4, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
GENERATOR = ConditionalGenerator(CLASSES, SHAPE)
PATTERN = np.random.default_rng(0).choice([-1.0, 1.0], (4, 4, 1)).astype(np.float32)
CASES = np.array([0, 1], np.int32)


def half(rows):
    """Tells two opposite patterns apart by some rows of pixels alone."""
    seen = np.zeros(SHAPE, np.float32)
    seen[rows] = PATTERN[rows]

    def logits(params, x):
        match = (x - 0.5).reshape(len(x), -1) @ params
        return jnp.stack([match, -match], 1)

    return from_function(logits, jnp.asarray(3.0 * seen.reshape(-1)), classes=CLASSES)


TOP, BOTTOM = half(slice(0, 2)), half(slice(2, 4))


def painted(*others, **options):
    small = {"dimensions": 4, "steps": 200, "batch": 8, "rate": 0.01, "diversity": 0.0, "feature": None}
    views = tuple(model.view(Access.WEIGHTS) for model in others)
    attack = ensemble_inversion(TOP.view(Access.WEIGHTS), GENERATOR, CLASSES, others=views, **{**small, **options})
    return attack, run(attack, KEY, Scenario(TOP, CASES, public=lambda step: {"x": np.zeros((1, 1))}), plan=ONE)


def likeness(images, rows):
    """Correlation with what the class looks like, least over both classes."""
    signs = np.array([1.0, -1.0])
    return min(np.corrcoef(images[c][rows].ravel() - 0.5, signs[c] * PATTERN[rows].ravel())[0, 1] for c in CASES)


@pytest.mark.nightly
def test_an_ensemble_shows_what_no_single_model_knows():
    _, alone = painted()
    _, together = painted(BOTTOM)
    assert likeness(alone.output, slice(0, 2)) >= 0.9 and likeness(together.output, slice(0, 2)) >= 0.9
    assert likeness(alone.output, slice(2, 4)) <= 0.6  # TOP does not look there
    assert likeness(together.output, slice(2, 4)) >= 0.9


@pytest.mark.nightly
def test_the_loss_is_the_mean_over_models():
    attack, _ = painted(BOTTOM, steps=1, activation=0.0)
    stage = attack.train[0](())
    state = stage.init(KEY, None)
    _, told = stage.step(KEY, state, None)
    draw, name = jax.random.split(KEY)
    labels = np.tile(jax.random.randint(name, (8,), 0, CLASSES), 2)
    images = np.asarray(GENERATOR.apply(state[0], jax.random.normal(draw, (16, 4)), labels))
    losses = []
    for model in (TOP, BOTTOM):
        match = (images - 0.5).reshape(16, -1) @ np.asarray(model.params)
        losses.append(np.log1p(np.exp(-2 * np.where(labels == 0, match, -match))).mean())
    np.testing.assert_allclose(told.loss, np.mean(losses), rtol=1e-4)


@pytest.mark.nightly
def test_diversity_spreads_the_images_of_a_class():
    def spread(diversity):
        attack, _ = painted(diversity=diversity)
        stage = attack.train[0](())
        state, step = stage.init(KEY, None), jax.jit(stage.step)
        for t in range(200):
            state, _ = step(jax.random.fold_in(KEY, t), state, None)
        z = jax.random.normal(KEY, (64, 4))
        return np.asarray(GENERATOR.apply(state[0], z, jnp.zeros(64, jnp.int32))).std(0).mean()

    assert spread(5.0) >= 1.5 * spread(0.0)


@pytest.mark.nightly
def test_the_kept_image_is_the_one_believed_most():
    attack, _ = painted(steps=1)
    stage = attack.train[0](())
    variables = stage.init(KEY, None)[0]
    process, label = attack.solve((variables,)), jnp.asarray(1, jnp.int32)
    kept = process.init(KEY, label)
    images = GENERATOR.apply(variables, jax.random.normal(KEY, (32, 4)), jnp.full(32, 1))
    believed = -((np.asarray(images) - 0.5).reshape(32, -1) @ np.asarray(TOP.params))
    np.testing.assert_allclose(kept, images[believed.argmax()], atol=1e-6)


@pytest.mark.parametrize("wrong", [{"dimensions": 0}, {"batch": 0}, {"draws": 0}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ensemble_inversion(TOP.view(Access.WEIGHTS), GENERATOR, CLASSES, **wrong)
    with pytest.raises(TypeError, match="image/ensemble_inversion.*WEIGHTS"):
        ensemble_inversion(TOP.view(Access.WEIGHTS), GENERATOR, CLASSES, others=(BOTTOM.view(Access.SCORES),))
