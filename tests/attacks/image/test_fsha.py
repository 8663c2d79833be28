"""FSHA: its losses against numpy, their signs against the losses of its docstring, and a client that does not follow."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Plan, fit, solve
from jaxmia.attacks.image.fsha import Victim, fsha
from jaxmia.oracle import Nothing
from jaxmia.testing.benches import image as bench

KEY, SHAPE = jax.random.key(4), (2, 3, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(8)
PRIVATE = jnp.asarray(RNG.uniform(0.1, 0.9, size=(3, *SHAPE)), jnp.float32)
PUBLIC = {"x": RNG.uniform(size=(5, *SHAPE)).astype(np.float32)}
WEIGHTS = ("client", "encoder", "decoder", "critic")


class Linear(nn.Module):
    """Without a bias, so that the weights are the network."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x, train: bool = False):
        flat = nn.Dense(int(np.prod(self.shape)), use_bias=False)(x.reshape(len(x), -1))
        return flat.reshape(-1, *self.shape)


def victim(images=1):
    """Of so many images; image 0 alone in a minibatch, where it has but one."""
    return Victim(
        init=lambda key: jax.random.normal(key, (6, 4)),
        send=lambda weights, index: PRIVATE[index].reshape(-1) @ weights,
        images=images,
    )


def attack(client=None, coder=(4,), image=SHAPE, **options):
    return fsha(Nothing(), client or victim(), Linear(coder), Linear(image), Linear((1,)), **options)


def weights(state):
    """Of the four networks, in float64."""
    matrices = (jax.tree.leaves(getattr(state, name))[0] for name in WEIGHTS)
    return tuple(np.asarray(matrix, np.float64) for matrix in matrices)


def test_losses_are_those_of_the_docstring():
    process = attack(gradient_weight=3.0).train[0](())
    state = process.init(KEY, PUBLIC)
    _, told = jax.jit(process.step)(KEY, state, PUBLIC)
    client, encoder, decoder, critic = weights(state)
    x, sent = PUBLIC["x"].reshape(5, 6), np.asarray(PRIVATE[0]).reshape(6) @ client
    np.testing.assert_allclose(told.loss, np.mean((x @ encoder @ decoder - x) ** 2), rtol=1e-4)
    apart = (sent @ critic).item() - np.mean(x @ encoder @ critic)
    penalty = (np.linalg.norm(critic) - 1) ** 2  # the slope of a linear critic is the same everywhere
    np.testing.assert_allclose(told.extra["critic"], apart + 3.0 * penalty, rtol=1e-4)
    np.testing.assert_allclose(told.extra["client"], -(sent @ critic).item(), rtol=1e-4)
    assert int(told.queries) == 0


def test_steps_go_where_the_losses_with_logarithms_point():
    """Adam's first step is the rate against the sign of the gradient, so signs are what can be compared.

    The gradient of log(1 - D) is that of a Wasserstein loss times a positive number, for the client; for D it is where D
    is 1/2 everywhere, as it is here to begin with.
    """
    process = attack(gradient_weight=0.0, client_rate=1e-3, rate=1e-3, critic_rate=1e-3).train[0](())
    x, private = jnp.asarray(PUBLIC["x"].reshape(5, 6)), PRIVATE[0].reshape(6)

    def believed(critic, features):
        return jax.nn.sigmoid(features @ critic)

    def loss_1(encoder, decoder):
        return jnp.mean((x @ encoder @ decoder - x) ** 2)

    def loss_2(critic, client, encoder):
        missed = jnp.mean(jnp.log(1 - believed(critic, x @ encoder)))
        return missed + jnp.mean(jnp.log(believed(critic, private @ client)))

    def loss_3(client, critic):
        return jnp.mean(jnp.log(1 - believed(critic, private @ client)))

    def moves(state):
        after = jax.jit(process.step)(KEY, state, PUBLIC)[0]
        return tuple(new - old for new, old in zip(weights(after), weights(state)))

    state = process.init(KEY, PUBLIC)
    client, encoder, decoder, critic = (jnp.asarray(w, jnp.float32) for w in weights(state))
    by_client, by_encoder, by_decoder, _ = moves(state)
    np.testing.assert_allclose(by_client, -1e-3 * np.sign(jax.grad(loss_3)(client, critic)), rtol=2e-2)
    np.testing.assert_allclose(by_encoder, -1e-3 * np.sign(jax.grad(loss_1)(encoder, decoder)), rtol=2e-2)
    np.testing.assert_allclose(by_decoder, -1e-3 * np.sign(jax.grad(loss_1, 1)(encoder, decoder)), rtol=2e-2)
    undecided = state._replace(critic=jax.tree.map(jnp.zeros_like, state.critic))
    by_critic = moves(undecided)[3]
    slope = jax.grad(loss_2)(jnp.zeros_like(critic), client, encoder)
    np.testing.assert_allclose(by_critic, -1e-3 * np.sign(slope), rtol=2e-2)


def test_the_output_is_what_the_decoder_makes_of_what_the_client_sends():
    client, decoder = 0.3 * jnp.ones((6, 4)), Linear(SHAPE).init(KEY, jnp.zeros((1, 4)))
    process = attack(victim(3)).solve(((client, decoder),))
    output = solve(process, KEY, np.asarray([2, 0], np.int32), plan=ONE).output
    sent = PRIVATE.reshape(3, 6)[jnp.asarray([2, 0])] @ client
    np.testing.assert_allclose(output, np.clip(Linear(SHAPE).apply(decoder, sent), 0, 1), atol=1e-6)
    assert process.steps == 0


@pytest.mark.nightly
def test_a_client_that_does_not_follow_leaks_less_than_the_mean_image():
    """The server's networks are as well trained, and features of another code are nothing to them."""
    given = bench.make()
    names = ("victim", "encoder", "decoder", "critic")
    settings = given.settings["image/fsha"]

    def error(rate):
        inputs = {name: given.inputs[name] for name in names}
        one = fsha(Nothing(), **inputs, **{**settings, "client_rate": rate})
        fitted, history = fit(one.train[0](()), KEY, given.public, plan=ONE)
        assert history.loss[-1] <= 0.01
        output = solve(one.solve((fitted,)), KEY, bench.WANTED.astype(np.int32), plan=ONE).output
        return np.sqrt(np.mean((output.reshape(6, -1) - bench.prototypes()) ** 2))

    of_the_mean = np.sqrt(np.mean((bench.prototypes() - bench.prototypes().mean(0)) ** 2))
    assert error(settings["client_rate"]) <= 0.7 * of_the_mean
    assert error(0.0) >= of_the_mean


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="0 images; legal is 1 or more"):
        attack(victim(0))
    with pytest.raises(ValueError, match=r"encoder: features \(5,\); the client sends \(4,\)"):
        attack(coder=(5,)).train[0](()).init(KEY, PUBLIC)
    with pytest.raises(ValueError, match=r"decoder: images \(3, 2, 1\); the public ones are \(2, 3, 1\)"):
        attack(image=(3, 2, 1)).train[0](()).init(KEY, PUBLIC)
