"""The share of zeros, that the rest is sent as it is, and that asking again shows no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.adapters.function import from_function
from jaxmia.core import Defense
from jaxmia.defenses.feature_dropout import feature_dropout
from jaxmia.oracle import Access, Outputs

KEY = jax.random.key(0)
Z = 1 + jax.random.uniform(KEY, (20_000, 3))


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.5, 1.0])
def test_that_share_is_zero_and_the_rest_is_not_rescaled(rate):
    sent = np.asarray(feature_dropout(rate=rate).send(KEY, Z))
    zeros = sent == 0
    assert (sent == np.where(zeros, 0, Z)).all()
    assert zeros.mean() == pytest.approx(rate, abs=0.01) and (0 < rate < 1 or zeros.mean() == rate)
    joint = (zeros[:, 0] & zeros[:, 1]).mean()
    assert joint == pytest.approx(rate**2, abs=0.015)  # independent


def test_a_higher_rate_drops_more_of_the_same_and_can_be_traced():
    drop = jax.jit(jax.vmap(lambda rate: feature_dropout(rate=rate).send(KEY, Z) == 0))
    less, more = drop(jnp.array([0.2, 0.4]))
    assert more[less].all() and more.sum() > 1.5 * less.sum()
    whole = feature_dropout().send(KEY, jnp.ones((3, 5), jnp.bfloat16))
    assert whole.dtype == jnp.bfloat16 and whole.shape == (3, 5)
    assert feature_dropout()._replace(send=Defense().send) == Defense()


def test_equal_inputs_lose_equal_features():
    def apply(params, x):
        return Outputs(x[:, :3] @ params, {"block1": x})

    target = from_function(apply, jnp.eye(3), classes=3, defense=feature_dropout(rate=0.5), grid=None)
    client = target.until("block1").view(Access.SCORES)
    x = jnp.arange(1.0, 65.0)
    first, second, other = (np.asarray(client.answer(jax.random.key(k), y)) for k, y in ((0, x), (1, x), (0, x + 1)))
    assert (first == second).all() and ((first == 0) != (other == 0)).any()
    assert (target.view(Access.LABELS).answer(KEY, x)) == 2


def test_illegal_rates_are_named():
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"rate: {rate}; legal is 0 to 1"):
            feature_dropout(rate=rate)
