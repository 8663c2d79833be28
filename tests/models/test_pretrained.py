"""Published weights: answers against forward passes in NumPy over PyTorch's names and layouts, and every name."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from jaxmia.models import pretrained
from jaxmia.models.face_networks import VGG16, ImageNetResNet, IRNetwork
from jaxmia.models.pretrained import LAYOUTS, names, published, read
from jaxmia.models.stylegan2 import StyleGAN2
from tests.models.compiled import compiled
from tests.models.test_stylegan2 import LATENT, MODULE, random_weights

KEY = jax.random.key(0)
RESNETS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
IR = {50: (3, 4, 14, 3), 152: (3, 8, 36, 3)}


class Torch:
    """Layers as functions of PyTorch's arrays, channels first; they draw the arrays that they read into `state`."""

    def __init__(self):
        self.rng, self.state = np.random.default_rng(0), {}

    def __call__(self, name, *shape, low=-1.0, high=1.0):
        assert name not in self.state
        self.state[name] = self.rng.uniform(low, high, shape).astype(np.float32)
        return self.state[name]

    def convolve(self, name, x, width, window=3, stride=1, bias=False):
        bound = np.sqrt(6 / (x.shape[1] * window**2))  # what a ReLU halves
        kernel = self(f"{name}.weight", width, x.shape[1], window, window, low=-bound, high=bound)
        padding = window // 2
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        windows = sliding_window_view(x, (window, window), (2, 3))[:, :, ::stride, ::stride]
        y = np.einsum("nihwkl,oikl->nohw", windows, kernel)
        return y + self(f"{name}.bias", width, low=-0.3, high=0.3)[:, None, None] if bias else y

    def normalize(self, name, x):
        c = x.shape[1]
        scale, deviation = self(f"{name}.weight", c, low=0.5), np.sqrt(self(f"{name}.running_var", c, low=0.5) + 1e-5)
        shift, mean = (self(f"{name}.{leaf}", c, low=-0.3, high=0.3) for leaf in ("bias", "running_mean"))
        self(f"{name}.num_batches_tracked")
        scale, shift, mean, deviation = (a.reshape(-1, *[1] * (x.ndim - 2)) for a in (scale, shift, mean, deviation))
        return (x - mean) / deviation * scale + shift

    def prelu(self, name, x):
        return np.where(x > 0, x, self(f"{name}.weight", x.shape[1], low=0)[:, None, None] * x)

    def affine(self, name, x, width):
        bound = np.sqrt(3 / x.shape[1])
        return x @ self(f"{name}.weight", width, x.shape[1], low=-bound, high=bound).T + self(f"{name}.bias", width)


def relu(x):
    return np.maximum(x, 0)


def pool(x, window, stride, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=-np.inf)
    return sliding_window_view(x, (window, window), (2, 3))[:, :, ::stride, ::stride].max((-1, -2))


def vgg16(torch, x, width=2):
    layers = "1 1 M 2 2 M 4 4 4 M 8 8 8 M 8 8 8 M".split()
    index = 0
    for layer in layers:
        if layer == "M":
            x, index = pool(x, 2, 2), index + 1
        else:
            x = torch.convolve(f"feature.{index}", x, width * int(layer), bias=True)
            x, index = relu(torch.normalize(f"feature.{index + 1}", x)), index + 3
    return torch.affine("fc_layer", torch.normalize("bn", x.reshape(len(x), -1)), 5)


