"""Views of an image: each of its changes alone, against what it must give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.recipes.augment import jitter, look

KEYS = jax.random.split(jax.random.key(0), 200)
IMAGE = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 6, 2)), jnp.float32)
ROWS, COLUMNS = jnp.meshgrid(jnp.arange(32.0), jnp.arange(24.0), indexing="ij")
RAMP = jnp.stack([ROWS, COLUMNS], -1)  # every pixel says where it was


def views(image, **options):
    return np.asarray(jax.jit(jax.vmap(lambda k: look(k, image, **options)))(KEYS))


def test_without_options_a_view_is_the_image():
    np.testing.assert_allclose(views(IMAGE), np.broadcast_to(IMAGE, (200, *IMAGE.shape)), atol=3e-4)


def test_a_mirror_image_is_one_and_half_of_the_views_are():
    np.testing.assert_allclose(views(IMAGE, flip=1.0)[0], IMAGE[:, ::-1], atol=3e-4)
    mirrored = [np.allclose(v, IMAGE[:, ::-1], atol=3e-4) for v in views(IMAGE, flip=0.5)]
    plain = [np.allclose(v, IMAGE, atol=3e-4) for v in views(IMAGE, flip=0.5)]
    assert sum(mirrored) + sum(plain) == 200 and 70 <= sum(mirrored) <= 130  # 4.2 standard deviations


@pytest.mark.parametrize(("scale", "ratio"), [((0.5, 0.9), (1.0, 1.0)), ((0.3, 0.6), (0.8, 1.25))])
def test_a_crop_is_a_window_inside_of_the_stated_area_and_aspect(scale, ratio):
    found = views(RAMP, scale=scale, ratio=ratio)[:, 8:-8, 8:-8]  # away from the edge, where nothing is cut off
    tall = np.diff(found[..., 0], axis=1)  # rows of the image per row of the view, the window's share of the height
    wide = np.diff(found[..., 1], axis=2)
    assert np.ptp(tall, axis=(1, 2)).max() < 1e-3 and np.ptp(wide, axis=(1, 2)).max() < 1e-3
    tall, wide = tall.mean((1, 2)), wide.mean((1, 2))
    area, aspect = tall * wide, wide / tall
    assert scale[0] - 1e-3 <= area.min() < scale[0] + 0.05 and scale[1] - 0.05 < area.max() <= scale[1] + 1e-3
    assert ratio[0] - 1e-3 <= aspect.min() and aspect.max() <= ratio[1] + 1e-3
    if ratio[0] < 1:
        assert aspect.min() < ratio[0] + 0.05 and aspect.max() > ratio[1] - 0.05
    middle = found[:, 7:9, 3:5].mean((1, 2))  # of the window, in pixels
    assert np.all(middle[:, 0] > tall * 16 - 1.1) and np.all(middle[:, 0] < 32 - tall * 16 + 0.1)
    assert middle[:, 0].std() > 1 and middle[:, 1].std() > 1  # it is not always the middle one


def test_a_turn_keeps_distances_and_stays_within_the_bound():
    found = views(RAMP, rotation=20.0)[:, 12:20, 8:16]
    down, right = np.diff(found, axis=1).mean((1, 2)), np.diff(found, axis=2).mean((1, 2))
    np.testing.assert_allclose(np.linalg.norm(down, axis=1), 1.0, atol=1e-3)
    np.testing.assert_allclose(np.sum(down * right, 1), 0.0, atol=1e-3)
    degrees = np.rad2deg(np.arctan2(down[:, 1], down[:, 0]))
    assert 18 < np.abs(degrees).max() <= 20.01 and degrees.min() < -15 and degrees.max() > 15


def test_half_of_the_views_are_turned_where_told():
    found = views(RAMP, rotation=20.0, rotation_chance=0.5)
    still = [np.allclose(v, RAMP, atol=1e-2) for v in found]
    assert 70 <= sum(still) <= 130  # 4.2 standard deviations
    every = views(RAMP, rotation=20.0)
    np.testing.assert_array_equal(found[~np.array(still)], every[~np.array(still)])


@pytest.mark.nightly
def test_the_gradient_of_a_view_reaches_what_it_shows():
    slope = jax.grad(lambda x: look(KEYS[0], x, scale=(0.5, 0.5)).sum())(IMAGE)
    assert np.all(np.isfinite(slope)) and float(slope.sum()) == pytest.approx(IMAGE.size, rel=1e-4)


@pytest.mark.nightly
def test_brightness_and_contrast():
    changed = np.asarray(jax.vmap(lambda k: jitter(k, 0.5 * IMAGE, brightness=0.2, contrast=0.0))(KEYS))
    factor = changed.mean((1, 2, 3)) / float(0.5 * IMAGE.mean())
    np.testing.assert_allclose(changed, factor[:, None, None, None] * np.asarray(0.5 * IMAGE), atol=1e-5)
    assert 0.8 <= factor.min() < 0.82 and 1.18 < factor.max() <= 1.2
    gray = 0.4 + 0.2 * IMAGE
    changed = np.asarray(jax.vmap(lambda k: jitter(k, gray, brightness=0.0, contrast=0.2))(KEYS))
    np.testing.assert_allclose(changed.mean((1, 2, 3)), float(gray.mean()), atol=1e-5)
    factor = changed.std((1, 2, 3)) / float(gray.std())
    assert 0.8 <= factor.min() < 0.82 and 1.18 < factor.max() <= 1.2
    half = [np.allclose(jitter(k, gray, chance=0.5), gray) for k in KEYS]
    assert 70 <= sum(half) <= 130
    assert float(jitter(KEYS[0], IMAGE, brightness=0.0, contrast=9.0).max()) <= 1.0
