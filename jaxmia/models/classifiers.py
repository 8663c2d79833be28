"""Image and record classifiers: targets, surrogates and one evaluator built unlike them.

Every classifier maps `x` in [0, 1], `[n, h, w, c]`, to logits `[n, classes]`, and sows its hidden layers into the
"features" collection: "penultimate" is the input of the last affine layer, "block1", "block2", ... are
the layers before it, in order. Modules with BatchNorm keep a "batch_stats" collection, which `train=True` updates.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jaxmia.models.convolution import Conv
from jaxmia.models.features import expose
from jaxmia.models.pooling import max_pool

__all__ = ["DenoisingAutoencoderClassifier", "EvaluatorCNN", "MLP", "ResNet", "SoftmaxRegression", "VGG"]


def _flatten(x: Array) -> Float[Array, "n d"]:
    return x.reshape(x.shape[0], -1)


class SoftmaxRegression(nn.Module):
    """Multinomial logistic regression from zero weights; its "penultimate" feature is the flattened input.

    Attributes:
      classes: number of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        x = _flatten(x)
        expose(self, "penultimate", x)
        # From zero, gradient descent keeps every weight a combination of training images; random ones would stay in it.
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros_init())(x)


class MLP(nn.Module):
    """Sigmoid multi-layer perceptron; the defaults are the network of Fredrikson et al. 2015, section 5.1.

    Also reads records, `[n, d]`.

    Attributes:
      classes: number of classes.
      width: units in each hidden layer.
      depth: number of hidden layers, at least 1.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    width: int = 3000
    depth: int = 1
    head: Callable[[int], nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: an MLP has at least 1 hidden layer")
        x = _flatten(x)
        for layer in range(1, self.depth + 1):
            x = nn.sigmoid(nn.Dense(self.width)(x))
            expose(self, "penultimate" if layer == self.depth else f"block{layer}", x)
        return self.head(self.classes)(x)


class DenoisingAutoencoderClassifier(nn.Module):
    """Stacked denoising autoencoder with a softmax layer on top (Fredrikson et al. 2015, "DAE").

    Encoder and decoder share their kernels (tied weights, Vincent et al. 2010), so the decoder stays the inverse of
    an encoder that was fine-tuned afterwards. Each layer is pre-trained on `denoising_loss`, lowest first;
    the whole is then trained as a classifier. Process-DAE needs `encode`, `decode` and `classify` alone:
    `module.apply(variables, x, method="encode")`.

    Attributes:
      classes: number of classes.
      image_shape: (height, width, channels) of the images, needed by `decode`.
      hidden: units of the hidden layers, from the image upwards.
    """

    classes: int
    image_shape: tuple[int, int, int]
    hidden: tuple[int, ...] = (1000, 300)

    def setup(self):
        sizes = (math.prod(self.image_shape), *self.hidden)
        # Four times Glorot's bound: the width at which sigmoid units start in their linear range.
        uniform = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
        zeros = nn.initializers.zeros_init()
        layers = range(len(self.hidden))
        self.kernels = [self.param(f"kernel{i + 1}", uniform, sizes[i : i + 2]) for i in layers]
        self.hidden_biases = [self.param(f"hidden_bias{i + 1}", zeros, sizes[i + 1 : i + 2]) for i in layers]
        self.visible_biases = [self.param(f"visible_bias{i + 1}", zeros, sizes[i : i + 1]) for i in layers]
        self.softmax = nn.Dense(self.classes)

    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        h = _flatten(x)
        for layer in range(1, len(self.hidden)):
            h = self._up(h, layer)
            expose(self, f"block{layer}", h)
        h = self._up(h, len(self.hidden))
        expose(self, "penultimate", h)
        return self.classify(h)

    def encode(self, x: Float[Array, "n h w c"]) -> Float[Array, "n latent"]:
        """Returns the activations of the last hidden layer, in (0, 1)."""
        h = _flatten(x)
        for layer in range(1, len(self.hidden) + 1):
            h = self._up(h, layer)
        return h

    def decode(self, latent: Float[Array, "n latent"]) -> Float[Array, "n h w c"]:
        """Returns images in (0, 1) from activations of the last hidden layer."""
        for layer in range(len(self.hidden), 0, -1):
            latent = nn.sigmoid(self._down(latent, layer))
        return latent.reshape(-1, *self.image_shape)

    def classify(self, latent: Float[Array, "n latent"]) -> Float[Array, "n classes"]:
        """Returns logits from activations of the last hidden layer."""
        return self.softmax(latent)

    def denoising_loss(
        self, x: Float[Array, "n h w c"], key: Key[Array, ""], layer: int, corruption: float = 0.3
    ) -> Float[Array, " n"]:
        """Returns the pre-training loss of one layer for each image, in nats.

        The layer sees its input with some units set to zero and has to restore all of them (Vincent et al. 2010):
        the cross-entropy, summed over units, between input and reconstruction. Layers below get no gradient.

        Args:
          x: clean images.
          key: draws the units to erase.
          layer: 1 for the lowest layer.
          corruption: probability of a unit to be erased.
        """
        clean = _flatten(x)
        for below in range(1, layer):
            clean = self._up(clean, below)
        clean = lax.stop_gradient(clean)
        kept = jax.random.bernoulli(key, 1.0 - corruption, clean.shape)
        logits = self._down(self._up(jnp.where(kept, clean, 0.0), layer), layer)
        return jnp.sum(nn.softplus(logits) - clean * logits, axis=-1)

    def _up(self, h: Float[Array, "n inputs"], layer: int) -> Float[Array, "n outputs"]:
        return nn.sigmoid(h @ self.kernels[layer - 1] + self.hidden_biases[layer - 1])

    def _down(self, h: Float[Array, "n outputs"], layer: int) -> Float[Array, "n inputs"]:
        return h @ self.kernels[layer - 1].T + self.visible_biases[layer - 1]


class VGG(nn.Module):
    """VGG-like network: stages of 3x3 convolution, BatchNorm and ReLU, each closed by a 2x2 max-pool.

    Attributes:
      classes: number of classes.
      stages: output channels of the convolutions of each stage; every stage halves height and width.
      hidden: units of the fully connected layer, the "penultimate" feature.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    stages: tuple[tuple[int, ...], ...] = ((32, 32), (64, 64), (128, 128))
    hidden: int = 256
    head: Callable[[int], nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        if min(x.shape[1:3]) < 2 ** len(self.stages):
            raise ValueError(f"stages: {len(self.stages)} halvings of an image of {x.shape[1:3]} leave nothing")
        for stage, channels in enumerate(self.stages, start=1):
            for features in channels:
                x = Conv(features, (3, 3), use_bias=False, kernel_init=nn.initializers.he_normal())(x)
                x = nn.relu(_batch_norm(train)(x))
            x = max_pool(x)
            expose(self, f"block{stage}", x)
        x = nn.Dense(self.hidden, use_bias=False)(_flatten(x))
        x = nn.relu(_batch_norm(train)(x))
        expose(self, "penultimate", x)
        return self.head(self.classes)(x)


class ResNet(nn.Module):
    """Residual network of basic blocks with a 3x3 stem, for small images (He et al. 2016).

    Every stage but the first halves height and width; the mean over positions is the "penultimate" feature.

    Attributes:
      classes: number of classes.
      widths: channels of each stage.
      blocks: residual blocks in each stage.
      skip: for each stage, the weight of a block's input in its output; 1 when not given. Parameters are the same for all.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 2
    skip: tuple[float | Array, ...] | None = None
    head: Callable[[int], nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        skip = (1.0,) * len(self.widths) if self.skip is None else self.skip
        if len(skip) != len(self.widths):
            raise ValueError(f"skip={skip}: needs one value for each of the {len(self.widths)} stages of widths")
        x = _convolution(self.widths[0])(x)
        x = nn.relu(_batch_norm(train)(x))
        for stage, (width, share) in enumerate(zip(self.widths, skip, strict=True), start=1):
            for block in range(self.blocks):
                x = _BasicBlock(width, 2 if stage > 1 and block == 0 else 1, share)(x, train)
            expose(self, f"block{stage}", x)
        x = jnp.mean(x, axis=(1, 2))
        expose(self, "penultimate", x)
        return self.head(self.classes)(x)


class _BasicBlock(nn.Module):
    width: int
    stride: int
    skip: float | Array

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = _convolution(self.width, stride=self.stride)(x)
        y = nn.relu(_batch_norm(train)(y))
        y = _batch_norm(train)(_convolution(self.width)(y))
        if x.shape != y.shape:
            x = _batch_norm(train)(_convolution(self.width, window=1, stride=self.stride)(x))
        return nn.relu(y + self.skip * x)


class EvaluatorCNN(nn.Module):
    """Small evaluator that normalizes, activates and pools unlike the targets: GroupNorm, GELU, average pooling.

    Mean and maximum over positions, side by side, are the "penultimate" feature.

    Attributes:
      classes: number of classes.
      widths: channels of each stage, multiples of 8; every stage halves height and width, rounding up.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    head: Callable[[int], nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        for stage, width in enumerate(self.widths, start=1):
            x = Conv(width, (5, 5) if stage == 1 else (3, 3), use_bias=False)(x)
            x = nn.gelu(nn.GroupNorm(num_groups=8)(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2), padding="SAME", count_include_pad=False)
            expose(self, f"block{stage}", x)
        x = jnp.concatenate([jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2))], axis=-1)
        expose(self, "penultimate", x)
        return self.head(self.classes)(x)


def _convolution(width: int, window: int = 3, stride: int = 1) -> nn.Conv:
    init = nn.initializers.he_normal()
    return Conv(width, (window, window), strides=stride, use_bias=False, kernel_init=init)


def _batch_norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)
