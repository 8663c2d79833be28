"""rMLE: its loss against numpy, what a client's part is granted, and that it inverts a convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, Plan, ThreatModelError, from_callable, from_linen, solve
from jaxmia.attacks.image.rmle import rmle
from jaxmia.models.features import expose

KEY, SHAPE = jax.random.key(3), (5, 4, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(1)
IMAGES = RNG.uniform(0.2, 0.8, size=(3, *SHAPE)).astype(np.float32)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        expose(self, "block", x)
        return nn.Dense(2)(x.reshape(len(x), -1))


VARIABLES = Network().init(KEY, jnp.asarray(IMAGES))
WHOLE = from_linen(Network(), VARIABLES, classes=2)
CLIENT = WHOLE.until("block")


def smashed(access=Access.WEIGHTS, target=CLIENT):
    return np.asarray(jax.vmap(lambda x: target.view(access).answer(KEY, x))(jnp.asarray(IMAGES)))


def by_hand(x):
    """The block of one image, without a convolution of any library."""
    kernel, bias = (np.asarray(VARIABLES["params"]["Conv_0"][name], np.float64) for name in ("kernel", "bias"))
    padded = np.pad(np.asarray(x, np.float64), ((1, 1), (1, 1), (0, 0)))
    out = [[np.tensordot(padded[i : i + 3, j : j + 3], kernel, 3) for j in range(4)] for i in range(5)]
    return np.maximum(np.array(out) + bias, 0)


def test_a_clients_part_answers_the_feature_at_every_access():
    for access in (Access.SCORES, Access.WEIGHTS):
        np.testing.assert_allclose(smashed(access)[0], by_hand(IMAGES[0]), atol=1e-5)
    with pytest.raises(ThreatModelError):
        jax.grad(lambda x: jnp.sum(CLIENT.view(Access.SCORES).answer(KEY, x)))(IMAGES[0])
    guarded = from_linen(Network(), VARIABLES, classes=2, defense=Defense(send=lambda key, v: 2 * v))
    np.testing.assert_allclose(smashed(Access.SCORES, guarded.until("block")), 2 * smashed(), rtol=1e-5)
    with pytest.raises(ThreatModelError):
        from_linen(Network(), VARIABLES, classes=2, granted=Access.SCORES).until("block").view(Access.WEIGHTS)
    with pytest.raises(ThreatModelError):
        from_callable(lambda x: np.zeros((len(x), 2)), classes=2).until("block")
    with pytest.raises(ValueError, match="nothing.*block"):
        WHOLE.until("nothing").view(Access.SCORES).answer(KEY, IMAGES[0])


def test_the_loss_of_a_step_is_that_of_the_paper():
    process = rmle(CLIENT.view(Access.WEIGHTS), SHAPE, variation=3.0, norm=0.7, center=0.4, deviation=0.2).solve(())
    observed = smashed()[1]
    u = RNG.normal(size=SHAPE).astype(np.float32)
    state = process.init(KEY, observed)
    np.testing.assert_array_equal(state.latent, np.zeros(SHAPE))
    _, told = process.step(KEY, state._replace(latent=jnp.asarray(u)), observed)
    smooth = (np.diff(u, axis=0) ** 2).mean() + (np.diff(u, axis=1) ** 2).mean()
    expected = ((by_hand(0.4 + 0.2 * u) - observed) ** 2).mean() + 3.0 * smooth + 0.7 * (u**2).mean()
    np.testing.assert_allclose(told.loss, expected, rtol=1e-4)


@pytest.mark.nightly
def test_a_shallow_client_is_inverted_and_smoothness_can_be_too_much():
    for image in IMAGES:  # the rectifiers leave enough to tell images apart
        slopes = jax.jacobian(lambda x: CLIENT.view(Access.WEIGHTS).answer(KEY, x))(jnp.asarray(image))
        assert np.linalg.svd(np.asarray(slopes).reshape(-1, 20), compute_uv=False).min() >= 0.05

    def error(**options):
        attack = rmle(CLIENT.view(Access.WEIGHTS), SHAPE, steps=400, rate=0.05, epsilon=1e-6, **options)
        output = solve(attack.solve(()), KEY, smashed(), plan=ONE).output
        assert output.min() >= 0.0 and output.max() <= 1.0
        return np.abs(output - IMAGES).mean()

    assert error(variation=0.0) <= 0.02
    assert error(variation=1e3) >= 0.08
