"""KED-MI: both GAN losses and the recovery against numpy, and what the posterior becomes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, fit, from_function, solve
from jaxmia.attacks.image.ked_mi import ked_mi
from jaxmia.models.features import expose

KEY, CLASSES, SHAPE = jax.random.key(10), 3, (2, 3, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(8)
MATRIX = RNG.normal(size=(6, CLASSES)).astype(np.float32)
TARGET = from_function(lambda w, x: x.reshape(-1, 6) @ w, jnp.asarray(MATRIX), classes=CLASSES)
SAME = np.repeat(RNG.uniform(size=(1, *SHAPE)).astype(np.float32), 4, 0)  # a gallery where no draw matters


class Flat(nn.Module):
    """Images that do not look at z unless told to."""

    reads: bool = False

    @nn.compact
    def __call__(self, z, train: bool = False):
        painted = self.param("painted", nn.initializers.constant(0.4), (6,))
        return (painted + (z[:, :6] if self.reads else 0 * z[:, :1])).reshape(-1, *SHAPE)


class Judge(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x.reshape(len(x), -1)
        expose(self, "penultimate", 3 * x)
        return nn.Dense(CLASSES)(x)


def attack(generator=Flat(), **options):
    return ked_mi(TARGET.view(Access.WEIGHTS), jnp.asarray(SAME), generator, Judge(), **{"dimensions": 6, **options})


def softplus(s):
    return np.logaddexp(s, 0)


def lse(logits):
    return np.log(np.exp(logits).sum(-1))


@pytest.mark.nightly
def test_gan_losses_are_those_of_the_paper():
    process = attack(gan_batch=8, critic_steps=1, gan_rate=0.0, entropy_weight=1e-4).train[0](())
    state = process.init(KEY, None)
    _, told = process.step(KEY, state, None)
    kernel, bias = (np.asarray(state[1]["params"]["Dense_0"][name]) for name in ("kernel", "bias"))
    x, fake = SAME[0].reshape(6), np.full(6, 0.4)
    real, false = x @ kernel + bias, fake @ kernel + bias
    soft = np.exp(x @ MATRIX) / np.exp(x @ MATRIX).sum()
    supervised = -(soft * (real - lse(real))).sum()
    critic = supervised + 0.5 * (softplus(lse(real)) - lse(real) + softplus(lse(false)))
    np.testing.assert_allclose(told.extra["critic"], critic, rtol=1e-4)
    p = np.exp(false - lse(false))
    generator = np.abs(3 * fake - 3 * x).mean() - 1e-4 * 8 * (p * np.log(p)).sum()
    np.testing.assert_allclose(told.loss, generator, rtol=1e-4)


@pytest.mark.nightly
def test_the_discriminator_learns_soft_labels_and_the_generator_the_features():
    networks, told = fit(attack(gan_steps=500, gan_rate=0.01).train[0](()), KEY, lambda step: {"x": SAME}, plan=ONE)
    painted = np.asarray(networks["generator"]["params"]["painted"])
    np.testing.assert_allclose(painted, SAME[0].reshape(6), atol=0.05)
    logits = np.asarray(Judge().apply(networks["critic"], SAME[:1]))[0]
    wanted = SAME[0].reshape(6) @ MATRIX
    np.testing.assert_allclose(np.exp(logits - lse(logits)), np.exp(wanted - lse(wanted)), atol=0.05)


def recovery(**options):
    generator = Flat(reads=True)
    critic = Judge().init(KEY, SAME)
    painter = generator.init(KEY, jnp.zeros((1, 6)))
    return attack(generator, **options).solve(({"generator": painter, "critic": critic},)), critic


def test_a_step_of_the_recovery_is_adam_on_the_expected_loss():
    process, critic = recovery(rate=0.01, identity_weight=7.0)
    label = jnp.asarray(1, jnp.int32)
    state = process.init(KEY, label)
    np.testing.assert_array_equal(state.posterior[0], np.zeros(6))
    np.testing.assert_array_equal(state.posterior[1], np.ones(6))
    after, told = process.step(KEY, state, label)
    noise = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (6,)), np.float64)
    kernel, bias = (np.asarray(critic["params"]["Dense_0"][name], np.float64) for name in ("kernel", "bias"))

    def loss(mu, log_variance):
        x = 0.4 + mu + np.exp(0.5 * log_variance) * noise
        logits = x @ MATRIX.astype(np.float64)
        return softplus(-lse(x @ kernel + bias)) + 7.0 * (lse(logits) - logits[1])

    np.testing.assert_allclose(told.loss, loss(np.zeros(6), np.ones(6)), rtol=1e-4)
    eye = 1e-5 * np.eye(6)
    for found, slopes in (
        (after.posterior[0], [loss(e, np.ones(6)) - loss(-e, np.ones(6)) for e in eye]),
        (after.posterior[1] - 1, [loss(np.zeros(6), 1 + e) - loss(np.zeros(6), 1 - e) for e in eye]),
    ):
        np.testing.assert_allclose(found, -0.01 * np.sign(slopes), rtol=0.02)  # Adam's first step


@pytest.mark.nightly
def test_the_distribution_moves_to_the_class_and_gives_other_images_to_other_keys():
    process, _ = recovery(steps=200)
    cases = np.repeat(np.arange(CLASSES, dtype=np.int32), 4)
    found = solve(process, KEY, cases, plan=ONE).output.reshape(12, 6)
    assert np.all(np.argmax(found @ MATRIX, 1) == cases)
    assert not np.allclose(found[0], found[1])
    bounded, _ = recovery(steps=200, bound=0.1)
    found = solve(bounded, KEY, cases, plan=ONE).output.reshape(12, 6)
    assert found.min() >= 0.3 - 1e-6 and found.max() <= 0.5 + 1e-6


def test_another_objective_takes_the_place_of_the_cross_entropy():
    process, _ = recovery(objective=lambda logits, label: jnp.sum(logits) * 0 + 5.0, identity_weight=2.0)
    _, told = process.step(KEY, process.init(KEY, jnp.asarray(0, jnp.int32)), jnp.asarray(0, jnp.int32))
    assert float(told.extra["identity"]) == pytest.approx(5.0) and float(told.loss) > 10.0
