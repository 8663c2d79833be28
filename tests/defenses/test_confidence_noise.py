"""The noise has the distribution it claims, labels stay, and equal queries meet equal noise."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmia.adapters.function import from_function
from jaxmia.core import Defense
from jaxmia.defenses.confidence_noise import confidence_noise
from jaxmia.oracle import Access
from jaxmia.recipes.exchanged import exchanged

KEY = jax.random.key(0)
KINDS = ("student_t", "laplace", "gaussian")
POINTS = np.random.default_rng(0).dirichlet(np.full(5, 0.4), 2000).astype(np.float32)
TIES = np.array([[1, 1, 1, 1, 1], [0, 2, 2, 1, 0], [1, 0, 0, 0, 1]], np.float32)
ALL = np.concatenate([POINTS, np.repeat(TIES / TIES.sum(1, keepdims=True), 100, axis=0)])


def _served(defense, scores=ALL, key=KEY):
    return np.asarray(jax.jit(defense.answer)(key, jnp.asarray(scores)))


LAWS = {"student_t": stats.t(2), "laplace": stats.laplace, "gaussian": stats.norm}


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_the_quantiles_of_its_distribution(kind):
    # The first of three scores is far ahead: no exchange, and hardly a clip. Ratios tell the noise.
    scores = np.repeat(np.array([[1000.0, 50.0, 50.0]], np.float32), 50_000, axis=0)
    served = _served(confidence_noise(scale=0.5, distribution=kind), scores).astype(np.float64)
    noise = (served[:, 1] / served[:, 0] * 1000 - 50) / 0.5
    shares = [0.02, 0.1, 0.5, 0.9, 0.98]
    np.testing.assert_allclose(np.quantile(noise, shares), LAWS[kind].ppf(shares), atol=0.15)


def test_served_is_the_formula():
    scale, drawn = 0.1, jax.random.laplace(KEY, ALL.shape, jnp.float32)
    noisy = ALL.astype(np.float64) + scale * np.asarray(drawn, np.float64)
    for row, clean in zip(noisy, ALL):
        one, other = row.argmax(), clean.argmax()
        row[[one, other]] = row[[other, one]]
    noisy = np.maximum(noisy, 0)
    wanted = noisy / noisy.sum(1, keepdims=True)
    served = _served(confidence_noise(scale=scale, distribution="laplace"))
    np.testing.assert_allclose(served, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_keeps_the_largest_score(kind):
    for scale in (0.05, 2.0):
        served = _served(confidence_noise(scale=scale, distribution=kind))
        at_label = np.take_along_axis(served, ALL.argmax(1)[:, None], 1)[:, 0]
        assert (at_label == served.max(1)).all()
        np.testing.assert_allclose(served.sum(1), 1, atol=1e-6)
        assert (served >= 0).all() and np.abs(served - ALL).max() > 0.05


def test_where_nothing_is_left_the_label_is_served():
    scores = jnp.zeros((400, 2)).at[:, 1].set(1e-3)
    served = _served(confidence_noise(scale=10.0), scores)
    alone = (served == [0, 1]).all(1)
    assert 0.25 < alone.mean() < 1 and np.isfinite(served).all()


def test_scale_zero_changes_no_bit_and_may_be_traced():
    assert (_served(confidence_noise(scale=0.0)) == ALL).all()
    scales = jnp.array([0.0, 0.1])

    def swept(scale):
        return confidence_noise(scale=scale).answer(KEY, jnp.asarray(ALL))

    off, on = jax.jit(jax.vmap(swept))(scales)
    assert (off == ALL).all()
    np.testing.assert_allclose(on, _served(confidence_noise(scale=0.1)), atol=1e-6)
    assert confidence_noise()._replace(answer=Defense().answer, keeps_label=False) == Defense()


def test_asking_again_tells_nothing_new_and_a_gray_level_apart_does():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(6, 5)), jnp.float32)
    defense = confidence_noise(scale=0.2)
    target = from_function(lambda w, x: x @ w, weights, classes=5, defense=defense)
    answer = jax.jit(jax.vmap(target.view(Access.SCORES).answer))
    keys, x = jax.random.split(KEY, 8), jnp.full((8, 6), 0.5)
    assert (jnp.ptp(answer(keys, x), axis=0) == 0).all()
    moved = x.at[:, 0].add(jnp.arange(8) / 255)
    assert float(jnp.ptp(answer(keys, moved), axis=0).max()) > 0.05


def test_exchange_moves_two_entries_at_most():
    rng = np.random.default_rng(2)
    changed, clean = rng.random((2, 300, 6), np.float32)
    got = np.asarray(jax.jit(exchanged)(jnp.asarray(changed), jnp.asarray(clean)))
    same = changed.argmax(1) == clean.argmax(1)
    assert ((got != changed).sum(1) == np.where(same, 0, 2)).all() and same.any()
    assert (got.argmax(1) == clean.argmax(1)).all()
    assert (np.sort(got, 1) == np.sort(changed, 1)).all()


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_illegal_scales_are_named(scale):
    with pytest.raises(ValueError, match=f"scale: {scale}; legal is finite and 0 or more"):
        confidence_noise(scale=scale)


def test_an_illegal_distribution_is_named():
    make = inspect.unwrap(confidence_noise)  # without the type checks of the tests
    with pytest.raises(ValueError, match="distribution: 'cauchy'; legal is 'student_t', 'laplace'"):
        make(distribution="cauchy")
