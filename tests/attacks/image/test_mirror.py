"""MIRROR, white box: the box of P-space, both ends of it, and where the runs start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.mirror import mirror
from jaxmia.core import Prior

KEY, CLASSES, SHAPE = jax.random.key(4), 3, (3, 4, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
MATRIX = np.random.default_rng(5).normal(size=(12, CLASSES)).astype(np.float32)
TARGET = from_function(lambda w, x: x.reshape(-1, 12) @ w, jnp.asarray(MATRIX), classes=CLASSES)
PRIOR = Prior(
    lambda key: 1.0 + jax.random.normal(key, (12,)), lambda z: z.reshape(SHAPE), lambda z, x: jnp.zeros(()), lambda z: z
)
CASES = np.arange(CLASSES, dtype=np.int32)


def to_p(w, slope):
    return np.where(w >= 0, w, slope * w)


@pytest.mark.parametrize("slope", [1.0, 5.0])
def test_latents_end_at_both_walls_of_the_box_and_never_beyond(slope):
    attack = mirror(
        TARGET.view(Access.WEIGHTS), PRIOR, steps=200, pool=4, starts=2, moments_steps=3, moments_draws=50, bound=0.5,
        slope=slope,
    )  # fmt: skip
    stage = attack.train[0](())
    state, drawn = stage.init(KEY, None), []
    for t in range(3):
        key = jax.random.fold_in(KEY, t)
        state, _ = stage.step(key, state, None)
        drawn += [to_p(np.asarray(PRIOR.init(k)), slope) for k in jax.random.split(key, 50)]
    mean, deviation = stage.read(state)
    np.testing.assert_allclose(mean, np.mean(drawn, 0), rtol=1e-4)
    np.testing.assert_allclose(deviation, np.std(drawn, 0), rtol=1e-4)
    found = solve(attack.solve(((mean, deviation),)), KEY, CASES, plan=ONE).output.reshape(CLASSES, 12)
    low, high, p = mean - 0.5 * deviation, mean + 0.5 * deviation, to_p(found, slope)
    assert np.all(p >= low - 1e-4) and np.all(p <= high + 1e-4)
    # The confidence of a linear target has its maximum in a corner, up to what the mirror images want of both sides.
    assert np.isclose(p, low, atol=1e-3).sum() >= 5 and np.isclose(p, high, atol=1e-3).sum() >= 5


def test_runs_start_from_the_most_believed_and_the_most_believed_is_kept():
    attack = mirror(TARGET.view(Access.WEIGHTS), PRIOR, pool=25, starts=3, bound=50.0)
    process = attack.solve(((jnp.ones(12), jnp.ones(12)),))
    drawn = np.stack([PRIOR.init(jax.random.fold_in(KEY, i)) for i in range(25)])
    logits = drawn @ MATRIX
    scores = logits[:, 1] - np.log(np.exp(logits).sum(1))
    state = process.init(KEY, jnp.asarray(1, jnp.int32))
    np.testing.assert_allclose(state.runs.latent, drawn[np.argsort(-scores)[:3]], rtol=1e-5)
    np.testing.assert_allclose(process.read(state).ravel(), drawn[scores.argmax()], rtol=1e-5)


def test_the_target_is_shown_mirror_images_half_of_the_time():
    """A target that reads the left column alone gives the right one a gradient only through mirror images."""
    left = np.zeros((3, 4, CLASSES), np.float32)
    left[:, 0] = np.random.default_rng(6).normal(size=(3, CLASSES))
    target = from_function(lambda w, x: x.reshape(-1, 12) @ w, jnp.asarray(left.reshape(12, CLASSES)), classes=CLASSES)
    attack = mirror(target.view(Access.WEIGHTS), PRIOR, pool=1, starts=1, bound=50.0)
    process = attack.solve(((jnp.ones(12), jnp.ones(12)),))
    state, label = process.init(KEY, jnp.asarray(0, jnp.int32)), jnp.asarray(0, jnp.int32)
    keys = jax.random.split(KEY, 100)
    after = jax.jit(jax.vmap(lambda k: process.step(k, state, label)[0].runs.latent[0]))(keys)
    moved = np.abs(np.asarray(after) - np.asarray(state.runs.latent[0])).reshape(100, 3, 4).sum(1) > 1e-3
    assert np.all(moved[:, 0] ^ moved[:, 3]) and not moved[:, 1:3].any()
    assert 30 <= moved[:, 3].sum() <= 70  # four standard deviations