def resnet(torch, x, depth, width=2):
    x = pool(relu(torch.normalize("bn1", torch.convolve("conv1", x, width, 7, 2))), 3, 2, 1)
    for stage, blocks in enumerate(RESNETS[depth]):
        for block in range(blocks):
            name, planes = f"layer{stage + 1}.{block}", width * 2**stage
            stride = 2 if stage and not block else 1
            if depth == 18:
                y = relu(torch.normalize(f"{name}.bn1", torch.convolve(f"{name}.conv1", x, planes, 3, stride)))
                y = torch.normalize(f"{name}.bn2", torch.convolve(f"{name}.conv2", y, planes))
            else:
                y = relu(torch.normalize(f"{name}.bn1", torch.convolve(f"{name}.conv1", x, planes, 1)))
                y = relu(torch.normalize(f"{name}.bn2", torch.convolve(f"{name}.conv2", y, planes, 3, stride)))
                y = torch.normalize(f"{name}.bn3", torch.convolve(f"{name}.conv3", y, 4 * planes, 1))
            if stride != 1 or x.shape[1] != y.shape[1]:
                x = torch.convolve(f"{name}.downsample.0", x, y.shape[1], 1, stride)
                x = torch.normalize(f"{name}.downsample.1", x)
            x = relu(x + y)
    return torch.affine("fc", x.mean((2, 3)), 5)


def ir(torch, x, depth, backbone="feature.", head="", width=2):
    x = torch.normalize(f"{backbone}input_layer.1", torch.convolve(f"{backbone}input_layer.0", x, width))
    x, index = torch.prelu(f"{backbone}input_layer.2", x), itertools.count()
    for stage, blocks in enumerate(IR[depth]):
        for block in range(blocks):
            name, stride, planes = f"{backbone}body.{next(index)}", 1 if block else 2, width * 2**stage
            y = torch.convolve(f"{name}.res_layer.1", torch.normalize(f"{name}.res_layer.0", x), planes)
            y = torch.convolve(f"{name}.res_layer.3", torch.prelu(f"{name}.res_layer.2", y), planes, 3, stride)
            y = torch.normalize(f"{name}.res_layer.4", y)
            if x.shape[1] == planes:
                x = pool(x, 1, stride)
            else:
                x = torch.convolve(f"{name}.shortcut_layer.0", x, planes, 1, stride)
                x = torch.normalize(f"{name}.shortcut_layer.1", x)
            x = x + y
    x = torch.normalize(f"{head}output_layer.0", x).reshape(len(x), -1)
    x = torch.normalize(f"{head}output_layer.4", torch.affine(f"{head}output_layer.3", x, 12))
    return torch.affine("fc_layer", x, 5)


NETWORKS = {
    "VGG16": (VGG16(5, width=2), "face", vgg16),
    "ResNet-18": (ImageNetResNet(5, 18, width=2), "torchvision", lambda t, x: resnet(t, x, 18)),
    "ResNet-50": (ImageNetResNet(5, 50, width=2), "torchvision", lambda t, x: resnet(t, x, 50)),
    "IR-50": (IRNetwork(5, 50, 2, 12), "face", lambda t, x: ir(t, x, 50)),
    "IR-50 at 112": (IRNetwork(5, 50, 2, 12), "face112", lambda t, x: ir(t, x, 50, head="feature.")),
    "IR-152": (IRNetwork(5, 152, 2, 12), "face", lambda t, x: ir(t, x, 152)),
    "IR-50 of face.evoLVe": (IRNetwork(5, 50, 2, 12), "evolve", lambda t, x: ir(t, x, 50, backbone="")),
}
COMPARED = ("VGG16", "ResNet-18", "ResNet-50", "IR-50")  # the deeper ones compile for long and have no other layers


def shapes(module, size=64):
    return jax.eval_shape(lambda: module.init(KEY, jnp.zeros((1, size, size, 3))))


def made(network, size=64):
    """A state dictionary of random numbers, and the answers to two images."""
    draw = np.random.default_rng(1)
    images = (draw.uniform(size=(2, size, size, 3)) + 2 * draw.normal(size=(2, 1, 1, 3))).astype(np.float32)
    torch = Torch()
    logits = NETWORKS[network][2](torch, images.transpose(0, 3, 1, 2))
    return torch.state, images, logits


