"""The classifiers of published attacks on faces, layer by layer as their weights were published.

Submodules are named as in PyTorch's state dictionaries, with "_" before a number for ".", so that
`jaxmia.models.pretrained` needs no table for them. All map `x` in [0, 1], `[n, h, w, 3]`, to logits `[n, classes]`; the
targets at 64 pixels read such images as they are. Weights that were trained on centered images, as the backbones of
face.evoLVe and the targets of PPA, go into `CenteredInput(module)`. Each sows "block1", ... and "penultimate".
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxmia.models.convolution import Conv
from jaxmia.models.features import expose
from jaxmia.models.pooling import max_pool

__all__ = ["IRNetwork", "ImageNetResNet", "VGG16"]

_IR_BLOCKS = {50: (3, 4, 14, 3), 152: (3, 8, 36, 3)}
_RESNET_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 152: (3, 8, 36, 3)}


class VGG16(nn.Module):
    """The target "VGG16": convolutions of torchvision's VGG16-BN, flattened, BatchNorm, an affine layer.

    The published head keeps that BatchNorm's shift at zero; if trained here, it moves.

    Attributes:
      classes: number of classes.
      width: channels of the first stage; the next have twice, 4, 8 and 8 times as many.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    width: int = 64
    head: Callable[..., nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits; height and width are 32 or more."""
        if min(x.shape[1:3]) < 32:
            raise ValueError(f"x: {x.shape[1]} x {x.shape[2]} pixels; five halvings need 32 or more")
        index = 0
        for stage, (widening, convolutions) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), start=1):
            for _ in range(convolutions):
                x = Conv(self.width * widening, (3, 3), padding=1, name=f"feature_{index}")(x)
                x = nn.relu(_batch_norm(train, f"feature_{index + 1}")(x))
                index += 3
            x = max_pool(x)
            index += 1
            expose(self, f"block{stage}", x)
        x = _batch_norm(train, "bn")(_flatten(x))
        expose(self, "penultimate", x)
        return self.head(self.classes, name="fc_layer")(x)


class ImageNetResNet(nn.Module):
    """Torchvision's residual network: a 7x7 stem and a max-pool, then four stages (He et al. 2016).

    In the deeper ones the 3x3 convolution of a block has the stride. The mean over positions is "penultimate".

    Attributes:
      classes: number of classes.
      depth: 18, 50 or 152.
      width: channels of the first stage; doubles with every stage.
      skip: for each stage, the weight of a block's input in its output; 1 when not given. Parameters are the same for all.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    depth: int = 18
    width: int = 64
    skip: tuple[float | Array, ...] | None = None
    head: Callable[..., nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        x = _convolution(self.width, 7, 2, "conv1")(x)
        x = nn.relu(_batch_norm(train, "bn1")(x))
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)
        skip = (1.0,) * 4 if self.skip is None else self.skip
        if len(skip) != 4:
            raise ValueError(f"skip: {skip}; legal is one number for each of the 4 stages")
        for stage, blocks in enumerate(_blocks(_RESNET_BLOCKS, self.depth), start=1):
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                width = self.width * 2 ** (stage - 1)
                x = _ResidualBlock(width, stride, self.depth > 18, skip[stage - 1], name=f"layer{stage}_{block}")(
                    x, train
                )
            expose(self, f"block{stage}", x)
        x = jnp.mean(x, axis=(1, 2))
        expose(self, "penultimate", x)
        return self.head(self.classes, name="fc")(x)


class _ResidualBlock(nn.Module):
    width: int
    stride: int
    bottleneck: bool
    skip: float | Array

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layers = [(self.width, 3, self.stride), (self.width, 3, 1)]
        if self.bottleneck:
            layers = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        y = x
        for i, (width, window, stride) in enumerate(layers, start=1):
            y = _batch_norm(train, f"bn{i}")(_convolution(width, window, stride, f"conv{i}")(y))
            y = nn.relu(y) if i < len(layers) else y
        if x.shape != y.shape:
            x = _convolution(y.shape[-1], 1, self.stride, "downsample_0")(x)
            x = _batch_norm(train, "downsample_1")(x)
        return nn.relu(y + self.skip * x)


class IRNetwork(nn.Module):
    """The improved residual networks of face.evoLVe with a class layer: "FaceNet64" is IR-50 and "IR152" is IR-152 at
    64 pixels, the evaluator "FaceNet" is IR-50 at 112 pixels.

    The output of the embedding's last BatchNorm is "penultimate".

    Attributes:
      classes: number of classes.
      depth: 50 or 152.
      width: channels of the first stage; doubles with every stage.
      embedding: numbers in the penultimate layer.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    depth: int = 50
    width: int = 64
    embedding: int = 512
    head: Callable[..., nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        x = _convolution(self.width, 3, 1, "input_layer_0")(x)
        x = _PReLU(name="input_layer_2")(_batch_norm(train, "input_layer_1")(x))
        index = 0
        for stage, blocks in enumerate(_blocks(_IR_BLOCKS, self.depth), start=1):
            for block in range(blocks):
                width = self.width * 2 ** (stage - 1)
                x = _ImprovedBlock(width, 2 if block == 0 else 1, name=f"body_{index}")(x, train)
                index += 1
            expose(self, f"block{stage}", x)
        x = _batch_norm(train, "output_layer_0")(x)
        x = _flatten(nn.Dropout(0.5, deterministic=not train)(x))
        x = _batch_norm(train, "output_layer_4")(nn.Dense(self.embedding, name="output_layer_3")(x))
        expose(self, "penultimate", x)
        return self.head(self.classes, name="fc_layer")(x)


class _ImprovedBlock(nn.Module):
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = _batch_norm(train, "res_layer_0")(x)
        y = _PReLU(name="res_layer_2")(_convolution(self.width, 3, 1, "res_layer_1")(y))
        y = _batch_norm(train, "res_layer_4")(_convolution(self.width, 3, self.stride, "res_layer_3")(y))
        if x.shape[-1] == self.width:
            return y + x[:, :: self.stride, :: self.stride]
        x = _convolution(self.width, 1, self.stride, "shortcut_layer_0")(x)
        return y + _batch_norm(train, "shortcut_layer_1")(x)


class _PReLU(nn.Module):
    """Leaky ReLU with a learned slope for each channel."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        slope = self.param("negative_slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x >= 0, x, slope * x)


def _blocks(table: dict[int, tuple[int, ...]], depth: int) -> tuple[int, ...]:
    if depth not in table:
        raise ValueError(f"depth: {depth}; legal is one of {', '.join(map(str, table))}")
    return table[depth]


def _flatten(x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
    # Channels first, the order in which the published affine layers count.
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def _convolution(width: int, window: int, stride: int, name: str) -> nn.Conv:
    init = nn.initializers.he_normal()
    padding = window // 2  # not "SAME", which pads a strided convolution on one side alone
    return Conv(
        width, (window, window), strides=stride, padding=padding, use_bias=False, kernel_init=init, name=name
    )  # fmt: skip


def _batch_norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)
