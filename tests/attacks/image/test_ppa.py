"""PPA: the Poincare distance against numpy, and that both selections look at what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.ppa import ppa
from jaxmia.core import Prior
from jaxmia.recipes.select import Selected

KEY, CLASSES, SHAPE = jax.random.key(2), 4, (8, 8, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
MATRIX = np.random.default_rng(3).normal(size=(64, CLASSES)).astype(np.float32)
TARGET = from_function(lambda w, x: x.reshape(-1, 64) @ w, jnp.asarray(MATRIX), classes=CLASSES)
PRIOR = Prior(  # its penalty would pull every latent to 0
    lambda key: jax.random.normal(key, (64,)), lambda z: z.reshape(SHAPE), lambda z, x: 1e6 * jnp.sum(z**2), lambda z: z
)
LABEL = jnp.asarray(2, jnp.int32)


def attack(target=TARGET, **options):
    return ppa(target.view(Access.WEIGHTS), PRIOR, **options).solve(())


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize("mirror", [True, False])
def test_the_pool_is_ranked_by_the_confidence_in_image_and_mirror_image(mirror):
    process = attack(pool=30, starts=3, mirror=mirror)
    drawn = np.stack([jax.random.normal(jax.random.fold_in(KEY, i), (64,)) for i in range(30)])
    turned = drawn.reshape(30, 8, 8)[:, :, ::-1].reshape(30, 64)
    scores = softmax(drawn @ MATRIX)[:, 2]
    scores = (scores + softmax(turned @ MATRIX)[:, 2]) / 2 if mirror else scores
    kept = process.init(KEY, LABEL).runs.latent
    np.testing.assert_allclose(kept, drawn[np.argsort(-scores)[:3]], rtol=1e-6)


@pytest.mark.nightly
def test_one_step_is_adam_on_the_poincare_distance():
    process = attack(pool=1, starts=1, crop=(1.0, 1.0), rate=0.01)
    state = process.init(KEY, LABEL)
    z = np.asarray(state.runs.latent[0], np.float64)

    def distance(z):
        logits = z @ MATRIX.astype(np.float64)
        u, v = logits / np.abs(logits).sum(), np.clip(np.eye(CLASSES)[2] - 1e-4, 0, 1)
        return np.arccosh(1 + 2 * ((u - v) ** 2).sum() / ((1 - (u**2).sum()) * (1 - (v**2).sum())))

    after, told = process.step(KEY, state, LABEL)
    np.testing.assert_allclose(told.loss, distance(z), rtol=1e-3)
    slopes = np.asarray([(distance(z + 1e-5 * e) - distance(z - 1e-5 * e)) / 2e-5 for e in np.eye(64)])
    clear = np.abs(slopes) > 1e-3  # Adam's first step is the sign of the gradient
    np.testing.assert_allclose((np.asarray(after.runs.latent[0]) - z)[clear], -0.01 * np.sign(slopes[clear]), rtol=0.01)
    assert clear.mean() > 0.5


@pytest.mark.nightly
def test_the_latent_that_only_looks_right_uncropped_is_not_kept():
    """One target reads the middle of the image, and, more loudly, its corner, which no cropped view shows in place."""
    weights = np.zeros((8, 8, CLASSES), np.float32)
    weights[2:6, 2:6, 2], weights[0, 0, 2] = 0.5, 20.0
    target = from_function(
        lambda w, x: x.reshape(-1, 64) @ w, jnp.asarray(weights.reshape(64, CLASSES)), classes=CLASSES
    )
    robust, brittle = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    robust[1:7, 1:7], brittle[0, 0] = 1.0, 1.0
    process = attack(target, pool=2, starts=2)
    runs = process.init(KEY, LABEL).runs
    runs = runs._replace(latent=jnp.asarray(np.stack([brittle.ravel(), robust.ravel()])))
    assert softmax(brittle.ravel() @ weights.reshape(64, CLASSES))[2] > 0.999  # the most believed by far
    np.testing.assert_array_equal(process.read(Selected(runs, LABEL))[:, :, 0], robust)
    without = attack(target, pool=2, starts=2, views=0)
    np.testing.assert_array_equal(without.read(Selected(runs, LABEL))[:, :, 0], brittle)


@pytest.mark.nightly
def test_it_finds_what_the_target_believes():
    cases = np.arange(CLASSES, dtype=np.int32)
    options = {"pool": 10, "starts": 2, "views": 5, "steps": 60, "rate": 0.05}
    found = solve(attack(**options), KEY, cases, plan=ONE).output.reshape(CLASSES, 64)
    assert np.all(softmax(found @ MATRIX)[cases, cases] > 0.9)


def test_refuses():
    with pytest.raises(ValueError, match="views: -1"):
        attack(views=-1)
