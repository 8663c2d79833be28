"""Generator, critic and inversion decoder: published sizes, ranges, initial weights, second derivatives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models import DCGenerator, InversionDecoder, MapDecoder, WGANCritic
from tests.models.compiled import compiled, initialize


def _parameters(module, shape):
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.nightly
@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3)])
def test_generator_makes_images(size, channels):
    module = DCGenerator(size, channels, width=4)
    z = jax.random.normal(jax.random.key(1), (5, 10))
    variables = initialize(module, z)
    x = compiled(module.apply)(variables, z)
    assert x.shape == (5, size, size, channels)
    assert float(x.min()) > 0 and float(x.max()) < 1
    _, updated = compiled(lambda v: module.apply(v, z, train=True, mutable=["batch_stats"]))(variables)
    pairs = zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updated["batch_stats"]), strict=True)
    assert all(not np.allclose(a, b) for a, b in pairs)
    # Every latent number reaches the image.
    slopes = compiled(jax.grad(lambda z: module.apply(variables, z).sum()))(z)
    assert bool(jnp.all(jnp.isfinite(slopes))) and float(jnp.abs(slopes).min()) > 0


def test_published_numbers_of_parameters():
    normalized = lambda n: 2 * n  # noqa: E731
    simple64 = (
        100 * 8192
        + normalized(8192)
        + 25 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
        + normalized(256 + 128 + 64)
        + 3
    )
    assert _parameters(DCGenerator(), (1, 100)) == simple64
    mnist = 100 * 4096 + normalized(4096) + 25 * (256 * 128 + 128 * 64 + 64) + normalized(128 + 64) + 1
    assert _parameters(DCGenerator(32, 1), (1, 100)) == mnist
    critic = 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + (64 + 128 + 256 + 512) + normalized(896) + 16 * 512 + 1
    assert _parameters(WGANCritic(), (1, 64, 64, 3)) == critic
    critic32 = 25 * (64 + 64 * 128 + 128 * 256) + (64 + 128 + 256) + normalized(384) + 16 * 256 + 1
    assert _parameters(WGANCritic(), (1, 32, 32, 1)) == critic32
    decoder = 10 * 16 * 512 + 16 * (512 * 256 + 256 * 128 + 128) + normalized(512 + 256 + 128) + 1
    assert _parameters(InversionDecoder((32, 32, 1)), (1, 10)) == decoder


def test_kernels_start_as_in_dcgan():
    params = initialize(DCGenerator(32, 1, width=16), jnp.zeros((1, 50)))["params"]
    for name, group in params.items():
        if "kernel" in group:
            np.testing.assert_allclose(jnp.std(group["kernel"]), 0.02, rtol=0.1, err_msg=name)
        else:
            np.testing.assert_allclose(jnp.std(group["scale"]), 0.02, rtol=0.4, err_msg=name)
            np.testing.assert_allclose(jnp.mean(group["scale"]), 1.0, atol=0.01, err_msg=name)


@pytest.mark.nightly
@pytest.mark.parametrize("size", [32, 64])
def test_critic_scores_each_image_alone(size):
    module = WGANCritic(width=2)
    x = jax.random.uniform(jax.random.key(1), (3, size, size, 1))
    variables = initialize(module, x)
    scores = compiled(module.apply)(variables, x)
    assert scores.shape == (3,)
    alone = compiled(jax.vmap(lambda image: module.apply(variables, image[None])[0]))(x)
    np.testing.assert_allclose(scores, alone, atol=1e-5)


@pytest.mark.nightly
def test_gradient_penalty_is_differentiable_twice():
    """The derivative of the penalty along a random direction of the weights, against a central difference."""
    with jax.enable_x64(True):
        module = WGANCritic(width=2)
        x = jax.random.uniform(jax.random.key(1), (3, 32, 32, 1), jnp.float64)
        params = jax.tree.map(lambda leaf: 5.0 * leaf.astype(jnp.float64), initialize(module, x)["params"])

        def penalty(params):
            slopes = jax.grad(lambda x: module.apply({"params": params}, x).sum())(x)
            return jnp.sum((jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2, 3))) - 1.0) ** 2)

        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(2), len(leaves))
        direction = jax.tree.unflatten(
            structure, [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
        )
        gradient = compiled(jax.grad(penalty))(params)
        slope = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
        value = compiled(penalty)
        ahead, behind = (value(jax.tree.map(lambda a, b: a + h * b, params, direction)) for h in (1e-6, -1e-6))  # noqa: B023
        assert float(jnp.abs(slope)) > 1e-3
        np.testing.assert_allclose((ahead - behind) / 2e-6, slope, rtol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("shape", [(56, 46, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (6, 5, 2)])
def test_decoder_makes_images_of_any_shape(shape):
    module = InversionDecoder(shape, width=2)
    scores = jax.nn.softmax(jax.random.normal(jax.random.key(1), (3, 7)))
    variables = initialize(module, scores)
    x = compiled(module.apply)(variables, scores)
    assert x.shape == (3, *shape)
    assert float(x.min()) > 0 and float(x.max()) < 1
    slopes = compiled(jax.grad(lambda s: module.apply(variables, s).sum()))(scores)
    assert float(jnp.abs(slopes).min()) > 0


@pytest.mark.nightly
@pytest.mark.parametrize(("before", "after"), [((8, 8, 3), (4, 4, 6)), ((7, 5, 1), (3, 2, 4)), ((4, 4, 2), (4, 4, 2))])
def test_map_decoder_undoes_a_block_of_any_shape(before, after):
    module, maps = MapDecoder(before, width=4), jax.random.normal(jax.random.key(1), (2, *after))
    variables = initialize(module, maps)
    x = compiled(module.apply)(variables, maps)
    assert x.shape == (2, *before) and float(x.min()) < 0
    slopes = compiled(jax.grad(lambda maps: jnp.sum(module.apply(variables, maps) ** 2)))(maps)
    assert float(jnp.abs(slopes).min()) > 0


@pytest.mark.nightly
def test_decoder_reaches_every_pixel():
    """No row or column of a cropped image is cut off from the scores."""
    module = InversionDecoder((56, 46, 1), width=4)
    scores = jax.random.normal(jax.random.key(1), (16, 7))
    _, updated = compiled(lambda: module.init_with_output(jax.random.key(0), scores, train=True))()
    spread = jnp.std(compiled(module.apply)(updated, scores), axis=0)
    assert float(spread.min()) > 0


def test_illegal_sizes_are_named():
    with pytest.raises(ValueError, match="size=48"):
        DCGenerator(48).init(jax.random.key(0), jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match="56 x 46"):
        WGANCritic().init(jax.random.key(0), jnp.zeros((1, 56, 46, 1)))
