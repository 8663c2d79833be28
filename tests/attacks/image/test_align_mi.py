"""AlignMI: the averaged gradient against numpy, what a base sees of it, its cost, and a landscape that needs it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import Access, Attack, Plan, from_function, solve
from jaxmia.attacks.image.align_mi import align_mi
from jaxmia.attacks.image.gmi import gmi
from jaxmia.attacks.image.ppa import ppa
from jaxmia.core import Prior
from jaxmia.objectives import cross_entropy
from jaxmia.priors import pixels
from jaxmia.recipes import descend

KEY, CLASSES, SHAPE = jax.random.key(8), 3, (4, 4, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
MATRIX = np.random.default_rng(1).normal(size=(16, CLASSES)).astype(np.float32)
TARGET = from_function(lambda w, x: x.reshape(-1, 16) @ w, jnp.asarray(MATRIX), classes=CLASSES)
PRIOR = pixels(SHAPE, start="uniform", low=-10.0, high=10.0)
LABEL = jnp.asarray(1, jnp.int32)


def plain(oracle, prior=PRIOR, rate=1.0):
    """One SGD step of a known size per gradient."""
    return Attack(lambda fitted: descend(oracle, cross_entropy, prior, optax.sgd(rate), steps=1, keep="last"))


@pytest.mark.nightly
def test_the_step_is_the_mean_gradient_at_the_neighbors_and_the_loss_that_of_the_candidate():
    process = align_mi(
        TARGET.view(Access.WEIGHTS), plain, neighbors=5, average="perturbation", spread=0.3
    ).solve(())  # fmt: skip
    state = process.init(KEY, LABEL)
    x = np.asarray(state.latent)
    after, told = process.step(KEY, state, LABEL)

    def softmax(logits):
        return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()

    gradients = []
    for k in range(1, 6):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(KEY, k), SHAPE))
        near = (x + 0.3 * (x.max() - x.min()) * noise).reshape(-1)
        gradients.append((MATRIX @ (softmax(near @ MATRIX) - np.eye(CLASSES)[1])).reshape(SHAPE))
    np.testing.assert_allclose(after.latent, np.clip(x - np.mean(gradients, 0), -10, 10), rtol=1e-4, atol=1e-5)
    assert np.abs(np.std(gradients, 0)).max() > 0.05  # the neighbors do differ
    np.testing.assert_allclose(told.loss, -np.log(softmax(x.reshape(-1) @ MATRIX)[1]), rtol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "base", [functools.partial(gmi, restarts=3), functools.partial(ppa, pool=5, starts=2, views=3)], ids=["gmi", "ppa"]
)
def test_without_spread_it_is_the_base(base):
    base = functools.partial(base, prior=PRIOR, steps=10, rate=0.1)
    view, cases = TARGET.view(Access.WEIGHTS), np.arange(CLASSES, dtype=np.int32)
    alone = solve(base(view).solve(()), KEY, cases, plan=ONE)
    aligned = align_mi(view, base, neighbors=4, average="perturbation", spread=0.0).solve(())
    same = solve(aligned, KEY, cases, plan=ONE)
    np.testing.assert_allclose(same.output, alone.output, atol=1e-5)
    np.testing.assert_allclose(same.info.loss, alone.info.loss, rtol=1e-4)


def test_the_generator_runs_once_per_step_however_many_neighbors():
    prior = Prior(
        lambda key: jax.random.normal(key, (7,)),
        lambda z: jnp.sin(z @ jnp.ones((7, 16))).reshape(SHAPE),
        lambda z, x: jnp.zeros(()),
        lambda z: z,
    )
    process = align_mi(TARGET.view(Access.WEIGHTS), functools.partial(plain, prior=prior), neighbors=6).solve(())
    state = process.init(KEY, LABEL)
    shapes = [
        equation.outvars[0].aval.shape  # type: ignore[attr-defined]
        for equation in jax.make_jaxpr(process.step)(KEY, state, LABEL).eqns
        if equation.primitive.name in ("sin", "cos")  # forward and backward; the turn of a view has scalars
    ]
    generator = [shape for shape in shapes if 16 in shape]
    assert generator and all(shape == (16,) for shape in generator)


@pytest.mark.nightly
def test_averaging_finds_the_way_where_the_gradient_is_noise():
    """Logits with a ripple that is small and steep: the mean of the gradients around a point knows the slope below it."""

    def rippled(params, x):
        x = x.reshape(-1, 16)
        return x @ (4.0 * params) + jnp.sin(150.0 * x) @ (0.05 * params)

    view = from_function(rippled, jnp.asarray(MATRIX), classes=CLASSES).view(Access.WEIGHTS)
    base = functools.partial(plain, prior=pixels(SHAPE, start="uniform"), rate=1e-4)
    keys = jax.random.split(KEY, 20)

    def likeness(attack):
        """Of a step to one down the logits without their ripple, mean cosine over starts."""
        process = attack.solve(())
        states = jax.vmap(process.init, (0, None))(keys, LABEL)
        after, _ = jax.vmap(process.step, (0, 0, None))(keys, states, LABEL)
        taken = np.asarray(after.latent - states.latent).reshape(20, 16)
        x = np.asarray(states.latent).reshape(20, 16)
        wanted = np.asarray(jax.vmap(jax.grad(lambda x: -cross_entropy(x @ (4.0 * MATRIX), LABEL)))(jnp.asarray(x)))
        lengths = np.linalg.norm(taken, axis=1) * np.linalg.norm(wanted, axis=1)
        return float(np.mean(np.sum(taken * wanted, 1) / lengths))

    aligned = align_mi(view, base, neighbors=30, average="perturbation", spread=0.05)
    assert likeness(base(view)) < 0.7 < 0.9 < likeness(aligned)


@pytest.mark.nightly
def test_crops_have_the_released_aspects():
    """Of an image whose pixels say where they were, 0.9 to 1.1 as wide as high."""
    rows, columns = np.meshgrid(np.arange(32.0), np.arange(24.0), indexing="ij")
    ramp, shown = jnp.asarray(np.stack([rows, columns], -1), jnp.float32), []

    def logits(params, x):
        jax.debug.callback(lambda x: shown.extend(np.asarray(x)), x)
        return x.reshape(len(x), -1)[:, :CLASSES] * params

    view = from_function(logits, jnp.ones(CLASSES), classes=CLASSES).view(Access.WEIGHTS)
    prior = Prior(lambda key: jnp.ones(1), lambda z: z[0] * ramp, lambda z, x: jnp.zeros(()), lambda z: z)
    process = align_mi(
        view, functools.partial(plain, prior=prior), neighbors=200, average="transformation", flip=0.0, rotation=0.0
    ).solve(())  # fmt: skip
    process.step(KEY, process.init(KEY, LABEL), LABEL)
    jax.effects_barrier()
    copies = np.stack([x for x in shown if not np.array_equal(x, ramp)])[:, 8:-8, 8:-8]
    assert len(copies) == 200
    tall, wide = np.diff(copies[..., 0], axis=1).mean((1, 2)), np.diff(copies[..., 1], axis=2).mean((1, 2))
    assert 0.9 - 1e-3 <= np.min(wide / tall) < 0.92 and 1.08 < np.max(wide / tall) <= 1.1 + 1e-3
    assert 0.8 - 1e-3 <= np.min(tall * wide) < 0.84


def test_refuses():
    with pytest.raises(ValueError, match="neighbors"):
        align_mi(TARGET.view(Access.WEIGHTS), plain, neighbors=0)
