"""Inverse network: it learns a client's inverse from queries alone, counts them, and halves its rate."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Access, Plan, Scenario, from_function, run
from jaxmia.attacks.image.inverse_network import inverse_network
from jaxmia.oracle import Outputs

KEY, SHAPE = jax.random.key(4), (2, 3, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(2)
MATRIX = jnp.asarray(np.linalg.qr(RNG.normal(size=(6, 6)))[0], jnp.float32)
PRIVATE = RNG.uniform(size=(4, *SHAPE)).astype(np.float32)


def network(matrix, x):
    """The client turns an image in six dimensions, and folds it to a map; the server sums that up."""
    turned = (x.reshape(len(x), -1) @ matrix).reshape(-1, 3, 2)
    return Outputs(jnp.sum(turned, (1, 2))[:, None] * jnp.ones(2), {"turned": turned})


CLIENT = from_function(network, MATRIX, classes=2).until("turned")


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, v, train: bool = False):
        return nn.Dense(6)(v.reshape(len(v), -1)).reshape(-1, *SHAPE)


def public(step):
    return {"x": np.random.default_rng(step).uniform(size=(16, *SHAPE)).astype(np.float32)}


def test_a_turned_image_is_turned_back_and_training_queries_are_counted():
    view = CLIENT.view(Access.SCORES)
    cases = np.asarray(jax.vmap(lambda x: view.answer(KEY, x))(jnp.asarray(PRIVATE)))
    attack = inverse_network(view, Decoder(), steps=2000, rate=0.1)
    result = run(attack, KEY, Scenario(CLIENT, cases, public=public), plan=ONE)
    np.testing.assert_allclose(result.output, PRIVATE, atol=0.02)
    assert result.training_queries == 16 * 2000


def test_the_rate_is_halved_every_fifth_of_the_training():
    """Where every gradient is the same, AMSGrad moves by its rate: two steps at each of five rates are told apart."""

    class Constant(nn.Module):
        @nn.compact
        def __call__(self, v, train: bool = False):
            return self.param("gray", nn.initializers.constant(100.0), (6,)).reshape(1, *SHAPE) + 0 * jnp.sum(v)

    attack = inverse_network(CLIENT.view(Access.SCORES), Constant(), steps=10, rate=0.1, epsilon=1e-8)
    process, zero = attack.train[0](()), {"x": jnp.zeros((1, *SHAPE))}
    state = process.init(KEY, zero)
    grays = [100.0]
    for _ in range(10):
        state, _ = process.step(KEY, state, zero)
        grays.append(float(process.read(state)["params"]["gray"][0]))
    np.testing.assert_allclose(-np.diff(grays), 0.1 * 0.5 ** (np.arange(10) // 2), rtol=0.02)
