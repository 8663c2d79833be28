"""Feature inversion on an invertible linear encoder, whose inverse is known: `recipes.descend` and `recipes.regress`.

An image x in [0, 1]^16 is encoded as x E + b, E a rotation with stretches of 0.8 to 1.25. What is served determines x, so
recovery must be exact; of an encoder that answers b alone, and from the code of another image, it must not be.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmia import Access, Attack, Plan, Scenario, from_function, run, solve
from jaxmia.objectives import feature
from jaxmia.priors import pixels
from jaxmia.recipes import descend, regress, score

SHAPE, SIZE = (4, 4, 1), 16
KEY = jax.random.key(3)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(0)
MATRIX = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0] * np.geomspace(0.8, 1.25, SIZE)
OFFSET = 0.3 * RNG.normal(size=SIZE)
PRIVATE = RNG.uniform(0.05, 0.95, (8, *SHAPE)).astype(np.float32)
BLIND = np.sqrt(np.mean((PRIVATE - 0.5) ** 2))  # error of the gray image


def encoder(matrix):
    params = {"matrix": jnp.asarray(matrix, jnp.float32), "offset": jnp.asarray(OFFSET, jnp.float32)}
    return from_function(
        lambda params, batch: batch.reshape(-1, SIZE) @ params["matrix"] + params["offset"],
        params, classes=SIZE, serve=lambda outputs: outputs.logits,
    )  # fmt: skip


def codes(matrix):
    """What the encoder serves for the private images."""
    return (PRIVATE.reshape(8, SIZE) @ matrix + OFFSET).astype(np.float32)


def error(found, truth=PRIVATE):
    return np.sqrt(np.mean((np.asarray(found) - truth) ** 2))


def descended(matrix):
    oracle = encoder(matrix).view(Access.WEIGHTS)
    process = descend(oracle, feature, pixels(SHAPE, start="gray"), optax.adam(0.05), steps=400)
    return solve(process, KEY, codes(matrix), plan=ONE)


def test_descend_on_features_recovers_the_images():
    result = descended(MATRIX)
    assert error(result.output) <= 1e-5
    assert np.all(result.info.loss <= 1e-10)
    assert error(result.output, np.roll(PRIVATE, 1, axis=0)) >= BLIND  # it is that image, not any


def test_descend_on_a_constant_encoder_stays_where_it_started():
    result = descended(np.zeros_like(MATRIX))
    np.testing.assert_array_equal(result.output, np.full_like(PRIVATE, 0.5))


class Inverse(nn.Module):
    """Codes to images, linear."""

    @nn.compact
    def __call__(self, codes, train: bool = False):
        return nn.Dense(SIZE)(codes).reshape(-1, *SHAPE)


def regressed(matrix):
    """Public images train an inverse, which decodes the codes of the private ones; and its variables."""
    view = encoder(matrix).view(Access.SCORES)
    read = []

    def decode(fitted):
        read.append(fitted[0]["params"]["Dense_0"])
        return score(lambda key, code: Inverse().apply(fitted[0], code[None])[0])

    attack = Attack(decode, (lambda fitted: regress(Inverse(), view.answer, optax.sgd(1.0, 0.9), steps=500),))

    def public(step):
        return {"x": np.random.default_rng(step).uniform(size=(64, *SHAPE)).astype(np.float32)}

    result = run(attack, KEY, Scenario(None, codes(matrix), public=public), plan=ONE)
    assert result.training_queries == 500 * 64
    return result.output, read[0]


def test_regress_learns_the_known_inverse():
    found, learned = regressed(MATRIX)
    inverse = np.linalg.inv(MATRIX)
    np.testing.assert_allclose(learned["kernel"], inverse, atol=2e-3)
    np.testing.assert_allclose(learned["bias"], -OFFSET @ inverse, atol=5e-3)
    assert error(found) <= 1e-3


def test_regress_on_a_constant_encoder_does_not_beat_the_gray_image():
    found, _ = regressed(np.zeros_like(MATRIX))
    assert error(found) >= 0.99 * BLIND  # what it learns is the mean of the public images
