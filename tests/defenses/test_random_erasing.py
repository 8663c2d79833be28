"""How much is erased, where, with what, and that every image is erased by itself."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.defenses.random_erasing import erased, random_erasing

KEY = jax.random.key(0)
SIDE = 16
X = jax.random.uniform(jax.random.key(1), (300, SIDE, SIDE, 1))


def _holes(place="random", height=SIDE, width=SIDE, smallest=0.1, largest=0.4, draws=4000):
    keys = jax.random.split(KEY, draws)
    draw = jax.jit(jax.vmap(lambda key: erased(key, height, width, smallest, largest, place)))
    return np.asarray(draw(keys))


def test_the_share_is_uniform_and_every_hole_is_one_square():
    holes = _holes()
    shares = holes.mean((1, 2))
    sides = np.sqrt(shares * SIDE**2)
    np.testing.assert_allclose(sides, np.round(sides), atol=1e-4)
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    assert (rows == columns).all() and (rows * columns == holes.sum((1, 2))).all()
    edges = (np.arange(5, 11) + 0.5) ** 2 / SIDE**2  # where a side is rounded to the next
    expected = np.clip((edges - 0.1) / 0.3, 0, 1)
    found = [(sides < k + 0.5).mean() for k in range(5, 11)]
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert shares.mean() == pytest.approx(0.25, abs=0.01)


def test_the_place_is_uniform_and_its_controls_are_what_they_say():
    holes = _holes(smallest=0.25, largest=0.25)
    tops, lefts = holes.any(2).argmax(1), holes.any(1).argmax(1)
    for starts in (tops, lefts):
        counts = np.bincount(starts, minlength=9)
        assert len(counts) == 9 and abs(counts - 4000 / 9).max() < 5 * np.sqrt(4000 / 9)
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.06
    center = _holes("center", smallest=0.25, largest=0.25, draws=3)
    assert (center == center[0]).all() and center[0, 4:12, 4:12].all() and center[0].sum() == 64
    pixels = _holes("pixels", smallest=0.25, largest=0.25)
    assert (pixels.sum((1, 2)) == 64).all()
    np.testing.assert_allclose(pixels.mean(0), 0.25, atol=0.04)


def test_images_that_are_not_square_lose_no_more_than_fits():
    holes = _holes(height=4, width=16, smallest=0.9, largest=1.0, draws=50)
    assert (holes.sum((1, 2)) == 16).all()


@functools.cache
def _compiled(**options):
    return jax.jit(random_erasing(**options).data)


def _erase(x=X, key=KEY, **options):
    return np.asarray(_compiled(**options)(key, {"x": x})["x"])


def test_pixels_outside_stay_and_inside_have_the_color():
    gray, colored = _erase(), _erase(jnp.tile(X, (1, 1, 1, 3)))
    changed = gray != np.asarray(X)
    np.testing.assert_allclose(gray[changed], 0.449, atol=1e-6)
    assert 0.2 < changed.mean() < 0.3 and changed.any((1, 2, 3)).all()
    where = colored != np.tile(X, (1, 1, 1, 3))
    assert (where == changed).all()  # all channels of a pixel
    np.testing.assert_allclose(colored[where].reshape(-1, 3)[:5], [[0.485, 0.456, 0.406]] * 5, rtol=1e-6)
    assert (_erase(fill=0.0) == np.where(changed, 0, X)).all()


@pytest.mark.nightly
def test_strength_zero_changes_nothing_and_the_probability_counts_images():
    assert (_erase(smallest=0.0, largest=0.0) == X).all() and (_erase(probability=0.0) == X).all()
    some = (_erase(probability=0.3) != np.asarray(X)).any((1, 2, 3)).mean()
    assert some == pytest.approx(0.3, abs=0.1)
    swept = jax.jit(jax.vmap(lambda a: random_erasing(smallest=0.0, largest=a).data(KEY, {"x": X})["x"]))
    assert (swept(jnp.array([0.0, 0.5]))[0] == X).all()


@pytest.mark.nightly
def test_an_image_is_erased_as_it_would_be_without_the_others():
    assert (_erase()[:7] == _erase(X[:7])).all()
    assert (_erase() != _erase(key=jax.random.key(2))).any()
    batch = random_erasing().data(KEY, {"x": X[:2], "y": jnp.ones(2), "mask": jnp.ones(2)})
    assert set(batch) == {"x", "y", "mask"} and (batch["y"] == 1).all()


def test_illegal_arguments_are_named():
    for smallest, largest in ((-0.1, 0.4), (0.5, 0.4), (0.1, 1.1), (0.1, float("nan"))):
        with pytest.raises(ValueError, match=f"{smallest}, {largest}; legal is 0 <= smallest <= largest <= 1"):
            random_erasing(smallest=smallest, largest=largest)
    with pytest.raises(ValueError, match="probability: 2.0; legal is 0 to 1"):
        random_erasing(probability=2.0)
    with pytest.raises(ValueError, match="place: 'left'; legal is random, center, pixels"):
        inspect.unwrap(random_erasing)(place="left")  # without the type checks of the tests
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\); legal is images"):
        _erase(jnp.ones((2, 5)))
    with pytest.raises(ValueError, match=r"fill: \(0.1, 0.2\); legal is one number or one for each of 1 channels"):
        _erase(fill=(0.1, 0.2))
