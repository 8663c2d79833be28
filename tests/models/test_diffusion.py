"""The denoiser: what it is told matters, and it starts at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models.diffusion import Denoiser
from tests.models.compiled import compiled, initialize

KEY, SMALL = jax.random.key(0), Denoiser(3, width=8, multiples=(1, 2))


def inputs(size=8, channels=1):
    x = jax.random.normal(KEY, (1, size, size, channels))
    return jnp.repeat(x, 3, 0), jnp.full(3, 0.5), jnp.arange(3)


@pytest.mark.nightly
def test_starts_at_zero_and_listens_to_level_and_class_of_each_example():
    x, level, labels = inputs()
    variables, apply = initialize(SMALL, x, level, labels), compiled(SMALL.apply)
    np.testing.assert_array_equal(apply(variables, x, level, labels), jnp.zeros(x.shape))
    rng = np.random.default_rng(0)  # no parameter zero, as after training
    variables = jax.tree.map(lambda leaf: leaf + np.float32(0.1) * rng.normal(size=leaf.shape).astype("f"), variables)
    same, classes = apply(variables, x, level, 0 * labels), apply(variables, x, level, labels)
    np.testing.assert_allclose(same[0], same[2], atol=1e-5)
    np.testing.assert_allclose(same[0], classes[0], atol=1e-5)  # examples do not mix
    assert float(jnp.abs(classes[0] - classes[1]).max()) > 1e-3
    none = apply(variables, x, level, labels + 1)[2]
    assert float(jnp.abs(none - classes[2]).max()) > 1e-3
    levels = apply(variables, x, jnp.asarray([0.5, 0.501, 1.0]), 0 * labels)
    assert float(jnp.abs(levels[0] - levels[1]).max()) > 1e-3 and float(jnp.abs(levels[0] - levels[2]).max()) > 1e-3


@pytest.mark.nightly
@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3)])
def test_answers_have_the_shape_of_images(size, channels):
    module, told = Denoiser(3), inputs(size, channels)
    answer, _ = jax.eval_shape(lambda: module.init_with_output(KEY, *told))
    assert answer.shape == (3, size, size, channels)


def test_refuses():
    x, level, labels = inputs(6)
    with pytest.raises(ValueError, match="6 x 6"):
        jax.eval_shape(lambda: SMALL.init(KEY, x, level, labels))
    with pytest.raises(ValueError, match="width: 12"):
        jax.eval_shape(lambda: Denoiser(3, width=12).init(KEY, *inputs()))
