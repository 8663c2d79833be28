"""MIRROR, white box: the box of P-space, both ends of it, and where the runs start."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.mirror import agreeing, mirror
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


def pooled(attack, draws):
    """What the pool's stage reads out, and the latents that it drew, so many in a step."""
    stage, drawn = attack.train[0](()), []
    state, step = stage.init(KEY, None), jax.jit(lambda key, state: stage.step(key, state, None))
    for t in range(stage.steps):
        key = jax.random.fold_in(KEY, t)
        state, _ = step(key, state)
        drawn.append(jax.vmap(PRIOR.init)(jax.random.split(key, draws)))
    return stage.read(state), np.concatenate(drawn)


@pytest.mark.nightly
@pytest.mark.parametrize("slope", [1.0, 5.0])
def test_latents_end_at_both_walls_of_the_box_and_never_beyond(slope):
    attack = mirror(
        TARGET.view(Access.WEIGHTS), PRIOR, CLASSES, steps=400, starts=2, pool_steps=3, pool_draws=50, bound=0.5,
        slope=slope,
    )  # fmt: skip
    (mean, deviation, latents), drawn = pooled(attack, 50)
    drawn = to_p(drawn, slope)
    np.testing.assert_allclose(mean, np.mean(drawn, 0), rtol=1e-4)
    np.testing.assert_allclose(deviation, np.std(drawn, 0), rtol=1e-4)
    found = solve(attack.solve(((mean, deviation, latents),)), KEY, CASES, plan=ONE).output.reshape(CLASSES, 12)
    low, high, p = mean - 0.5 * deviation, mean + 0.5 * deviation, to_p(found, slope)
    assert np.all(p >= low - 1e-4) and np.all(p <= high + 1e-4)
    # The confidence of a linear target has its maximum in a corner, up to what the mirror images want of both sides.
    assert np.isclose(p, low, atol=1e-3).sum() >= 5 and np.isclose(p, high, atol=1e-3).sum() >= 5


def test_runs_start_from_the_most_believed_of_a_pool_that_is_asked_once():
    """Of 60 latents in three steps, for every class the three of most confidence, as they are drawn; then projected."""
    attack = mirror(
        TARGET.view(Access.WEIGHTS), PRIOR, CLASSES, starts=3, pool_steps=3, pool_draws=20, bound=0.5, slope=1.0
    )
    assert len(attack.train) == 1 and attack.train[0](()).steps == 3
    (mean, deviation, latents), drawn = pooled(attack, 20)
    logits = drawn @ MATRIX
    scores = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for label in range(CLASSES):
        best = drawn[np.argsort(-scores[:, label])[:3]]
        np.testing.assert_allclose(latents[label], best, rtol=1e-5)
        state = attack.solve(((mean, deviation, latents),)).init(KEY, jnp.asarray(label, jnp.int32))
        boxed = np.clip(best, mean - 0.5 * deviation, mean + 0.5 * deviation)
        np.testing.assert_allclose(state.runs.latent, boxed, rtol=1e-5)


def test_the_defaults_are_the_released_numbers():
    defaults = {name: p.default for name, p in inspect.signature(mirror).parameters.items()}
    assert defaults["pool_steps"] * defaults["pool_draws"] == 100_000 and defaults["starts"] == 8
    assert (defaults["steps"], defaults["rate"], defaults["identity_weight"]) == (20_000, 0.25, 10.0)


def test_the_rate_rises_over_a_twentieth_and_falls_over_a_quarter():
    """Where the slope is constant, a step of Adam is as long as its rate."""
    far = from_function(
        lambda w, x: x.reshape(-1, 12) @ w + jnp.asarray([-1e3, 0.0, 0.0]), jnp.asarray(MATRIX[:, [0, 1, 1]]), classes=3
    )
    attack = mirror(far.view(Access.WEIGHTS), PRIOR, 3, steps=100, starts=1, bound=1e6, slope=1.0, flip=0.0)
    process = attack.solve(((jnp.ones(12), jnp.ones(12), jnp.ones((3, 1, 12))),))
    state, label = process.init(KEY, jnp.asarray(0, jnp.int32)), jnp.asarray(0, jnp.int32)
    step, moved = jax.jit(process.step), []
    for t in range(100):
        new, _ = step(jax.random.fold_in(KEY, t), state, label)
        moved.append(np.abs(np.asarray(new.runs.latent - state.runs.latent)).mean())
        state = new
    share = np.arange(1, 101) / 100
    falling = 0.5 - 0.5 * np.cos(np.pi * np.minimum(1, (1 - share) / 0.25))
    np.testing.assert_allclose(moved, 0.25 * np.minimum(1, share / 0.05) * falling, rtol=1e-3, atol=1e-5)


