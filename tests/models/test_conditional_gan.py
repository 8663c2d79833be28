"""The conditional GAN: sizes, ranges, what the class changes, and spectral norms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models.conditional_gan import ClassifyingDiscriminator, ConditionalGenerator, ProjectionDiscriminator
from jaxmia.models.inversion_gan import InversionDiscriminator, MinibatchDiscrimination
from jaxmia.oracle import sown_features
from tests.models.compiled import compiled, initialize

KEY = jax.random.key(0)


def parameters(module, *shapes):
    variables = jax.eval_shape(lambda: module.init(KEY, *shapes))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def test_published_numbers_of_parameters():
    z, labels, x = jnp.zeros((1, 128)), jnp.zeros(1, jnp.int32), jnp.zeros((1, 64, 64, 3))
    # Per block from a to b channels: two conditional norms, two 3x3 convolutions, a 1x1 one for the shortcut.
    up = sum(
        2 * 10 * (a + b) + 9 * (a + b) * b + 2 * b + a * b + b
        for a, b in ((1024, 512), (512, 256), (256, 128), (128, 64))
    )
    assert parameters(ConditionalGenerator(10), z, labels) == 129 * 16384 + up + 2 * 64 + 65 * 3
    down = sum(9 * a * a + a + 9 * a * b + b + a * b + b for a, b in ((64, 128), (128, 256), (256, 512), (512, 1024)))
    down += 9 * 3 * 64 + 64 + 9 * 64 * 64 + 64 + 3 * 64 + 64
    assert parameters(ProjectionDiscriminator(10), x, labels) == down + 1025 + 10 * 1024
    assert parameters(ClassifyingDiscriminator(10), x) == down + 11 * 1025
    convolutions = 25 * (3 * 64 + 64 * 128 + 128 * 256) + 9 * 256 * 256 + 3 * (64 + 128 + 256 + 256)
    assert parameters(InversionDiscriminator(10), x) == convolutions + 4096 * 64 * 50 + 4160 * 10 + 10


@pytest.mark.nightly
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3)])
def test_generator_makes_other_images_of_other_classes(size, channels):
    module = ConditionalGenerator(3, size, channels, width=4)
    z = jnp.repeat(jax.random.normal(KEY, (1, 5)), 3, 0)
    variables = initialize(module, z, jnp.arange(3))
    x = compiled(module.apply)(variables, z, jnp.arange(3))
    assert x.shape == (3, size, size, channels) and float(x.min()) > 0 and float(x.max()) < 1
    np.testing.assert_allclose(x[0], x[1], atol=1e-6)  # scales start at one for all classes
    params = jax.tree.map(lambda leaf: leaf, variables["params"])
    name = next(name for name in params["_Up_0"] if "Conditional" in name)
    params["_Up_0"][name]["scale"] = params["_Up_0"][name]["scale"].at[1].set(2.0)
    x = compiled(module.apply)({**variables, "params": params}, z, jnp.arange(3))
    np.testing.assert_allclose(x[0], x[2], atol=1e-6)
    assert float(jnp.abs(x[1] - x[0]).max()) > 1e-3


def test_generator_normalizes_its_batch_and_keeps_the_statistics():
    module = ConditionalGenerator(3, 8, 1, width=4)
    z, labels = 5 * jax.random.normal(KEY, (6, 5)), jnp.arange(6) % 3
    variables = initialize(module, z, labels)
    _, changed = compiled(lambda v: module.apply(v, z, labels, train=True, mutable=["batch_stats"]))(variables)
    pairs = zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"]), strict=True)
    assert all(not np.allclose(a, b) for a, b in pairs)


@pytest.mark.nightly
def test_discriminator_projects_the_class_and_its_kernels_have_spectral_norm_one():
    module = ProjectionDiscriminator(3, width=4)
    x = jax.random.uniform(KEY, (3, 8, 8, 1))
    x, labels = x.at[1:].set(x[0]), jnp.arange(3)
    variables = initialize(module, x, labels)
    apply = compiled(lambda v: module.apply(v, x, labels, train=True, mutable=["batch_stats"]))
    for _ in range(40):  # power iterations
        scores, changed = apply(variables)
        variables = {**variables, **changed}
    assert scores.shape == (3,) and float(np.ptp(scores)) > 1e-3
    sigmas = [
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables["batch_stats"]) if "sigma" in str(path)
    ]
    kernels = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim > 1]
    norms = sorted(float(np.linalg.norm(np.asarray(k).reshape(-1, k.shape[-1]), 2)) for k in kernels)
    assert len(sigmas) == len(norms) == 8
    np.testing.assert_allclose(sorted(float(s) for s in sigmas), norms, rtol=0.02)
    # Doubling a kernel changes nothing.
    params = jax.tree.map(lambda leaf: 2 * leaf if leaf.ndim > 1 else leaf, variables["params"])
    again, _ = apply({"params": params, "batch_stats": variables["batch_stats"]})
    np.testing.assert_allclose(again, scores, rtol=0.02, atol=1e-4)


@pytest.mark.nightly
def test_a_classifying_discriminator_tells_classes_and_then_realness():
    module = ClassifyingDiscriminator(3, width=4)
    x = jax.random.uniform(KEY, (2, 8, 8, 1))
    variables = initialize(module, x)
    logits, changed = compiled(lambda v: module.apply(v, x, train=True, mutable=["batch_stats"]))(variables)
    assert logits.shape == (2, 4)
    pairs = zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"]), strict=True)
    assert any(not np.allclose(a, b) for a, b in pairs)  # spectral norms
    params = jax.tree.map(lambda leaf: leaf, variables["params"])
    last = next(name for name in params if params[name].get("bias", np.zeros(0)).shape == (1,))
    params[last]["bias"] = params[last]["bias"] + 5.0
    moved = module.apply({**variables, "params": params}, x) - module.apply(variables, x)
    np.testing.assert_allclose(moved, np.array([[0, 0, 0, 5]] * 2), atol=1e-5)


def test_sizes_that_are_refused():
    with pytest.raises(ValueError, match="size: 12"):
        jax.eval_shape(lambda: ConditionalGenerator(2, 12).init(KEY, jnp.zeros((1, 4)), jnp.zeros(1, jnp.int32)))
    with pytest.raises(ValueError, match="8 x 16"):
        jax.eval_shape(lambda: ProjectionDiscriminator(2).init(KEY, jnp.zeros((1, 8, 16, 1)), jnp.zeros(1, jnp.int32)))


def test_minibatch_discrimination_against_numpy():
    module = MinibatchDiscrimination(3, 5)
    f = jax.random.normal(KEY, (4, 6))
    variables = initialize(module, f)
    rows = np.asarray(f @ variables["params"]["Dense_0"]["kernel"]).reshape(4, 3, 5)
    wanted = np.zeros((4, 3))
    for i in range(4):
        for j in set(range(4)) - {i}:
            wanted[i] += np.exp(-np.abs(rows[i] - rows[j]).sum(-1))
    told = module.apply(variables, f)
    np.testing.assert_allclose(told[:, 6:], wanted, rtol=1e-4)
    np.testing.assert_array_equal(told[:, :6], f)


@pytest.mark.nightly
def test_inversion_discriminator_exposes_what_the_generator_matches():
    module = InversionDiscriminator(5, width=4, kernels=3)
    x = jax.random.uniform(KEY, (2, 16, 16, 1))
    logits, sown = module.apply(initialize(module, x), x, mutable=["features"])
    assert logits.shape == (2, 5) and sown_features(sown)["penultimate"].shape == (2, 16)