@pytest.mark.nightly
@pytest.mark.parametrize("network", COMPARED)
def test_answers_are_those_of_the_state_dictionary(network):
    module, layout, _ = NETWORKS[network]
    state, images, logits = made(network)
    variables = published(shapes(module), state, layout)
    told = compiled(module.apply)(variables, jnp.asarray(images))
    between = np.ptp(logits, 0).max()
    assert between > 0.05 * np.abs(logits).max()  # the images are told apart
    np.testing.assert_allclose(told, logits, atol=1e-3 * between)


@pytest.mark.nightly
@pytest.mark.parametrize("network", NETWORKS)
def test_every_name_is_read_to_its_own_place(network):
    module, layout, _ = NETWORKS[network]
    state, _, _ = made(network, 32 if network in COMPARED else 64)
    variables = shapes(module, 32 if network in COMPARED else 64)
    told = names(variables, layout)
    assert sorted(told) == sorted(name for name in state if not name.endswith("num_batches_tracked"))
    for name, leaf in zip(told, jax.tree.leaves(published(variables, state, layout)), strict=True):
        assert np.array_equal(np.sort(leaf, None), np.sort(state[name], None)), name
        back = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, (0,))
        np.testing.assert_array_equal(np.transpose(leaf, back), state[name], err_msg=name)


def test_torchvision_convolutions_of_vgg16_with_a_new_head():
    state, _, _ = made("VGG16", 32)
    torchvision = {name.replace("feature.", "features."): tensor for name, tensor in state.items()}
    torchvision = {name: tensor for name, tensor in torchvision.items() if name.startswith("features.")}
    torchvision["classifier.0.weight"] = np.zeros((4, 4))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), shapes(VGG16(5, width=2), 32))
    read_in = published(variables, torchvision, "torchvision", keep=("bn.", "fc_layer.", "classifier."))
    np.testing.assert_array_equal(read_in["params"]["fc_layer"]["kernel"], variables["params"]["fc_layer"]["kernel"])
    np.testing.assert_array_equal(read_in["params"]["feature_40"]["bias"], state["feature.40.bias"])
    with pytest.raises(ValueError, match=r"keep: bn\.\w+ has no value"):
        published(shapes(VGG16(5, width=2), 32), torchvision, "torchvision", keep=("bn.", "fc_layer.", "classifier."))


def rosinality(state):
    """The same numbers in the other layout, by a table for 16 pixels."""
    layers = {"b4.conv1": "conv1", "b8.conv0": "convs.0", "b8.conv1": "convs.1", "b16.conv0": "convs.2"}
    layers |= {"b16.conv1": "convs.3", "b4.torgb": "to_rgb1", "b8.torgb": "to_rgbs.0", "b16.torgb": "to_rgbs.1"}
    noises = ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]
    out = {"latent_avg": state["mapping.w_avg"], "input.input": state["synthesis.b4.const"][None]}
    for layer in range(2):
        out |= {f"style.{layer + 1}.{leaf}": state[f"mapping.fc{layer}.{leaf}"] for leaf in ("weight", "bias")}
    for theirs, ours in layers.items():
        tensors = {
            name: state[f"synthesis.{theirs}.{name}"] for name in ("weight", "affine.weight", "affine.bias", "bias")
        }
        out[f"{ours}.conv.weight"] = tensors["weight"][None]
        out[f"{ours}.conv.modulation.weight"] = tensors["affine.weight"]
        out[f"{ours}.conv.modulation.bias"] = tensors["affine.bias"]
        if "torgb" in theirs:
            out[f"{ours}.bias"] = tensors["bias"].reshape(1, 3, 1, 1)
            continue
        out[f"{ours}.activate.bias"] = tensors["bias"]
        out[f"{ours}.noise.weight"] = state[f"synthesis.{theirs}.noise_strength"].reshape(1)
        out[f"noises.noise_{noises.index(theirs)}"] = state[f"synthesis.{theirs}.noise_const"][None, None]
    return out | {"convs.0.conv.blur.kernel": np.ones((4, 4)), "to_rgbs.0.upsample.kernel": np.ones((4, 4))}


