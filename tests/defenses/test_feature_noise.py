"""Moments of the noise, that it is the target's, and that nothing but features gets it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.adapters.function import from_function
from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.feature_dropout import feature_dropout
from jaxmia.defenses.feature_noise import feature_noise
from jaxmia.oracle import Access, Outputs

KEY = jax.random.key(0)
Z = jnp.linspace(-1, 1, 100_000)


@pytest.mark.parametrize(
    "distribution, deviation, mean_size",
    [("laplace", np.sqrt(2) * 0.3, 0.3), ("gaussian", 0.3, 0.3 * np.sqrt(2 / np.pi))],
)
def test_moments_of_the_noise(distribution, deviation, mean_size):
    noise = np.asarray(feature_noise(scale=0.3, distribution=distribution).send(KEY, Z) - Z)
    assert abs(noise.mean()) < 4 * deviation / np.sqrt(len(Z))
    assert noise.std() == pytest.approx(deviation, rel=0.02)
    assert np.abs(noise).mean() == pytest.approx(mean_size, rel=0.02)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02


def test_scale_zero_sends_the_feature_to_the_bit_and_types_stay():
    assert (feature_noise(scale=0.0).send(KEY, Z) == Z).all()
    half = feature_noise().send(KEY, jnp.ones((2, 3, 4), jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and half.shape == (2, 3, 4)
    swept = jax.jit(jax.vmap(lambda scale: feature_noise(scale=scale).send(KEY, Z[:50]) - Z[:50]))(
        jnp.array([0.1, 0.2])
    )
    np.testing.assert_allclose(2 * swept[0], swept[1], atol=1e-6)


def _target(defense, **options):
    def apply(params, x):
        return Outputs(x @ params, {"block1": 2 * x})

    return from_function(apply, jnp.eye(3), classes=3, defense=defense, grid=None, **options)


def test_equal_inputs_meet_equal_noise_whatever_key_the_adversary_has():
    x = jnp.array([0.1, 0.2, 0.3])
    client = _target(feature_noise()).until("block1").view(Access.SCORES)
    sent = [np.asarray(client.answer(jax.random.key(k), x)) for k in (0, 1)]
    assert (sent[0] == sent[1]).all() and np.abs(sent[0] - 2 * x).max() > 0.01
    other = np.asarray(client.answer(KEY, x + 1e-3)) - 2 * (x + 1e-3)
    assert np.abs(other - (sent[0] - 2 * x)).max() > 0.01
    fresh = _target(feature_noise(), noise="fresh").until("block1").view(Access.SCORES)
    assert (fresh.answer(KEY, x) != fresh.answer(jax.random.key(1), x)).any()


def test_scores_and_weights_are_served_as_they_are_and_defenses_follow_one_another():
    x = jnp.array([0.1, 0.2, 0.3])
    plain, noisy = (_target(d).view(Access.SCORES).answer(KEY, x) for d in (None, feature_noise()))
    assert (plain == noisy).all() and feature_noise()._replace(send=Defense().send) == Defense()
    both = compose({"noise": feature_noise(), "dropout": feature_dropout(rate=0.5)}).send(KEY, Z)
    assert float((both == 0).mean()) == pytest.approx(0.5, abs=0.01) and float(jnp.std(both - Z)) > 0.3


def test_illegal_arguments_are_named():
    for scale in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"scale: {scale}; legal is finite and 0 or more"):
            feature_noise(scale=scale)
    with pytest.raises(ValueError, match="distribution: 'cauchy'; legal is 'laplace' or 'gaussian'"):
        inspect.unwrap(feature_noise)(distribution="cauchy")  # without the type checks of the tests
