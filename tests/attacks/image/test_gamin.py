"""GAMIN: both losses and the balance against numpy, what the surrogate learns, and a hard budget."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, from_function
from jaxmia.attacks.image.gamin import gamin
from jaxmia.testing.benches.networks import Surrogate
from tests.models.compiled import compiled

KEY, CLASSES, SHAPE = jax.random.key(6), 3, (2, 2, 1)
MATRIX = np.random.default_rng(1).normal(size=(4, CLASSES)).astype(np.float32) * 3
SMALL = {"batch": 4, "dimensions": 3}
LABEL = jnp.asarray(2, jnp.int32)


class Flat(nn.Module):
    """The same image for every latent."""

    @nn.compact
    def __call__(self, z, train: bool = False):
        painted = self.param("painted", nn.initializers.constant(0.4), (4,))
        return (painted + 0 * z[:, :1]).reshape(-1, *SHAPE)


def target(**options):
    return from_function(lambda w, x: (x.reshape(-1, 4) - 0.5) @ w, jnp.asarray(MATRIX), classes=CLASSES, **options)


def attack(oracle=None, surrogate=Surrogate(CLASSES), **options):
    view = oracle or target().view(Access.SCORES)
    return gamin(view, SHAPE, Flat(), surrogate, **{**SMALL, **options}).solve(())


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_losses_and_balance():
    process = attack(surrogate_rate=0.0, rate=0.0, balance=0.3, balance_rate=0.1, gamma=0.7)
    state = compiled(process.init)(KEY, LABEL)
    after, told = compiled(process.step)(KEY, state, LABEL)
    kernel, bias = (np.asarray(state.networks[0]["params"]["Dense_0"][name]) for name in ("kernel", "bias"))
    noise = np.asarray(jax.random.uniform(jax.random.split(KEY, 6)[0], (4, 4)))

    def entropy(x):
        return -(np.exp(log_softmax((x - 0.5) @ MATRIX)) * log_softmax(x @ kernel + bias)).sum(-1).mean()

    random, generated = entropy(noise), entropy(np.full((1, 4), 0.4))
    np.testing.assert_allclose([told.extra["random"], told.extra["generated"]], [random, generated], rtol=1e-4)
    np.testing.assert_allclose(told.loss, -log_softmax(np.full(4, 0.4) @ kernel + bias)[2], rtol=1e-4)
    np.testing.assert_allclose(after.balance, 0.3 + 0.1 * (generated - 0.7 * random), rtol=1e-4)


def test_the_balance_weighs_the_generated_images():
    """The surrogate descends on H(X_S) + k H(X_G): Adam's first moment is a tenth of that gradient."""
    for k in (0.0, 1.0):
        process = attack(surrogate_rate=0.01, rate=0.0, balance=k)
        state = compiled(process.init)(KEY, LABEL)
        after, _ = compiled(process.step)(KEY, state, LABEL)
        kernel, bias = (np.asarray(state.networks[0]["params"]["Dense_0"][name]) for name in ("kernel", "bias"))
        noise = np.asarray(jax.random.uniform(jax.random.split(KEY, 6)[0], (4, 4)))
        slopes = [
            x.T @ (np.exp(log_softmax(x @ kernel + bias)) - np.exp(log_softmax((x - 0.5) @ MATRIX))) / len(x)
            for x in (noise, np.full((4, 4), 0.4))
        ]
        moment = after.optimizers[0][0].mu["Dense_0"]["kernel"]
        np.testing.assert_allclose(moment, 0.1 * (slopes[0] + k * slopes[1]), rtol=1e-3, atol=1e-5)


def test_the_surrogate_becomes_the_target_and_the_generator_its_class():
    process = attack(steps=600, batch=32, surrogate_rate=0.03, rate=0.01)
    state, step = compiled(process.init)(KEY, LABEL), compiled(process.step)
    for t in range(600):
        state, _ = step(jax.random.fold_in(KEY, t), state, LABEL)
    x = np.random.default_rng(2).uniform(size=(500, 4)).astype(np.float32)
    wanted = np.exp(log_softmax((x - 0.5) @ MATRIX))
    told = jax.nn.softmax(Surrogate(CLASSES).apply(state.networks[0], x))
    assert np.abs(np.asarray(told) - wanted).max() < 0.05
    image = np.asarray(process.read(state)).reshape(4)
    assert np.argmax((image - 0.5) @ MATRIX) == 2 and np.exp(log_softmax((image - 0.5) @ MATRIX))[2] > 0.9


def test_asks_both_batches_and_stops_at_the_budget():
    served = []

    def answer(key, scores):
        jax.debug.callback(lambda seen: served.append(1), scores)
        return scores

    process = attack(target(defense=Defense(answer=answer)).view(Access.SCORES), budget=23)
    state, step = compiled(process.init)(KEY, LABEL), compiled(process.step)
    for t in range(2):
        state, told = step(jax.random.fold_in(KEY, t), state, LABEL)
        jax.effects_barrier()
        assert int(told.queries) == len(served) == 8 * (t + 1) and bool(told.done) == (t == 1)


@pytest.mark.parametrize("wrong", [{"batch": 1}, {"budget": 7}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        attack(**wrong)
