"""Updates-Leak: the shadow's update against numpy, what is asked, and what a decoder is given."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, from_function
from jaxmia.attacks.image.updates_leak import difference, updates_leak
from jaxmia.testing.benches.networks import Surrogate

KEY, SHAPE, CLASSES = jax.random.key(3), (2, 3, 1), 3
RNG = np.random.default_rng(7)
X, Y = RNG.uniform(size=(4, *SHAPE)).astype(np.float32), np.array([0, 2, 1, 2], np.int32)
PROBES = RNG.uniform(size=(5, *SHAPE)).astype(np.float32)
MODEL = Surrogate(CLASSES)
VARIABLES = MODEL.init(jax.random.key(5), X)
VIEW = from_function(MODEL.apply, VARIABLES, classes=CLASSES).view(Access.SCORES)


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, deltas, train: bool = False):
        return nn.Dense(6)(deltas.reshape(len(deltas), -1)).reshape(-1, *SHAPE)


def softmax(logits):
    shown = np.exp(logits - logits.max(-1, keepdims=True))
    return shown / shown.sum(-1, keepdims=True)


def by_hand(probes, steps, rate):
    """delta of every sample, over its root mean square."""
    dense = {k: np.asarray(v, np.float64) for k, v in VARIABLES["params"]["Dense_0"].items()}
    flat, deltas = probes.reshape(len(probes), 6), []
    for x, y in zip(X.reshape(4, 6).astype(np.float64), Y):
        kernel, bias = dense["kernel"], dense["bias"]
        for _ in range(steps):
            residual = softmax(x @ kernel + bias) - np.eye(CLASSES)[y]
            kernel, bias = kernel - rate * np.outer(x, residual), bias - rate * residual
        delta = softmax(flat @ dense["kernel"] + dense["bias"]) - softmax(flat @ kernel + bias)
        deltas.append(delta / np.sqrt(np.mean(delta**2)))
    return np.stack(deltas)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_decoder_learns_from_updates_of_the_shadow(steps):
    attack = updates_leak(VIEW, MODEL, Decoder(), jnp.asarray(PROBES), probes=3, update_steps=steps, update_rate=0.4)
    process = attack.train[1]((VARIABLES,))
    state = process.init(KEY, {"x": X, "y": Y})
    _, told = jax.jit(process.step)(KEY, state, {"x": X, "y": Y})
    dense = {k: np.asarray(v, np.float64) for k, v in state[0]["params"]["Dense_0"].items()}
    guess = by_hand(PROBES[:3], steps, 0.4).reshape(4, -1) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(told.loss, np.mean((guess - X.reshape(4, 6)) ** 2), rtol=1e-3)
    assert int(told.queries) == 0  # the target is not asked while training


def test_the_shadow_learns_labels():
    attack = updates_leak(VIEW, MODEL, Decoder(), jnp.asarray(PROBES), shadow_rate=0.05)
    process = attack.train[0](())
    state, losses = process.init(KEY, {"x": X, "y": Y}), []
    for _ in range(200):
        state, told = jax.jit(process.step)(KEY, state, {"x": X, "y": Y})
        losses.append(float(told.loss))
    assert losses[-1] <= 0.3 * losses[0]
    shown = np.asarray(MODEL.apply(process.read(state), X))
    np.testing.assert_array_equal(shown.argmax(1), Y)


def test_the_model_before_the_update_is_asked_about_every_probe():
    attack = updates_leak(VIEW, MODEL, Decoder(), jnp.asarray(PROBES), probes=4)
    after = jnp.asarray(softmax(RNG.normal(size=(4, CLASSES))), jnp.float32)
    decoder = Decoder().init(KEY, after[None])
    process = attack.solve((None, decoder))
    output = process.read(process.init(KEY, after))
    assert int(output.queries) == 4 and process.steps == 0
    before = jax.nn.softmax(MODEL.apply(VARIABLES, PROBES[:4]))
    wanted = Decoder().apply(decoder, difference(before, after)[None])[0]
    np.testing.assert_allclose(output.image, wanted, rtol=1e-4, atol=1e-5)


def test_refuses_unlabeled_data_and_no_probes():
    with pytest.raises(ValueError, match="'y'"):
        updates_leak(VIEW, MODEL, Decoder(), jnp.asarray(PROBES)).train[0](()).init(KEY, {"x": X})
    with pytest.raises(ValueError, match="0 of 5"):
        updates_leak(VIEW, MODEL, Decoder(), jnp.asarray(PROBES), probes=0)
