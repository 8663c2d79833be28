"""Language models: shapes, causality, and that both learn what a first-order chain allows and no more."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia.models import LSTMLanguageModel, TransformerLanguageModel
from tests.models.compiled import compiled, initialize

MODELS = {
    "lstm": LSTMLanguageModel(11, width=12, layers=2),
    "transformer": TransformerLanguageModel(11, length=9, width=12, heads=3, layers=2),
}


@pytest.fixture(params=MODELS)
def model(request):
    module = MODELS[request.param]
    tokens = jax.random.randint(jax.random.key(1), (3, 8), 0, 11)
    return module, initialize(module, tokens), tokens


@pytest.mark.nightly
def test_shapes_and_features(model):
    module, variables, tokens = model
    assert set(variables) == {"params"}
    logits, sown = compiled(lambda v, t: module.apply(v, t, train=True, mutable=["features"]))(variables, tokens)
    assert logits.shape == (3, 8, 11)
    assert {name: value[0].shape for name, value in sown["features"].items()} == {
        "block1": (3, 8, 12),
        "penultimate": (3, 8, 12),
    }


@pytest.mark.nightly
def test_no_position_sees_the_future(model):
    module, variables, tokens = model
    apply = compiled(module.apply)
    before = apply(variables, tokens)
    for position in (0, 3, 7):
        after = apply(variables, tokens.at[:, position].set((tokens[:, position] + 1) % 11))
        np.testing.assert_array_equal(before[:, :position], after[:, :position])
        changed = jnp.abs(before - after).max(axis=(0, 2))[position:]
        assert float(changed.min()) > 0, "the past must reach every later position"


@pytest.mark.nightly
def test_shorter_sequences_give_the_same_logits(model):
    module, variables, tokens = model
    apply = compiled(module.apply)
    np.testing.assert_allclose(apply(variables, tokens)[:, :5], apply(variables, tokens[:, :5]), atol=1e-5)


def test_too_long_a_sequence_is_refused():
    with pytest.raises(ValueError, match="length=9"):
        MODELS["transformer"].init(jax.random.key(0), jnp.zeros((1, 10), jnp.int32))


def test_number_of_parameters():
    tokens = jnp.zeros((1, 4), jnp.int32)

    def count(module):
        variables = jax.eval_shape(module.init, jax.random.key(0), tokens)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))

    # An LSTM layer has four gates, each with an input kernel, a recurrent kernel and one bias.
    assert count(LSTMLanguageModel(50)) == 50 * 200 + 2 * 4 * (200 * 400 + 200) + 201 * 50
    width, norm = 12, 24
    layer = 4 * (width * width + width) + 2 * norm + width * 48 + 48 + 48 * width + width
    assert count(MODELS["transformer"]) == 11 * width + 9 * width + 2 * layer + norm + width * 11


@pytest.mark.nightly
def test_learns_a_markov_chain_down_to_its_entropy(model):
    """The next token is the last one plus 1 or plus 3, evenly: one bit is left, and no model can do better."""
    module, variables, _ = model
    optimizer = optax.adam(0.01)

    def draw(key):
        steps = 1 + 2 * jax.random.bernoulli(key, 0.5, (32, 9)).astype(jnp.int32)
        return jnp.cumsum(steps, axis=1) % 11

    def loss(variables, tokens):
        logits = module.apply(variables, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def step(carry, key):
        variables, state = carry
        updates, state = optimizer.update(jax.grad(loss)(variables, draw(key)), state)
        return (optax.apply_updates(variables, updates), state), None

    keys = jax.random.split(jax.random.key(2), 600)
    (trained, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((variables, optimizer.init(variables)))
    fresh = compiled(loss)(trained, jax.vmap(draw)(jax.random.split(jax.random.key(3), 16)).reshape(-1, 9))
    assert math.log(2) - 0.005 < float(fresh) < math.log(2) + 0.05
