"""AMSGrad against a loop in numpy; who says that it is used as released."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import Access, from_function
from jaxmia.attacks.image.inverse_network import inverse_network
from jaxmia.attacks.image.query_free import query_free
from jaxmia.attacks.image.rmle import rmle
from jaxmia.attacks.image.unsplit import unsplit
from jaxmia.oracle import Nothing
from jaxmia.recipes.amsgrad import Moments, amsgrad

SHAPE = (2, 3, 1)
GRADIENTS = np.concatenate([[[30.0, -5.0]], np.random.default_rng(0).normal(size=(40, 2))]).astype(np.float32)


def by_hand(gradients, rate, eps, b1=0.9, b2=0.999):
    """Where PyTorch's Adam(amsgrad=True) goes from zero: max over v as it is, then the correction for the start."""
    x = m = v = largest = np.zeros(2)
    path = []
    for t, g in enumerate(gradients.astype(np.float64), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        largest = np.maximum(largest, v)
        x = x - rate(t - 1) * (m / (1 - b1**t)) / (np.sqrt(largest) / np.sqrt(1 - b2**t) + eps)
        path.append(x)
    return np.array(path)


def taken(optimizer, gradients):
    x, path = jnp.zeros(2), []
    state = optimizer.init(x)
    for g in gradients:
        updates, state = optimizer.update(jnp.asarray(g), state, x)
        x = optax.apply_updates(x, updates)
        path.append(x)
    return np.array(path)


@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_steps_are_those_of_pytorch(eps):
    expected = by_hand(GRADIENTS, lambda t: 0.05, eps)
    np.testing.assert_allclose(taken(amsgrad(0.05, eps=eps), GRADIENTS), expected, rtol=1e-3)
    assert np.abs(taken(optax.amsgrad(0.05, eps=eps), GRADIENTS) - expected)[-1].max() > 0.05


def test_the_rate_may_be_a_schedule_and_parameters_a_tree():
    falling = optax.exponential_decay(0.1, 10, 0.5, staircase=True)
    expected = by_hand(GRADIENTS, lambda t: 0.1 * 0.5 ** (t // 10), 1e-8)
    np.testing.assert_allclose(taken(amsgrad(falling), GRADIENTS), expected, rtol=1e-3)
    tree = {"a": jnp.ones(2), "b": (jnp.ones((2, 3)),)}
    updates, state = amsgrad(0.1).update(tree, amsgrad(0.1).init(tree))
    assert jax.tree.structure(updates) == jax.tree.structure(tree)
    np.testing.assert_allclose(updates["b"][0], -0.1, rtol=1e-5)


class Dense(nn.Module):
    outputs: int = 6

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(self.outputs)(x.reshape(len(x), -1)).reshape(len(x), *((6,) if self.outputs == 6 else SHAPE))


VIEW = from_function(lambda w, v: v.reshape(len(v), -1) @ w, jnp.eye(6), classes=6).view(Access.WEIGHTS)
BATCH = {"x": jnp.ones((4, *SHAPE)), "y": jnp.arange(4)}


@pytest.mark.parametrize(
    ("process", "data"),
    [
        (lambda: rmle(VIEW, SHAPE).solve(()), jnp.ones(6)),
        (lambda: unsplit(Nothing(), Dense(), SHAPE).solve(()), jnp.ones(6)),
        (lambda: query_free(VIEW, Dense(), SHAPE).train[0](()), BATCH),
        (lambda: query_free(VIEW, Dense(), SHAPE).solve((Dense().init(jax.random.key(0), BATCH["x"]),)), jnp.ones(6)),
        (lambda: inverse_network(VIEW, Dense()).train[0](()), {"x": jnp.ones((4, 6))}),
    ],
    ids=["rmle", "unsplit", "query_free, shadow", "query_free", "inverse_network"],
)
def test_attacks_that_say_as_released_use_it(process, data):
    state = jax.eval_shape(process().init, jax.random.key(0), data)
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Moments))
    assert any(isinstance(leaf, Moments) for leaf in leaves)
