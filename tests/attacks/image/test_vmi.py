"""VMI on a linear Gaussian problem whose posterior is known, and the trade that gamma makes."""

import inspect

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


@pytest.mark.nightly
@pytest.mark.parametrize(("posterior", "gamma"), [("gaussian", 1.0), ("gaussian", 0.25), ("flow", 1.0)])
def test_the_posterior_is_the_known_one(posterior, gamma):
    """N(0, I) times the likelihood to the power 1 / gamma is Gaussian with precision 1 + 1 / (gamma scale^2)."""
    attack = vmi(
        view(jnp.asarray(WANTED), likelihood), PRIOR, posterior=posterior, kl_weight=gamma, steps=600, rate=0.004,
        draws=16, levels=1, layers=2, hidden=4,
    )  # fmt: skip
    found = solve(attack.solve(()), KEY, np.zeros(300, np.int32), plan=ONE._replace(chunk=300)).output
    precision = 1 + 1 / (gamma * SCALE**2)
    mean, deviation = WANTED / (gamma * SCALE**2) / precision, precision**-0.5
    error = deviation / np.sqrt(300)
    np.testing.assert_allclose(found.mean(0), mean, atol=4 * error + 0.03)
    np.testing.assert_allclose(found.std(0), deviation, rtol=0.2)


@pytest.mark.nightly
def test_one_step_against_numpy():
    attack = vmi(view(jnp.asarray(WANTED), likelihood), PRIOR, posterior="gaussian", kl_weight=0.3, draws=5, rate=0.01)
    process, label = attack.solve(()), jnp.asarray(0, jnp.int32)
    state = process.init(KEY, label)
    after, told = process.step(KEY, state, label)
    noise = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (5, D)))

    def loss(mean, factor):
        z = mean + noise @ factor.T
        identity = (((z - WANTED) ** 2).sum(1) / (2 * SCALE**2) + 1e-3).mean()
        volume = np.linalg.slogdet(factor)[1]
        divergence = (-0.5 * (noise**2).sum(1) - volume + 0.5 * (z**2).sum(1)).mean()
        return identity + 0.3 * divergence

    zero, eye, units = np.zeros(D), np.eye(D), 1e-3 * np.eye(D * D).reshape(-1, D, D)
    np.testing.assert_allclose(told.loss, loss(zero, eye), rtol=1e-4)
    slope = [(loss(e, eye) - loss(-e, eye)) / 2e-3 for e in 1e-3 * eye]
    np.testing.assert_allclose(after.posterior[0], -0.01 * np.array(slope), rtol=1e-3)
    slope = [(loss(zero, eye + e) - loss(zero, eye - e)) / 2e-3 for e in units]
    np.testing.assert_allclose(after.posterior[1], eye - 0.01 * np.reshape(slope, (D, D)), rtol=1e-3, atol=1e-6)


@pytest.mark.nightly
def test_the_gaussian_has_a_full_factor():
    """A likelihood of x_1 + x_2 alone correlates them, as no diagonal covariance does: to -2 / 3."""

    def of_the_sum(wanted, x):
        private = -((x[:, 0] + x[:, 1] - wanted) ** 2) / (4 * SCALE**2) - 1e-3
        return jnp.stack([private, jnp.log(-jnp.expm1(private))], -1)

    attack = vmi(
        view(jnp.float32(1.0), of_the_sum), PRIOR, posterior="gaussian", kl_weight=1.0, steps=600, rate=0.01, draws=16
    )
    x = solve(attack.solve(()), KEY, np.zeros(300, np.int32), plan=ONE._replace(chunk=300)).output
    # Precision I + 1 1^T / (2 scale^2) of the two, with scale^2 = 1/4: [[3, 2], [2, 3]].
    np.testing.assert_allclose(np.corrcoef(x[:, 0], x[:, 1])[0, 1], -2 / 3, atol=0.15)


def test_the_defaults_are_the_released_numbers():
    defaults = {name: p.default for name, p in inspect.signature(vmi).parameters.items()}
    assert (defaults["steps"], defaults["draws"], defaults["rate"], defaults["momentum"]) == (4867, 64, 1e-4, 0.9)
    assert (defaults["levels"], defaults["layers"], defaults["hidden"]) == (3, 10, 100)
    assert defaults["kl_weight"] == 1e-3


def test_refuses():
    with pytest.raises(ValueError, match="draws"):
        vmi(view(jnp.asarray(WANTED), likelihood), PRIOR, draws=0)
    with pytest.raises(ValueError, match="dimensions, levels, layers: 3, 3, 10"):
        vmi(view(jnp.asarray(WANTED), likelihood), PRIOR)
