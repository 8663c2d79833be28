"""The same networks in Flax and in PyTorch, with the same weights.

Weights are random, since only speed and agreement are asked. Flax counts rows, columns, channels; PyTorch channels,
rows, columns.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxmia.models import MLP, DCGenerator
from jaxmia.models.convolution import Conv
from jaxmia.models.pooling import max_pool

__all__ = ["CLASSES", "SHAPES", "ConvNet", "generator", "network", "to_numpy", "to_torch"]

CLASSES = 10
SHAPES = {"mlp": (28, 28, 1), "convnet": (28, 28, 1), "small_vgg": (64, 64, 3)}


class ConvNet(nn.Module):
    """Convolutions with ReLU and 2x2 max-pool each, one hidden layer.

    Attributes:
      window: of the convolutions.
      widths: their channels.
      hidden: units of the hidden layer.
      pool: the max-pool.
    """

    window: int
    widths: tuple[int, ...]
    hidden: int
    pool: Any = max_pool

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits."""
        for width in self.widths:
            x = self.pool(nn.relu(Conv(width, (self.window, self.window))(x)))
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(x)


MODULES = {
    "mlp": MLP(CLASSES, width=300),
    "convnet": ConvNet(5, (16, 32), 128),
    "small_vgg": ConvNet(3, (32, 64, 128, 128), 256),
}


def network(name: str) -> tuple[Any, Any, torch.nn.Module]:
    """A classifier: Flax module, its variables, and its twin of frozen weights."""
    module, shape = MODULES[name], SHAPES[name]
    variables = module.init(jax.random.key(1), jnp.zeros((1, *shape)))
    if name == "mlp":
        layers = [torch.nn.Flatten(), torch.nn.Linear(784, 300), torch.nn.Sigmoid(), torch.nn.Linear(300, CLASSES)]
        return module, variables, _frozen(torch.nn.Sequential(*layers), variables["params"], {})
    layers, channels, side = [], shape[-1], shape[0]
    for width in module.widths:
        layers += [torch.nn.Conv2d(channels, width, module.window, padding="same"), torch.nn.ReLU()]
        layers += [torch.nn.MaxPool2d(2)]
        channels, side = width, side // 2
    layers += [torch.nn.Flatten(), torch.nn.Linear(channels * side * side, module.hidden), torch.nn.ReLU()]
    twin = torch.nn.Sequential(*layers, torch.nn.Linear(module.hidden, CLASSES))
    return module, variables, _frozen(twin, variables["params"], {"in": (side, side, channels)})


def generator(latent: int, width: int) -> tuple[Any, Any, torch.nn.Module]:
    """The 64x64 generator of GMI: Flax module, its variables, and its twin of frozen weights."""
    module = DCGenerator(size=64, width=width)
    variables = module.init(jax.random.key(2), jnp.zeros((1, latent)))
    first = 8 * width
    layers = [torch.nn.Linear(latent, 16 * first, bias=False), torch.nn.BatchNorm1d(16 * first), torch.nn.ReLU()]
    layers += [torch.nn.Unflatten(1, (first, 4, 4))]
    for a in (first, first // 2, first // 4):
        layers += [torch.nn.ConvTranspose2d(a, a // 2, 5, 2, 2, 1, bias=False)]
        layers += [torch.nn.BatchNorm2d(a // 2), torch.nn.ReLU()]
    twin = torch.nn.Sequential(*layers, torch.nn.ConvTranspose2d(width, 3, 5, 2, 2, 1), torch.nn.Sigmoid())
    return module, variables, _frozen(twin, variables["params"], {"out": (4, 4, first)})


def _frozen(twin: torch.nn.Module, params: Any, map_shape: dict[str, tuple[int, ...]]) -> torch.nn.Module:
    """Give a twin the weights of a Flax network; `map_shape` is that of the map the first Linear reads or makes."""
    counted: dict[str, int] = {}
    for layer in twin:  # type: ignore[attr-defined]
        name = {"Linear": "Dense", "Conv2d": "Conv", "ConvTranspose2d": "ConvTranspose"}.get(type(layer).__name__)
        name = name or ("BatchNorm" if "BatchNorm" in type(layer).__name__ else None)
        if name is None:
            continue
        number = counted[name] = counted.get(name, -1) + 1
        given = {key: np.asarray(value) for key, value in params[f"{name}_{number}"].items()}
        kernel = given.get("kernel", given.get("scale"))
        if name == "Conv":
            kernel = kernel.transpose(3, 2, 0, 1)
        elif name == "ConvTranspose":
            kernel = kernel[::-1, ::-1].transpose(2, 3, 0, 1)  # PyTorch's is that of the convolution it transposes
        elif name == "Dense":
            if "in" in map_shape and number == 0:
                kernel = kernel.reshape(*map_shape["in"], -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            if "out" in map_shape:
                kernel = _channels_first(kernel, map_shape["out"])
            kernel = kernel.T
        elif number == 0 and "out" in map_shape:
            kernel, given["bias"] = (_channels_first(array, map_shape["out"]) for array in (kernel, given["bias"]))
        layer.weight.data = torch.tensor(np.ascontiguousarray(kernel))
        if "bias" in given:
            layer.bias.data = torch.tensor(np.ascontiguousarray(given["bias"]))
    return twin.eval().requires_grad_(False)


def _channels_first(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The last axis, a flattened map, with its channels first."""
    return np.moveaxis(array.reshape(*array.shape[:-1], *shape), -1, -3).reshape(array.shape)


def to_torch(images: Any) -> torch.Tensor:
    """`[n, h, w, c]` to `[n, c, h, w]`."""
    return torch.tensor(np.moveaxis(np.asarray(images), -1, 1).copy())


def to_numpy(images: torch.Tensor) -> np.ndarray:
    """`[n, c, h, w]` to `[n, h, w, c]`."""
    return np.moveaxis(images.detach().numpy(), 1, -1)
