"""Standardized pixels: the penalty against numpy, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.priors import standardized


def test_penalty_and_decoding():
    u = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    prior = standardized((3, 4, 2), variation=2.0, norm=0.5, center=0.4, deviation=0.2, start=1.5)
    down, across = np.mean((u[1:] - u[:-1]) ** 2), np.mean((u[:, 1:] - u[:, :-1]) ** 2)
    image = prior.decode(jnp.asarray(u))
    np.testing.assert_allclose(image, 0.4 + 0.2 * u, rtol=1e-6)
    np.testing.assert_allclose(
        prior.penalty(jnp.asarray(u), image), 2.0 * (down + across) + 0.5 * np.mean(u**2), rtol=1e-5
    )
    np.testing.assert_array_equal(prior.init(jax.random.key(0)), np.full((3, 4, 2), 1.5))


@pytest.mark.parametrize("shape", [(1, 4, 1), (4, 1, 3)])
def test_refuses(shape):
    with pytest.raises(ValueError, match="shape"):
        standardized(shape, variation=1.0)
