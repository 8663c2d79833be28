"""UnSplit: whose turn it is, its losses against numpy, and what an architecture does not decide."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.unsplit import unsplit
from jaxmia.oracle import Nothing

KEY, SHAPE = jax.random.key(1), (4, 5, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(4)
IMAGES = RNG.uniform(size=(6, *SHAPE)).astype(np.float32)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(7)(x.reshape(len(x), -1))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_image_and_clone_take_turns():
    process = unsplit(Nothing(), Dense(), SHAPE, image_steps=2, clone_steps=3, rounds=4).solve(())
    sent = RNG.normal(size=7).astype(np.float32)
    state, step, turns = process.init(KEY, sent), jax.jit(process.step), []
    np.testing.assert_array_equal(state.image, np.full(SHAPE, 0.5))
    for _ in range(10):
        new, _ = step(KEY, state, sent)
        on_image, on_clone = not same(new.image, state.image), not same(new.clone, state.clone)
        assert on_image != on_clone
        assert same(new.clone_optimizer, state.clone_optimizer) == on_image
        assert same(new.image_optimizer, state.image_optimizer) == on_clone
        turns.append("image" if on_image else "clone")
        state = new
    assert turns == (["image"] * 2 + ["clone"] * 3) * 2
    assert process.steps == 4 * 5


@pytest.mark.nightly
def test_losses_are_those_of_the_algorithm():
    process = unsplit(Nothing(), Dense(), SHAPE, variation=0.3, norm=0.2, image_steps=1, clone_steps=1).solve(())
    sent = RNG.normal(size=7).astype(np.float32)
    state = process.init(KEY, sent)._replace(image=jnp.asarray(IMAGES[0]))
    new, told = process.step(KEY, state, sent)
    dense, x = {k: np.asarray(v, np.float64) for k, v in state.clone["params"]["Dense_0"].items()}, IMAGES[0]
    far = x.reshape(-1) @ dense["kernel"] + dense["bias"] - sent
    smooth = (np.diff(x, axis=0) ** 2).mean() + (np.diff(x, axis=1) ** 2).mean()
    np.testing.assert_allclose(told.extra["identity"], (far**2).mean(), rtol=1e-4)
    np.testing.assert_allclose(told.loss, (far**2).mean() + 0.3 * smooth + 0.2 * (x**2).mean(), rtol=1e-4)
    # The clone's turn: Adam's first step is the rate against the sign of the mean square's gradient alone.
    state = new._replace(image=jnp.asarray(x))
    moved, _ = process.step(KEY, state, sent)
    shift = np.asarray(moved.clone["params"]["Dense_0"]["kernel"] - state.clone["params"]["Dense_0"]["kernel"])
    np.testing.assert_allclose(shift, -1e-3 * np.sign(np.outer(x.reshape(-1), far)), rtol=2e-2)


def likeness(output):
    """Size of the correlation between output i and image j."""
    standard = [
        np.reshape(a, (len(a), -1)) - np.reshape(a, (len(a), -1)).mean(1, keepdims=True) for a in (output, IMAGES)
    ]
    found, truth = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in standard)
    return np.abs(found @ truth.T)


@pytest.mark.nightly
def test_a_client_without_structure_is_explained_and_not_inverted():
    """An affine client's architecture says nothing of where a pixel is, and any image explains what was sent."""
    target = from_function(Dense().apply, Dense().init(jax.random.key(9), IMAGES), classes=7)
    sent = np.asarray(jax.vmap(lambda x: target.view(Access.WEIGHTS).answer(KEY, x))(jnp.asarray(IMAGES)))
    attack = unsplit(target.view(Access.NONE), Dense(), SHAPE, rounds=20, image_steps=10, clone_steps=10, rate=0.01)
    result = solve(attack.solve(()), KEY, sent, plan=ONE)
    assert np.all(result.info.extra["identity"] <= 1e-3)
    assert (likeness(result.output).argmax(1) == np.arange(6)).sum() <= 3
    assert result.output.min() >= 0 and result.output.max() <= 1


def test_refuses_a_round_without_steps_on_both():
    with pytest.raises(ValueError, match="100, 0; legal is 1 or more"):
        unsplit(Nothing(), Dense(), SHAPE, clone_steps=0)
