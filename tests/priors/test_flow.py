"""The flow: its density is that of its draws, and it can leave the Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia.priors.flow import flow

KEY, D = jax.random.key(0), 5


def random(made):
    """Parameters somewhere, where slopes are gentle enough for single precision."""
    leaves, structure = jax.tree.flatten(made.init(KEY))
    keys = jax.random.split(KEY, max(len(leaves), 1))
    return structure.unflatten([0.4 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves)])


@pytest.mark.nightly
@pytest.mark.parametrize(("levels", "layers"), [(1, 0), (1, 4), (2, 0), (2, 3)])
def test_the_density_is_that_of_the_change_of_variables(levels, layers):
    one = flow(D, levels=levels, layers=layers, hidden=7)
    parameters = random(one)
    for i in range(3):
        noise = jax.random.normal(jax.random.fold_in(KEY, i), (D,))
        z, density = one.push(parameters, noise)
        jacobian = np.asarray(jax.jacobian(lambda e: one.push(parameters, e)[0])(noise), np.float64)
        wanted = -0.5 * np.sum(np.square(noise)) - D / 2 * np.log(2 * np.pi) - np.linalg.slogdet(jacobian)[1]
        assert z.shape == (D,)
        np.testing.assert_allclose(density, wanted, rtol=1e-3)


@pytest.mark.nightly
def test_it_starts_as_the_standard_normal():
    one = flow(D, levels=2, layers=6)
    noise = jax.random.normal(KEY, (D,))
    z, density = one.push(one.init(KEY), noise)
    np.testing.assert_allclose(np.sort(z), np.sort(noise), rtol=1e-6)  # shuffled
    np.testing.assert_allclose(density, jax.scipy.stats.norm.logpdf(z).sum(), rtol=1e-5)


@pytest.mark.nightly
def test_it_fits_a_distribution_that_no_diagonal_gaussian_is():
    """Reverse KL to a banana, x ~ N(0, 1), y ~ N(x^2, 0.3^2): 0.4 nats are out of a diagonal Gaussian's reach."""

    def target(z):
        normal = jax.scipy.stats.norm.logpdf
        return normal(z[0]) + normal(z[1], z[0] ** 2, 0.3)

    one = flow(2, levels=1, layers=8, hidden=32)
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


def test_it_is_as_published():
    """512 numbers: 128, 256 and 512 of them on three levels of ten steps, two hidden layers of 100 units."""
    parameters = jax.eval_shape(flow(512).init, KEY)
    shapes = {
        (p["inner"]["weights"].shape, p["middle"]["weights"].shape, p["outer"]["weights"].shape, p["shift"].shape)
        for p in parameters["steps"]
    }
    assert shapes == {
        ((10, d // 2, 100), (10, 100, 100), (10, 100, d // 2), (10, d)) for d in (128, 256, 512)
    }  # fmt: skip
    assert [p["weights"].shape for p in parameters["splits"]] == [(128, 256), (256, 512)]


@pytest.mark.nightly
def test_a_draw_is_that_of_couplings_with_two_hidden_layers_and_of_the_splits():
    made = flow(4, levels=2, layers=1, hidden=3)
    p = jax.tree.map(np.asarray, random(made))
    noise = np.asarray(jax.random.normal(KEY, (4,)), np.float64)

    def elu(x):
        return np.where(x > 0, x, np.expm1(x))

    def step(z, layer, shuffle):
        half, hidden = len(z) // 2, z[: len(z) // 2]
        for name in ("inner", "middle"):
            q = jax.tree.map(lambda leaf: leaf[0], layer[name])
            hidden = elu((hidden @ q["weights"] + q["shift"]) * np.exp(q["log_scale"]))
        q = jax.tree.map(lambda leaf: leaf[0], layer["outer"])
        moved = (hidden @ q["weights"] + q["bias"]) * np.exp(3 * q["log_scale"])
        z = np.concatenate([z[:half], z[half:] + moved])[shuffle]
        return z * np.exp(layer["log_scale"][0]) + layer["shift"][0]

    first, second = (np.random.default_rng([size, 0]).permutation(size) for size in (2, 4))
    z = step(noise[:2], p["steps"][0], first)
    q = p["splits"][0]
    mean, log_deviation = np.split((z @ q["weights"] + q["bias"]) * np.exp(3 * q["log_scale"]), 2)
    z = step(np.concatenate([z, mean + np.exp(log_deviation) * noise[2:]]), p["steps"][1], second)
    np.testing.assert_allclose(made.push(p, jnp.asarray(noise, jnp.float32))[0], z, rtol=1e-4)


@pytest.mark.nightly
def test_hidden_units_start_at_mean_0_and_deviation_1():
    p = jax.tree.map(lambda leaf: leaf[0], flow(64, levels=1, layers=2).init(KEY)["steps"][0])
    z = np.random.default_rng(0).normal(size=(4000, 32))
    hidden = (z @ p["inner"]["weights"] + p["inner"]["shift"]) * np.exp(p["inner"]["log_scale"])
    assert np.abs(hidden.mean(0)).mean() < 0.15 and 0.9 < hidden.std(0).mean() < 1.1  # of 100 draws


def test_refuses():
    for wrong in ({"dimensions": 7}, {"dimensions": 8, "levels": 0}, {"dimensions": 8, "layers": -1}):
        with pytest.raises(ValueError, match="dimensions, levels, layers: "):
            flow(**wrong)