def test_a_run_keeps_its_iterate_of_least_loss():
    attack = mirror(
        TARGET.view(Access.WEIGHTS), PRIOR, CLASSES, steps=40, starts=1, bound=3.0, slope=1.0, rate=5.0, flip=0.0
    )
    process, label = attack.solve(((jnp.ones(12), jnp.ones(12), jnp.ones((3, 1, 12))),)), jnp.asarray(2, jnp.int32)
    state, step, losses, visited = process.init(KEY, label), jax.jit(process.step), [], []
    for t in range(20):  # in strides that are much too long
        visited.append(np.asarray(state.runs.latent[0]))
        state, info = step(jax.random.fold_in(KEY, t), state, label)
        losses.append(float(info.loss))
    assert np.argmin(losses) < 19
    np.testing.assert_array_equal(process.read(state).ravel(), visited[int(np.argmin(losses))])


def chosen(logits, label):
    """The rule by brute force: the largest group of runs with two other labels of their top five in common."""
    top = np.argsort(-logits, 1)[:, :5]
    sets = [set(row[1:].tolist()) if row[0] == label else set() for row in top]
    for size in range(len(sets), 0, -1):
        for group in itertools.combinations(range(len(sets)), size):
            if len(set.intersection(*(sets[run] for run in group))) >= 2:
                return max(group, key=lambda run: logits[run, label] - np.log(np.exp(logits[run]).sum()))
    return int(np.argmax(logits[:, label] - np.log(np.exp(logits).sum(1))))


def test_of_the_runs_that_agree_most_the_most_confident_is_kept():
    rng, run, differs = np.random.default_rng(0), jax.jit(agreeing), 0
    for _ in range(40):
        logits = rng.normal(size=(6, 10)).astype(np.float32)
        logits[:, 3] += rng.uniform(0, 4, 6)
        found = int(run(jnp.asarray(logits), jnp.asarray(3)))
        assert found == chosen(logits, 3)
        differs += found != int(np.argmax(logits[:, 3] - np.log(np.exp(logits).sum(1))))
    assert differs >= 5
    logits[:, 3] = -9.0  # no run is taken for the class
    assert int(run(jnp.asarray(logits), jnp.asarray(3))) == chosen(logits, 3)
    two = rng.normal(size=(4, 2)).astype(np.float32)
    assert int(agreeing(jnp.asarray(two), jnp.asarray(1))) == np.argmax(two[:, 1] - two[:, 0])


def test_the_target_is_shown_mirror_images_half_of_the_time():
    """A target that reads the left column alone gives the right one a gradient only through mirror images."""
    left = np.zeros((3, 4, CLASSES), np.float32)
    left[:, 0] = np.random.default_rng(6).normal(size=(3, CLASSES))
    target = from_function(lambda w, x: x.reshape(-1, 12) @ w, jnp.asarray(left.reshape(12, CLASSES)), classes=CLASSES)
    attack = mirror(target.view(Access.WEIGHTS), PRIOR, CLASSES, starts=1, bound=50.0, steps=100)
    process = attack.solve(((jnp.ones(12), jnp.ones(12), jnp.ones((CLASSES, 1, 12))),))
    state, label = process.init(KEY, jnp.asarray(0, jnp.int32)), jnp.asarray(0, jnp.int32)
    keys = jax.random.split(KEY, 100)
    after = jax.jit(jax.vmap(lambda k: process.step(k, state, label)[0].runs.latent[0]))(keys)
    moved = np.abs(np.asarray(after) - np.asarray(state.runs.latent[0])).reshape(100, 3, 4).sum(1) > 1e-3
    assert np.all(moved[:, 0] ^ moved[:, 3]) and not moved[:, 1:3].any()
    assert 30 <= moved[:, 3].sum() <= 70  # four standard deviations


def test_refuses():
    for wrong in ({"starts": 0}, {"starts": 11}, {"starts": 5, "pool_steps": 2, "pool_draws": 2}):
        with pytest.raises(ValueError, match=f"starts: {wrong['starts']}; legal is 1 to 10"):
            mirror(TARGET.view(Access.WEIGHTS), PRIOR, CLASSES, **wrong)
