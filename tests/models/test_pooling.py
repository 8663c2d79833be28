"""The max-pool with a written-out gradient against Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models.pooling import max_pool

SHAPES = [((3, 8, 6, 5), (2, 2)), ((2, 9, 11, 4), (2, 2)), ((2, 9, 10, 3), (3, 2)), ((1, 4, 4, 1), (4, 1))]


def theirs(x, window):
    return nn.max_pool(x, window, strides=window)


def _images(shape, ties):
    x = jax.random.normal(jax.random.key(0), shape)
    return nn.relu(jnp.round(x)) if ties else x  # rounded, most windows have several largest values


def _gradient(pool, window):
    return lambda x: jax.grad(lambda x: jnp.sum(jnp.sin(3 * pool(x, window) + 1)))(x)


@pytest.mark.nightly
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("shape", "window"), SHAPES)
def test_value_and_gradient_are_bitwise_those_of_linen(shape, window, ties):
    x = _images(shape, ties)
    np.testing.assert_array_equal(max_pool(x, window), theirs(x, window))
    cotangent = jax.random.normal(jax.random.key(1), theirs(x, window).shape)
    ours, linen = (jax.jit(jax.vjp(lambda x: pool(x, window), x)[1])(cotangent) for pool in (max_pool, theirs))
    np.testing.assert_array_equal(*ours, *linen)


def test_the_same_alone_and_under_vmap():
    x = _images((5, 9, 8, 3), ties=True)
    alone = jax.jit(jax.vmap(lambda one: _gradient(max_pool, (2, 2))(one[None])[0]))(x)
    np.testing.assert_array_equal(alone, _gradient(theirs, (2, 2))(x))


def test_second_derivative_is_that_of_linen():
    x = _images((2, 6, 6, 3), ties=False)

    def penalty(pool):
        return jax.grad(lambda x: jnp.sum(_gradient(pool, (2, 2))(x) ** 2))(x)

    np.testing.assert_allclose(penalty(max_pool), penalty(theirs), rtol=0, atol=1e-6)


def test_windows_are_two_by_two_unless_told():
    x = _images((2, 6, 6, 3), ties=False)
    np.testing.assert_array_equal(max_pool(x), theirs(x, (2, 2)))
