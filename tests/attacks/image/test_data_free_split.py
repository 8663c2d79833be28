"""Divide-and-conquer inversion: the loss of a block against numpy, blocks in their order, and no data."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, fit, from_function, solve
from jaxmia.attacks.image.data_free_split import data_free_split, random_fields
from jaxmia.oracle import Outputs

KEY, SHAPE = jax.random.key(2), (3, 4, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(6)
PARAMS = tuple(np.linalg.qr(RNG.normal(size=(12, 12)))[0].astype(np.float32) for _ in range(2))
PRIVATE = RNG.uniform(0.1, 0.9, size=(4, *SHAPE)).astype(np.float32)


def network(params, x):
    """Two blocks: turned and bent, then turned again."""
    middle = jnp.tanh(x.reshape(len(x), 12) @ params[0])
    return Outputs(jnp.ones((len(x), 2)), {"middle": middle, "cut": middle @ params[1]})


CLIENT = from_function(network, PARAMS, classes=2).until("cut")
VIEW = CLIENT.view(Access.WEIGHTS)


class Inverse(nn.Module):
    shape: tuple[int, ...]
    hidden: int = 0

    @nn.compact
    def __call__(self, v, train: bool = False):
        bent = nn.Dense(12)(v) + (nn.Dense(12)(nn.relu(nn.Dense(self.hidden)(v))) if self.hidden else 0.0)
        return bent.reshape(-1, *self.shape)


INVERSES = (Inverse(SHAPE, 48), Inverse((12,)))


@pytest.mark.nightly
def test_the_loss_of_a_block_is_undoing_it_and_being_consistent():
    attack = data_free_split(VIEW, ("middle",), INVERSES, SHAPE, batch=5, cycle=0.7)
    first = attack.train[0](()).init(KEY, None)[0]
    process = attack.train[1]((first,))
    state = process.init(KEY, None)
    _, told = process.step(KEY, state, None)

    x = np.asarray(random_fields(KEY, 5, SHAPE), np.float64).reshape(5, 12)
    middle = np.tanh(x @ PARAMS[0])
    cut = middle @ PARAMS[1]
    dense = {k: np.asarray(v, np.float64) for k, v in state[0]["params"]["Dense_0"].items()}
    guess = cut @ dense["kernel"] + dense["bias"]
    image = np.clip(np.asarray(INVERSES[0].apply(first, jnp.asarray(guess, jnp.float32))), 0, 1).reshape(5, 12)
    again = np.tanh(image @ PARAMS[0]) @ PARAMS[1]

    def far(a, b):
        return np.mean(np.sum((a - b) ** 2, 1) / np.sum(b**2, 1))

    np.testing.assert_allclose(told.extra["cycle"], far(again, cut), rtol=1e-3)
    np.testing.assert_allclose(told.loss, far(guess, middle) + 0.7 * far(again, cut), rtol=1e-3)
    assert int(told.queries) == 0


@pytest.mark.nightly
def test_what_was_sent_is_inverted_without_data():
    attack, fitted = data_free_split(VIEW, ("middle",), INVERSES, SHAPE, steps=1200, batch=32, rate=5e-3), ()
    for stage in attack.train:
        fitted += (fit(stage(fitted), KEY, lambda step: {}, plan=ONE)[0],)
    sent = np.asarray(jax.vmap(lambda x: VIEW.answer(KEY, x))(jnp.asarray(PRIVATE)))
    output = solve(attack.solve(fitted), KEY, sent, plan=ONE).output
    assert np.sqrt(np.mean((output - PRIVATE) ** 2)) <= 0.06
    assert np.sqrt(np.mean((output - np.roll(PRIVATE, 1, 0)) ** 2)) >= 0.25


@pytest.mark.nightly
def test_random_fields_are_smooth_images():
    fields = np.asarray(random_fields(KEY, 64, (16, 16, 1)))
    assert fields.min() >= 0 and fields.max() <= 1
    np.testing.assert_allclose(fields.mean(), 0.5, atol=0.05)
    across = np.mean((fields[:, :, 1:] - fields[:, :, :-1]) ** 2)
    far = np.mean((fields[:, :, 8:] - fields[:, :, :-8]) ** 2)
    assert across <= 0.7 * far  # white noise has the same for both


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="legal is one more, 2"):
        data_free_split(VIEW, ("middle",), INVERSES[:1], SHAPE)
    with pytest.raises(ValueError, match="nowhere.*cut, middle"):
        data_free_split(VIEW, ("nowhere",), INVERSES, SHAPE).train[0](()).init(KEY, None)
