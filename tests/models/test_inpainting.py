"""The inpainting generator: shapes, that the hole is filled from around and by the latent, and sizes that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models.inpainting import InpaintingGenerator

KEY, NETWORK = jax.random.key(0), InpaintingGenerator(width=2)
X = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 12, 8, 3)), jnp.float32)
MASK, Z = jnp.zeros((2, 12, 8, 1)).at[:, 4:8, 2:6].set(1.0), jax.random.normal(KEY, (2, 5))


def test_what_is_painted_depends_on_the_image_the_mask_and_the_latent():
    variables = jax.jit(lambda: NETWORK.init(KEY, X, MASK, Z))()
    paint = jax.jit(lambda *arguments: NETWORK.apply(variables, *arguments))
    whole = paint(X, MASK, Z)
    assert whole.shape == X.shape and whole.min() > 0 and whole.max() < 1
    for other in ((X.at[:, 0, 0].add(1.0), MASK, Z), (X, jnp.roll(MASK, 3, 1), Z), (X, MASK, -Z)):
        assert np.abs(paint(*other) - whole)[:, 4:8, 2:6].max() > 1e-6  # the corner is seen from the middle


def test_training_changes_its_statistics_alone():
    variables = jax.jit(lambda: NETWORK.init(KEY, X, MASK, Z))()
    changed = jax.jit(lambda: NETWORK.apply(variables, X, MASK, Z, train=True, mutable=["batch_stats"])[1])()
    assert set(changed) == {"batch_stats"}
    assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_refuses_sizes_that_are_not_multiples_of_four():
    with pytest.raises(ValueError, match="10 x 8 pixels"):
        NETWORK.init(KEY, X[:, :10], MASK[:, :10], Z)