def test_both_layouts_of_stylegan2_hold_the_same():
    variables = jax.eval_shape(lambda: MODULE.init(KEY, jnp.zeros((1, LATENT))))
    state = random_weights()
    one = published(variables, {**state, "synthesis.b8.conv0.resample_filter": np.ones((4, 4))}, "nvidia")
    jax.tree.map(np.testing.assert_array_equal, one, published(variables, rosinality(state), "rosinality"))
    np.testing.assert_array_equal(one["params"]["synthesis"]["b4"]["const"][1, 2], state["synthesis.b4.const"][:, 1, 2])


def test_names_of_the_large_stylegan2_are_different_and_complete():
    variables = jax.eval_shape(lambda: StyleGAN2().init(KEY, jnp.zeros((1, 512))))
    told = names(variables, "rosinality")
    assert len(set(told)) == len(told) and not any("synthesis" in name or "mapping" in name for name in told)
    assert {"convs.15.activate.bias", "to_rgbs.7.bias", "noises.noise_16", "style.8.bias", "conv1.noise.weight"} <= set(
        told
    )


def test_all_that_is_wrong_is_told_at_once():
    module, layout, _ = NETWORKS["ResNet-18"]
    state, _, _ = made("ResNet-18", 32)
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    jax.tree.map(
        np.testing.assert_array_equal, *(published(shapes(module), weights, layout) for weights in (state, wrapped))
    )
    del state["layer1.0.bn1.running_var"], state["conv1.weight"]
    state |= {"layer9.weight": np.zeros(3), "fc.weight": state["fc.weight"].T, "fc.bias": state["fc.bias"][:4]}
    with pytest.raises(ValueError) as caught:
        published(shapes(module), state, layout)
    told = str(caught.value)
    assert "2 missing: conv1.weight, layer1.0.bn1.running_var" in told and "1 unexpected: layer9.weight" in told
    assert "2 of another shape: fc.bias is [4] and not [5], fc.weight is [16, 5] and not [5, 16]" in told
    with pytest.raises(ValueError, match="layout: 'keras'; legal is one of " + ", ".join(LAYOUTS)):
        published(shapes(module), state, "keras")


def test_files(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    state = {name: np.ascontiguousarray(tensor) for name, tensor in random_weights().items()}
    save_file(state, tmp_path / "a.safetensors")
    jax.tree.map(np.testing.assert_array_equal, read(tmp_path / "a.safetensors"), state)
    (tmp_path / "b.safetensors").write_bytes(b"\x80\x04}.")
    with pytest.raises(ValueError, match="not a safetensors file"):
        read(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="how to convert a .pt file"):
        read(tmp_path / "absent.pt")


def conversion():
    """What the module's docstring tells its readers to type into PyTorch."""
    lines = [line.strip() for line in pretrained.__doc__.splitlines() if line.startswith("    ")]
    return "\n".join(line for line in lines if "torch." in line)


def test_the_conversion_that_is_shown_runs_no_code_of_the_file():
    asked, saved = [], {}
    tensor = types.SimpleNamespace(contiguous=lambda: np.ones(2, np.float32))

    def load(path, **options):
        asked.append(options)
        return {"state_dict": {"fc.weight": tensor}}

    save = types.SimpleNamespace(save_file=lambda tensors, path: saved.update(tensors))
    exec(conversion(), {"torch": types.SimpleNamespace(load=load), "safetensors": types.SimpleNamespace(torch=save)})
    assert len(asked) == 1 and asked[0]["weights_only"] is True
    np.testing.assert_array_equal(saved["fc.weight"], [1.0, 1.0])


def test_the_conversion_that_is_shown_is_what_is_read(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"fc.weight": torch.arange(6.0).reshape(2, 3).T}}, "a.pt")
    exec(conversion(), {"torch": torch, "safetensors": types.SimpleNamespace(torch=safetensors)})
    np.testing.assert_array_equal(read("a.safetensors")["fc.weight"], np.arange(6.0).reshape(2, 3).T)
