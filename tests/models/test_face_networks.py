"""Published classifiers: sizes, named features, what training does. Their numbers are tested in test_pretrained.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.models import face_networks
from jaxmia.models.face_networks import VGG16, ImageNetResNet, IRNetwork
from tests.models.compiled import compiled, initialize

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (2, 32, 32, 3))


def parameters(module, size):
    variables = jax.eval_shape(lambda: module.init(KEY, jnp.zeros((1, size, size, 3))))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(("depth", "published"), [(18, 11_689_512), (50, 25_557_032), (152, 60_192_808)])
def test_published_number_of_parameters_of_resnets(depth, published):
    assert parameters(ImageNetResNet(1000, depth), 224) == published


def test_published_number_of_parameters_of_vgg16():
    # All of torchvision's VGG16-BN less its three affine layers, and the head for faces.
    convolutions = 138_365_992 - (25_088 + 1) * 4096 - (4096 + 1) * 4096 - (4096 + 1) * 1000
    assert parameters(VGG16(1000), 64) == convolutions + 2 * 2048 + (2048 + 1) * 1000


@pytest.mark.nightly
@pytest.mark.parametrize(("depth", "blocks"), [(50, (3, 4, 14, 3)), (152, (3, 8, 36, 3))])
@pytest.mark.parametrize(("size", "side"), [(64, 4), (112, 7)])
def test_number_of_parameters_of_ir_networks(depth, blocks, size, side):
    counted, inputs = 27 * 64 + 3 * 64, 64
    for width, repeats in zip((64, 128, 256, 512), blocks):
        for _ in range(repeats):
            counted += 2 * inputs + 9 * inputs * width + width + 9 * width * width + 2 * width
            counted += (inputs + 2) * width if inputs != width else 0
            inputs = width
    counted += 2 * 512 + (512 * side**2 + 1) * 512 + 2 * 512 + 513 * 1000
    assert parameters(IRNetwork(1000, depth), size) == counted


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("network", "sides"), [(VGG16, (16, 8, 4, 2, 1)), (ImageNetResNet, (8, 4, 2, 1)), (IRNetwork, (16, 8, 4, 2))]
)
def test_features_gradients_and_training(network, sides, monkeypatch):
    for table in (
        face_networks._RESNET_BLOCKS,
        face_networks._IR_BLOCKS,
    ):  # of the published depths all compile for long
        monkeypatch.setitem(table, 4, (1, 1, 1, 1))
    module = network(5, width=2) if network is VGG16 else network(5, 4, width=2)
    variables = initialize(module, IMAGES)

    def loss(x, variables):  # no constants: in some compilations XLA folded them to nan
        logits, sown = module.apply(variables, x, mutable=["features"])
        return jnp.sum(jnp.sin(logits)), (logits, sown["features"])

    slope, (logits, features) = compiled(jax.grad(loss, has_aux=True))(IMAGES, variables)
    assert logits.shape == (2, 5)
    assert bool(jnp.all(jnp.isfinite(slope))) and float(jnp.abs(slope).max((1, 2, 3)).min()) > 0
    assert [features[f"block{i + 1}"][0].shape[1] for i in range(len(sides))] == list(sides)
    head = variables["params"]["fc" if network is ImageNetResNet else "fc_layer"]
    np.testing.assert_allclose(features["penultimate"][0] @ head["kernel"] + head["bias"], logits, atol=1e-4)

    def forward(key, variables):
        return module.apply(variables, IMAGES, True, rngs={"dropout": key}, mutable=["batch_stats"])

    train = compiled(forward)
    (one, changed), (two, _) = train(jax.random.key(1), variables), train(jax.random.key(2), variables)
    assert np.allclose(one, two) != (network is IRNetwork)  # it alone drops units
    pairs = zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"]), strict=True)
    assert all(not np.array_equal(a, b) for a, b in pairs)


def test_what_is_refused():
    for module, size, message in (
        (VGG16(5), 16, "16 x 16 pixels"),
        (ImageNetResNet(5, 34), 64, "depth: 34; legal is one of 18, 50, 152"),
        (IRNetwork(5, 18), 64, "depth: 18; legal is one of 50, 152"),
    ):
        with pytest.raises(ValueError, match=message):
            parameters(module, size)
