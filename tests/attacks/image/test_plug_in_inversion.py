"""Plug-in Inversion: its augmentations against numpy, and the schedule of stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.plug_in_inversion import color_shift, enlarge, grow, plug_in_inversion

KEY, SHAPE = jax.random.key(2), (8, 8, 2)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
IMAGE = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)


def brightness(params, x):
    """Two classes: the mean of the middle is bright or dark."""
    middle = x[:, 3:5, 3:5].mean((1, 2, 3)) - params
    return 20.0 * jnp.stack([middle, -middle], 1)


VIEW = from_function(brightness, jnp.asarray(0.5), classes=2).view(Access.WEIGHTS)


def attack(**options):
    small = {"stages": 3, "stage_steps": 4, "ensemble": 2, "jitter": 0}
    return plug_in_inversion(VIEW, SHAPE, **{**small, **options}).solve(())


def test_color_shift_is_one_affine_map_for_each_channel_within_its_bounds():
    factors, shifts = [], []
    for i in range(200):
        shifted = np.asarray(color_shift(jax.random.fold_in(KEY, i), jnp.asarray(IMAGE), 0.5, 0.7))
        for c in range(SHAPE[2]):
            slope, offset = np.polyfit(IMAGE[..., c].ravel(), shifted[..., c].ravel(), 1)
            np.testing.assert_allclose(shifted[..., c], slope * IMAGE[..., c] + offset, atol=1e-4)
            factors.append(np.log(slope))
            shifts.append(offset)
    for values, bound in ((np.array(factors), 0.7), (np.array(shifts), 0.5)):
        assert np.abs(values).max() <= bound + 1e-3
        assert abs(values.mean()) <= 4 * bound / np.sqrt(3 * 400)  # four standard errors
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)


def test_enlarge_by_two_is_bilinear_about_the_middle():
    big = np.asarray(enlarge(jnp.asarray(IMAGE), 2.0))
    for i in range(8):
        for j in range(8):
            y, x = (i + 0.5 - 4) / 2 + 4 - 0.5, (j + 0.5 - 4) / 2 + 4 - 0.5
            a, b = int(np.floor(y)), int(np.floor(x))
            u, v = y - a, x - b
            near = IMAGE[a : a + 2, b : b + 2]
            by_hand = (1 - u) * ((1 - v) * near[0, 0] + v * near[0, 1]) + u * ((1 - v) * near[1, 0] + v * near[1, 1])
            np.testing.assert_allclose(big[i, j], by_hand, atol=1e-5)
    np.testing.assert_allclose(enlarge(jnp.asarray(IMAGE), 1.0), IMAGE, atol=1e-6)


@pytest.mark.parametrize("centering", [0.0, 0.5, 1.0])
def test_growth_is_shared_by_zoom_and_frame(centering):
    """From half to full size: the inner part is the enlarged image, the frame is the noise that the key draws."""
    grown = np.asarray(grow(KEY, jnp.asarray(IMAGE), 0.5, 1.0, centering))
    inner = round(8 * (1.0 - 0.5 * centering))
    low, high = (8 - inner) // 2, (8 + inner) // 2
    expected = np.asarray(jax.random.uniform(KEY, SHAPE)).copy()
    enlarged = np.asarray(enlarge(jnp.asarray(IMAGE), inner / 8 / 0.5))
    expected[low:high, low:high] = enlarged[low:high, low:high]
    np.testing.assert_allclose(grown, expected, atol=1e-6)


def test_stages_grow_and_adam_starts_anew():
    process, label = attack(first=0.25), jnp.asarray(0, jnp.int32)
    state, sizes, counts = process.init(KEY, label), [], []
    step = jax.jit(process.step)
    for t in range(process.steps):
        state, told = step(jax.random.fold_in(KEY, t), state, label)
        sizes.append(float(told.extra["size"]))
        counts.append(int(state.optimizer[0].count))
    assert process.steps == 12
    np.testing.assert_allclose(sizes, np.repeat([0.25, 0.625, 1.0], 4))
    assert counts == [1, 2, 3, 4] * 3
    np.testing.assert_allclose(process.read(state), state.canvas, atol=1e-6)  # full size at last


@pytest.mark.nightly
def test_finds_either_class_and_a_single_stage_has_full_size():
    options = {"stage_steps": 100, "rate": 0.05, "ensemble": 4}
    for stages in (1, 3):
        result = solve(attack(stages=stages, **options), KEY, np.array([0, 1], np.int32), plan=ONE)
        middle = result.output[:, 3:5, 3:5].mean((1, 2, 3))
        assert middle[0] >= 0.8 and middle[1] <= 0.2, stages
        assert np.all(result.info.extra["size"] == 1.0)


@pytest.mark.parametrize("wrong", [{"stages": 0}, {"stage_steps": 0}, {"ensemble": 0}, {"jitter": -1}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        attack(**wrong)
