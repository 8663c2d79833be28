"""CDM-MI: exact queries, the noise that is learned, samples against a density that is known, guidance and selection."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, from_function
from jaxmia.attacks.image.cdm_mi import cdm_mi
from tests.models.compiled import compiled

KEY, CLASSES, SHAPE = jax.random.key(5), 2, (2, 2, 1)
KEPT = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # a_t
GRAY = jnp.full((30, *SHAPE), 0.5)  # zero in units of [-1, 1]


def kept(level):
    """a_t of a level in (0, 1]."""
    return jnp.asarray(KEPT, jnp.float32)[jnp.round(level * 1000).astype(int) - 1][:, None, None, None]


class Known(nn.Module):
    """The noise in gray images, times a weight of each class: exact where the weight is 1."""

    start: tuple[float, ...]

    @nn.compact
    def __call__(self, x, level, labels, train=False):
        weight = self.param("weight", lambda key: jnp.asarray(self.start))
        return x / jnp.sqrt(1 - kept(level)) * weight[labels][:, None, None, None]


class Gaussian(nn.Module):
    """What a perfect denoiser of pixels N(mean, deviation^2) answers, whatever the label."""

    mean: float
    deviation: float

    @nn.compact
    def __call__(self, x, level, labels, train=False):
        a = kept(level)
        return jnp.sqrt(1 - a) * (x - jnp.sqrt(a) * self.mean) / (a * self.deviation**2 + 1 - a)


class Constant(nn.Module):
    """Its label, over all pixels."""

    @nn.compact
    def __call__(self, x, level, labels, train=False):
        return jnp.zeros_like(x) + labels[:, None, None, None] / 10


def target(**options):
    """Class 1 where the first pixel is above 0.5."""
    return from_function(
        lambda w, x: jnp.stack([0 * x[:, 0, 0, 0], w * (x[:, 0, 0, 0] - 0.5)], 1),
        jnp.ones(()),
        classes=CLASSES,
        **options,
    )


def attack(denoiser, gallery=GRAY, oracle=None, **options):
    options = {"budget": 10**7, **options}
    return cdm_mi(oracle or target().view(Access.LABELS), gallery, CLASSES, denoiser, **options)


def run(process, case=None):
    state, step, told = compiled(process.init)(KEY, case), compiled(process.step), None
    for t in range(process.steps):
        state, told = step(jax.random.fold_in(KEY, t), state, case)
    return state, told


@pytest.mark.nightly
@pytest.mark.parametrize(("n", "steps"), [(30, 1), (257, 257), (512, 2)])
def test_labels_every_public_image_once(n, steps):
    served = []

    def answer(key, scores):
        jax.debug.callback(lambda seen: served.append(1), scores)
        return scores

    gallery = jax.random.uniform(KEY, (n, *SHAPE))
    process = attack(None, gallery, target(defense=Defense(answer=answer)).view(Access.LABELS)).train[0](())
    state, told = run(process)
    jax.effects_barrier()
    assert process.steps == steps and int(told.queries) == len(served) == n
    np.testing.assert_array_equal(process.read(state), gallery[:, 0, 0, 0] > 0.5)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("weights", "loss"), [((1.0, 1.0, 1.0), 0.0), ((1.0, 1.0, 0.0), 0.25), ((0.0, 1.0, 1.0), 0.45)]
)
def test_learns_the_noise_that_was_added(weights, loss):
    """A quarter of the examples has no label, and six in ten of the others are of class 0."""
    stage = attack(Known(weights), drop=0.25, train_batch=20_000).train[1]((np.arange(30) % 5 > 2,))
    _, told = compiled(stage.step)(KEY, compiled(stage.init)(KEY, None), None)
    assert float(told.loss) == pytest.approx(loss, abs=1e-5 if loss == 0 else 0.015) and int(told.queries) == 0


@pytest.mark.nightly
def test_training_finds_the_weights_and_averages_them():
    options = {"train_steps": 300, "train_rate": 0.03, "train_batch": 32, "average": 0.5}
    stage = attack(Known((0.0, 0.0, 0.0)), **options).train[1]((np.arange(30) % 2,))
    state, step, mean = compiled(stage.init)(KEY, None), compiled(stage.step), np.zeros(3)
    for t in range(stage.steps):
        state, _ = step(jax.random.fold_in(KEY, t), state, None)
        keep = min(0.5, (1 + t) / (10 + t))
        mean = keep * mean + (1 - keep) * np.asarray(state[0]["weight"])
        if t == 12:
            np.testing.assert_allclose(stage.read(state)["params"]["weight"], mean, rtol=1e-4)
    np.testing.assert_allclose(stage.read(state)["params"]["weight"], 1.0, atol=0.02)


@pytest.mark.nightly
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_have_the_density_that_the_denoiser_knows(eta):
    process = attack(Gaussian(0.2, 0.1), steps=500, candidates=500, eta=eta).solve((None, {"params": {}}))
    state, told = run(process, jnp.asarray(0, jnp.int32))
    pixels = np.asarray(state.guess).ravel()  # 2000: standard errors 0.0022 of the mean, 0.0016 of the deviation
    assert pixels.mean() == pytest.approx(0.2, abs=0.01) and pixels.std() == pytest.approx(0.1, abs=0.008)
    assert int(told.queries) == 500 * 500 and bool(told.done)


@pytest.mark.nightly
def test_guidance_goes_beyond_the_condition():
    """Class 1 is answered 0.1 and none 0.2: with w = 3 the noise is 0.4 - 0.6."""
    process = attack(Constant(), steps=10, guidance=3.0, eta=0.0, candidates=3).solve((None, {"params": {}}))
    state = compiled(process.init)(KEY, jnp.asarray(1, jnp.int32))
    x, a, s = np.asarray(state.x), KEPT[999], KEPT[899]
    guess = np.clip((x + np.sqrt(1 - a) * 0.2) / np.sqrt(a), -1, 1)
    after = np.sqrt(s) * guess + np.sqrt(1 - s) * (x - np.sqrt(a) * guess) / np.sqrt(1 - a)
    state, _ = compiled(process.step)(KEY, state, jnp.asarray(1, jnp.int32))
    np.testing.assert_allclose(state.guess, guess, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.x, after, rtol=1e-3, atol=1e-4)


@pytest.mark.nightly
def test_selects_the_candidate_that_was_called_most():
    process = attack(Gaussian(0.0, 0.5), steps=8, candidates=6).solve((None, {"params": {}}))
    label = jnp.asarray(1, jnp.int32)
    state, step, score = compiled(process.init)(KEY, label), compiled(process.step), np.zeros(6)
    shares = np.append(1.0, KEPT[(np.arange(1, 9) * 1000 // 8) - 1])
    for t in range(8):
        state, told = step(jax.random.fold_in(KEY, t), state, label)
        score += shares[7 - t] * (np.asarray(state.guess)[:, 0, 0, 0] > 0)
        assert int(told.queries) == 6 * (t + 1) and bool(told.done) == (t == 7)
    assert score.min() < score.max()
    np.testing.assert_allclose(state.score, score, rtol=1e-4)
    np.testing.assert_allclose(process.read(state), (np.asarray(state.guess)[score.argmax()] + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(state.x, state.guess, atol=1e-5)  # no noise is left


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1001}, {"candidates": 0}, {"budget": 7999}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        attack(Constant(), **wrong)
