"""SecretGen: pseudo-label and latent against numpy, the critics' and the generator's losses, and what is painted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, from_function
from jaxmia.attacks.image.secret_gen import secret_gen
from jaxmia.oracle import Outputs
from jaxmia.testing.benches.secret_gen import Critic

KEY, CLASSES, SHAPE, D = jax.random.key(15), 4, (6, 6, 1), 3
RNG = np.random.default_rng(11)
MATRIX = RNG.normal(size=(36, CLASSES)).astype(np.float32)
MASK = jnp.asarray(np.arange(36).reshape(6, 6) % 3 == 1)
GALLERY = jnp.asarray(RNG.uniform(size=(10, *SHAPE)).astype(np.float32))
WEIGHTS = RNG.normal(size=(D, 36)).astype(np.float32)


class Painter:
    """G(z, x) = sigmoid(z W + x), without a parameter to learn, but for a shift."""

    def init(self, key, x, mask, z, train):
        return {"params": {"shift": jnp.zeros(())}}

    def apply(self, variables, x, mask, z, train, mutable):
        assert mask.shape == (*x.shape[:3], 1)
        told = jax.nn.sigmoid((z @ WEIGHTS).reshape(-1, *SHAPE) + x + variables["params"]["shift"])
        return told, {}


def outputs(params, batch):
    flat = batch.reshape(len(batch), -1)
    return Outputs(flat @ params, {"penultimate": flat[:, :5] ** 2})


VIEW = from_function(outputs, jnp.asarray(MATRIX), classes=CLASSES).view(Access.WEIGHTS)
ATTACK = {"dimensions": D, "latents": 30, "patches": 2, "gan_batch": 4}


def make(**options):
    return secret_gen(VIEW, GALLERY, MASK, Painter(), Critic(), **{**ATTACK, **options})


def networks():
    variables = [Critic().init(jax.random.key(i), GALLERY[:1])["params"] for i in (1, 2)]
    return Painter().init(0, 0, 0, 0, False), {"params": {"whole": variables[0], "hole": variables[1]}}


def fitted():
    g, d = networks()
    return ({"generator": g, "critic": d},)


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


HIDDEN, COLOR = np.asarray(MASK)[..., None], np.asarray(GALLERY).mean()


def painted(x, z):
    """x^, `[n, h, w, c]`."""
    shown = np.where(HIDDEN, COLOR, x)
    return np.where(HIDDEN, 1 / (1 + np.exp(-((z @ WEIGHTS).reshape(-1, *SHAPE) + shown))), x)


def score(params, x):
    last, first = (jax.tree.map(np.asarray, params[name]) for name in ("Dense_0", "Dense_1"))  # as they are called
    hidden = x.reshape(len(x), -1) @ first["kernel"] + first["bias"]
    return (np.where(hidden > 0, hidden, 0.2 * hidden) @ last["kernel"] + last["bias"])[:, 0]


@functools.cache
def begin():
    return jax.jit(make().solve(fitted()).init)


@pytest.mark.parametrize("case", range(4))
def test_the_pseudo_label_and_the_latent(case):
    x = np.asarray(GALLERY[case])
    state = begin()(KEY, GALLERY[case])
    z = np.clip(np.asarray(jax.random.normal(KEY, (30, D))), -1, 1)
    images = painted(x, z)
    told = softmax(images.reshape(30, -1) @ MATRIX)
    metric = told.copy()
    for rows in (slice(0, 3), slice(3, 6)):
        for columns in (slice(0, 3), slice(3, 6)):
            cut = images.copy()
            cut[:, rows, columns] = COLOR
            metric += softmax(cut.reshape(30, -1) @ MATRIX)
    label = metric.mean(0).argmax()
    assert int(state.label) == label
    taken = told.argmax(1) == label
    best = np.where(taken, told[:, label], -1).argmax() if taken.any() else 0
    np.testing.assert_allclose(state.z, z[best], atol=1e-6)


def test_hidden_pixels_do_not_count_and_the_others_stay():
    process = make().solve(fitted())
    one = jnp.asarray(GALLERY[0])
    other = jnp.where(HIDDEN, 0.123, one)
    states = [begin()(KEY, x) for x in (one, other)]
    first, second = (np.asarray(process.read(state)) for state in states)
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_array_equal(first[~HIDDEN], np.asarray(one)[~HIDDEN])
    np.testing.assert_allclose(first, painted(np.asarray(one), np.asarray(states[0].z)[None])[0], atol=1e-5)


def test_the_search_descends_on_the_loss_of_the_paper():
    options = {"identity_weight": 7.0, "rate": 0.01, "momentum": 0.0, "reference_batch": 1}
    process, x = make(**options).solve(fitted()), np.asarray(GALLERY[1])
    state, step = jax.jit(process.init)(KEY, GALLERY[1]), jax.jit(process.step)
    after, told = step(KEY, state, GALLERY[1])
    critics, label = fitted()[0]["critic"]["params"], int(state.label)

    def loss(z):
        image = painted(x, z[None])
        realism = score(critics["whole"], image) + score(critics["hole"], image * HIDDEN)
        return -7 * np.log(softmax(image.reshape(1, -1) @ MATRIX)[0, label]) - realism[0]

    z = np.asarray(state.z, np.float64)
    np.testing.assert_allclose(told.loss, loss(z), rtol=1e-4)
    slope = np.array([(loss(z + 1e-4 * e) - loss(z - 1e-4 * e)) / 2e-4 for e in np.eye(D)])
    np.testing.assert_allclose(after.z, np.clip(z - 0.01 * slope, -1, 1), atol=1e-4)
    for _ in range(20):
        state, told = step(KEY, state, GALLERY[1])
    assert float(told.loss) < loss(z)


def test_the_step_is_the_released_one():
    """v <- 0.9 v - 0.01 mean gradient of 64, z <- z - 0.9 v_before + 1.9 v, clipped to [-1, 1]."""
    process, velocity = make().solve(fitted()), np.zeros(D)
    state, step = jax.jit(process.init)(KEY, GALLERY[1]), jax.jit(process.step)

    def loss(z):
        x = painted(np.asarray(GALLERY[1]), z[None])
        critics = fitted()[0]["critic"]["params"]
        realism = score(critics["whole"], x) + score(critics["hole"], x * HIDDEN)
        return -100 * np.log(softmax(x.reshape(1, -1) @ MATRIX)[0, int(state.label)]) - realism[0]

    for _ in range(3):
        z = np.asarray(state.z, np.float64)
        slope = np.array([(loss(z + 1e-4 * e) - loss(z - 1e-4 * e)) / 2e-4 for e in np.eye(D)])
        before, velocity = velocity, 0.9 * velocity - 0.01 * slope / 64
        state, _ = step(KEY, state, GALLERY[1])
        moved = np.asarray(state.z) - z
        assert np.abs(moved).max() > 1e-4
        np.testing.assert_allclose(moved, np.clip(z - 0.9 * before + 1.9 * velocity, -1, 1) - z, rtol=2e-2, atol=2e-6)


@pytest.mark.nightly
def test_the_generator_is_told_to_be_diverse():
    """A larger weight of the diversity lowers the loss of the generator by what equation 2 says."""

    def generator_loss(weight):
        process = make(diversity=weight, gan_steps=1, gan_rate=0.0).train[0](())
        return float(jax.jit(lambda: process.step(KEY, process.init(KEY, None), None)[1].loss)())

    key = jax.random.split(KEY)[0]  # as `adversarial` splits it
    which, draw = jax.random.split(key)
    z = np.asarray(jax.random.normal(draw, (2, 4, D)))
    x = np.asarray(GALLERY)[np.asarray(jax.random.randint(which, (4,), 0, 10))]
    features = [painted(x, one).reshape(4, -1)[:, :5] ** 2 for one in z]
    apart = np.abs(features[0] - features[1]).mean() / np.abs(z[0] - z[1]).mean()
    assert apart > 0.01
    np.testing.assert_allclose(generator_loss(0.0) - generator_loss(2.0), 2 * apart, rtol=1e-3)


def test_refuses():
    with pytest.raises(ValueError, match=r"mask: shape \(5, 6\)"):
        secret_gen(VIEW, GALLERY, MASK[:5], Painter(), Critic())
    with pytest.raises(ValueError, match="with some pixels hidden"):
        secret_gen(VIEW, GALLERY, jnp.zeros((6, 6), bool), Painter(), Critic())
    for name, wrong in {"latents": 0, "patches": 7, "reference_batch": 0}.items():
        with pytest.raises(ValueError, match=name):
            make(**{name: wrong})
