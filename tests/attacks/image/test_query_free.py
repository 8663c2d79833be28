"""Query-free: the shadow learns through a fixed server from labels alone, and is what is inverted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, Scenario, fit, from_function, run
from jaxmia.attacks.image.query_free import query_free

KEY, SHAPE, CLASSES = jax.random.key(6), (2, 3, 1), 3
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(5)
SERVER = RNG.normal(size=(6, CLASSES)).astype(np.float32)
TARGET = from_function(lambda w, v: v.reshape(len(v), -1) @ w, jnp.asarray(SERVER), classes=CLASSES)
VIEW = TARGET.view(Access.WEIGHTS)


class Client(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(6)(x.reshape(len(x), -1))


IMAGES = RNG.uniform(size=(7, *SHAPE)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 7).astype(np.int32)


def test_the_shadows_loss_is_the_cross_entropy_behind_the_server():
    process = query_free(VIEW, Client(), SHAPE).train[0](())
    state = process.init(KEY, {"x": IMAGES, "y": LABELS})
    _, told = process.step(KEY, state, {"x": IMAGES, "y": LABELS})
    dense = {name: np.asarray(leaf, np.float64) for name, leaf in state[0]["params"]["Dense_0"].items()}
    logits = (IMAGES.reshape(7, 6) @ dense["kernel"] + dense["bias"]) @ SERVER
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(7), LABELS])
    np.testing.assert_allclose(told.loss, expected, rtol=1e-4)
    assert int(told.queries) == 0


def test_training_lowers_that_loss():
    attack = query_free(VIEW, Client(), SHAPE, shadow_steps=300, shadow_rate=0.05)
    _, history = fit(attack.train[0](()), KEY, lambda step: {"x": IMAGES, "y": LABELS}, plan=ONE)
    assert history.loss[-1] <= 0.2 * history.loss[0]


def test_what_is_inverted_is_the_shadow():
    """With a shadow in hand, untrained, the image found is the one that it maps to what was observed."""
    kernel, bias = np.linalg.qr(RNG.normal(size=(6, 6)))[0].astype(np.float32), np.full(6, 0.3, np.float32)
    shadow = {"params": {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}}
    attack = query_free(VIEW, Client(), SHAPE, steps=500, rate=0.05, epsilon=1e-6, variation=0.0)
    observed = IMAGES.reshape(7, 6) @ kernel + bias
    result = run(
        attack._replace(train=(), solve=lambda _: attack.solve((shadow,))), KEY, Scenario(TARGET, observed), plan=ONE
    )
    np.testing.assert_allclose(result.output, IMAGES, atol=0.03)


def test_refuses_unlabeled_data():
    with pytest.raises(ValueError, match="'y'"):
        query_free(VIEW, Client(), SHAPE).train[0](()).init(KEY, {"x": IMAGES})
