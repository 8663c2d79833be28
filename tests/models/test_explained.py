"""The decoder of explanations: shapes, and that it reads both of its inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models.explained import ExplainedDecoder


@pytest.mark.nightly
@pytest.mark.parametrize("shape", [(8, 8, 1), (16, 8, 3)])
def test_reads_scores_and_explanation(shape):
    module = ExplainedDecoder(shape, width=4)
    told = {"scores": jnp.ones((2, 5)), "explanation": jax.random.normal(jax.random.key(0), (2, *shape))}
    variables = jax.jit(module.init)(jax.random.key(1), told)
    images = jax.jit(module.apply)(variables, told)
    assert images.shape == (2, *shape) and np.all((images > 0) & (images < 1))
    slopes = jax.jit(jax.grad(lambda told: jnp.sum(module.apply(variables, told) ** 2)))(told)
    for name, slope in slopes.items():
        assert np.all(np.any(np.asarray(slope).reshape(2, -1) != 0, axis=1)), name
    assert np.mean(slopes["explanation"] != 0) >= 0.9  # every pixel


def test_refuses_sizes_that_it_cannot_halve():
    told = {"scores": jnp.ones((1, 2)), "explanation": jnp.zeros((1, 30, 32, 1))}
    with pytest.raises(ValueError, match="30 x 32.*8 pixels"):
        ExplainedDecoder((30, 32, 1)).init(jax.random.key(0), told)
