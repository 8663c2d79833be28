"""VMI on a linear Gaussian problem whose posterior is known, and the trade that gamma makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.vmi import vmi
from jaxmia.core import Prior

KEY, D = jax.random.key(11), 3
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
PRIOR = Prior(lambda key: jax.random.normal(key, (D,)), lambda z: z, lambda z, x: jnp.zeros(()), lambda z: z)
WANTED = np.array([1.0, -0.5, 0.25], np.float32)
SCALE = 0.5


def view(params, function):
    return from_function(function, params, classes=2).view(Access.WEIGHTS)


# log p(y = 0 | x) = -|x - wanted|^2 / (2 scale^2) up to its constant: log-probabilities of classes 0 and "the rest".
def likelihood(wanted, x):
    own = -jnp.sum((x - wanted) ** 2, -1) / (2 * SCALE**2) - 1e-3
    return jnp.stack([own, jnp.log(-jnp.expm1(own))], -1)


@pytest.mark.parametrize(("posterior", "gamma"), [("gaussian", 1.0), ("gaussian", 0.25), ("flow", 1.0)])
def test_the_posterior_is_the_known_one(posterior, gamma):
    """N(0, I) times the likelihood to the power 1 / gamma is Gaussian with precision 1 + 1 / (gamma scale^2)."""
    attack = vmi(
        view(jnp.asarray(WANTED), likelihood), PRIOR, posterior=posterior, kl_weight=gamma, steps=1200, rate=0.004,
        layers=3, hidden=8,
    )  # fmt: skip
    found = solve(attack.solve(()), KEY, np.zeros(300, np.int32), plan=ONE._replace(chunk=300)).output
    precision = 1 + 1 / (gamma * SCALE**2)
    mean, deviation = WANTED / (gamma * SCALE**2) / precision, precision**-0.5
    error = deviation / np.sqrt(300)
    np.testing.assert_allclose(found.mean(0), mean, atol=4 * error + 0.03)
    np.testing.assert_allclose(found.std(0), deviation, rtol=0.2)


def test_one_step_against_numpy():
    attack = vmi(view(jnp.asarray(WANTED), likelihood), PRIOR, posterior="gaussian", kl_weight=0.3, draws=5, rate=0.01)
    process, label = attack.solve(()), jnp.asarray(0, jnp.int32)
    state = process.init(KEY, label)
    after, told = process.step(KEY, state, label)
    noise = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (5, D)))

    def loss(mean, log_deviation):
        z = mean + np.exp(log_deviation) * noise
        identity = (((z - WANTED) ** 2).sum(1) / (2 * SCALE**2) + 1e-3).mean()
        divergence = (-0.5 * (noise**2).sum(1) - log_deviation.sum() + 0.5 * (z**2).sum(1)).mean()
        return identity + 0.3 * divergence

    zero, eye = np.zeros(D), 1e-3 * np.eye(D)
    np.testing.assert_allclose(told.loss, loss(zero, zero), rtol=1e-4)
    np.testing.assert_allclose(
        after.posterior[0], [-0.01 * (loss(e, zero) - loss(-e, zero)) / 2e-3 for e in eye], rtol=1e-3
    )
    np.testing.assert_allclose(
        after.posterior[1], [-0.01 * (loss(zero, e) - loss(zero, -e)) / 2e-3 for e in eye], rtol=1e-3
    )


def test_refuses():
    with pytest.raises(ValueError, match="draws"):
        vmi(view(jnp.asarray(WANTED), likelihood), PRIOR, draws=0)
