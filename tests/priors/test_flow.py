"""The flow: its density is that of its draws, and it can leave the Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia.priors.flow import flow

KEY, D = jax.random.key(0), 5


def random(one, scale=0.5):
    """Parameters somewhere."""
    parameters = one.init(KEY)
    leaves, structure = jax.tree.flatten(parameters)
    keys = jax.random.split(KEY, len(leaves))
    return structure.unflatten([leaf + scale * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves)])


@pytest.mark.parametrize("layers", [0, 1, 4])
def test_the_density_is_that_of_the_change_of_variables(layers):
    one = flow(D, layers=layers, hidden=7)
    parameters = random(one)
    for i in range(3):
        noise = jax.random.normal(jax.random.fold_in(KEY, i), (D,))
        z, density = one.push(parameters, noise)
        jacobian = np.asarray(jax.jacobian(lambda e: one.push(parameters, e)[0])(noise), np.float64)
        wanted = -0.5 * np.sum(np.square(noise)) - D / 2 * np.log(2 * np.pi) - np.linalg.slogdet(jacobian)[1]
        assert z.shape == (D,)
        np.testing.assert_allclose(density, wanted, rtol=1e-3)


def test_it_starts_as_the_standard_normal():
    one = flow(D, layers=6)
    noise = jax.random.normal(KEY, (D,))
    z, density = one.push(one.init(KEY), noise)
    np.testing.assert_allclose(np.sort(z), np.sort(noise), rtol=1e-6)  # shuffled
    np.testing.assert_allclose(density, jax.scipy.stats.norm.logpdf(z).sum(), rtol=1e-5)


def test_it_fits_a_distribution_that_no_diagonal_gaussian_is():
    """Reverse KL to a banana, x ~ N(0, 1), y ~ N(x^2, 0.3^2): 0.4 nats are out of a diagonal Gaussian's reach."""

    def target(z):
        normal = jax.scipy.stats.norm.logpdf
        return normal(z[0]) + normal(z[1], z[0] ** 2, 0.3)

    one = flow(2, layers=8, hidden=32)
    parameters, optimizer = one.init(KEY), optax.adam(3e-3)

    def loss(parameters, key):
        z, density = jax.vmap(one.push, (None, 0))(parameters, jax.random.normal(key, (128, 2)))
        return jnp.mean(density - jax.vmap(target)(z))

    @jax.jit
    def step(carry, key):
        parameters, state = carry
        value, gradient = jax.value_and_grad(loss)(parameters, key)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), value

    (parameters, _), values = jax.lax.scan(step, (parameters, optimizer.init(parameters)), jax.random.split(KEY, 1500))
    assert float(values[0]) > 5 and 0 <= float(values[-300:].mean()) < 0.2


def test_refuses():
    with pytest.raises(ValueError, match="dimensions, layers: 1, 10"):
        flow(1)
