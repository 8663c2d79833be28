"""The conditional GANs of PLG-MI and LOKT: images of a class, and critics that are told the class or tell it.

After Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018 (https://arxiv.org/abs/1802.05637), in the sizes of
Yuan et al., AAAI 2023: with the defaults, latents of 128 numbers and images of 64 pixels.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmia.models.convolution import Conv

__all__ = ["ClassifyingDiscriminator", "ConditionalGenerator", "ProjectionDiscriminator"]

_KERNEL = nn.initializers.xavier_uniform()


class ConditionalGenerator(nn.Module):
    """Latents `[n, d]` and classes `[n]` to images in (0, 1), `[n, size, size, channels]`.

    An affine layer makes a 4 x 4 map; residual blocks with categorical conditional BatchNorm double it, and half its
    channels from the second block on. The published generator ends in a tanh although its images lie in [0, 1]; here
    that is moved and scaled to (0, 1).

    Attributes:
      classes: how many.
      size: height and width of the images, a power of two, 8 or more.
      channels: channels of the images.
      width: channels of the last block; the first map has width * size / 4.
    """

    classes: int
    size: int = 64
    channels: int = 3
    width: int = 64

    @nn.compact
    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], train: bool = False
    ) -> Float[Array, "n size size channels"]:
        """Returns images."""
        doublings = _halvings(self.size)
        width = self.width * 2**doublings
        x = nn.Dense(4 * 4 * width, kernel_init=_KERNEL)(z).reshape(-1, 4, 4, width)
        for _ in range(doublings):
            width //= 2
            x = _Up(self.classes, width)(x, labels, train)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return (jnp.tanh(Conv(self.channels, (1, 1), kernel_init=_KERNEL)(x)) + 1) / 2


class ProjectionDiscriminator(nn.Module):
    """Images `[n, size, size, c]` and classes `[n]` to scores `[n]`, w'h(x) + <embedding(y), h(x)>.

    Residual blocks halve the image down to 4 x 4, the last one halves it once more; h is the sum over positions. All
    kernels have spectral norm one, by one power iteration per call in training (in "batch_stats").

    Attributes:
      classes: how many.
      width: channels of the first block; doubles with every block.
    """

    classes: int
    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], labels: Int[Array, " n"], train: bool = False) -> Float[Array, " n"]:
        """Returns scores; higher means more like a real image of the class."""
        h = _describe(x, self.width, train)
        embedding = nn.SpectralNorm(nn.Embed(self.classes, h.shape[-1], embedding_init=_KERNEL))
        told = nn.SpectralNorm(nn.Dense(1, kernel_init=_KERNEL))(h, update_stats=train)[:, 0]
        return told + jnp.sum(embedding(labels, update_stats=train) * h, axis=-1)


class ClassifyingDiscriminator(nn.Module):
    """Images `[n, size, size, c]` to class logits and, last, the logit of being real, `[n, classes + 1]`.

    The blocks of `ProjectionDiscriminator` with two affine heads instead of the projection, as in an auxiliary
    classifier GAN (Odena et al., ICML 2017); every kernel has spectral norm one.

    Attributes:
      classes: how many.
      width: channels of the first block; doubles with every block.
    """

    classes: int
    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n logits"]:
        """Returns logits."""
        h = _describe(x, self.width, train)
        heads = [nn.SpectralNorm(nn.Dense(n, kernel_init=_KERNEL)) for n in (self.classes, 1)]
        return jnp.concatenate([head(h, update_stats=train) for head in heads], axis=-1)


def _describe(x: Float[Array, "n h w c"], width: int, train: bool) -> Float[Array, "n features"]:
    """h(x) of both discriminators; inside a compact module."""
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"x: the discriminator reads square images, not {x.shape[1]} x {x.shape[2]}")
    x = _Down(width, first=True)(x, train)
    for _ in range(_halvings(2 * x.shape[1])):
        width *= 2
        x = _Down(width)(x, train)
    return jnp.sum(nn.relu(x), axis=(1, 2))


class _Up(nn.Module):
    classes: int
    width: int

    @nn.compact
    def __call__(self, x: Array, labels: Array, train: bool) -> Array:
        y = nn.relu(_ConditionalBatchNorm(self.classes)(x, labels, train))
        y = Conv(self.width, (3, 3), kernel_init=_KERNEL)(_double(y))
        y = nn.relu(_ConditionalBatchNorm(self.classes)(y, labels, train))
        y = Conv(self.width, (3, 3), kernel_init=_KERNEL)(y)
        return y + Conv(self.width, (1, 1), kernel_init=_KERNEL)(_double(x))


class _Down(nn.Module):
    width: int
    first: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def convolve(x: Array, width: int, window: int) -> Array:
            return nn.SpectralNorm(Conv(width, (window, window), kernel_init=_KERNEL))(x, update_stats=train)

        middle = self.width if self.first else x.shape[-1]
        y = convolve(x if self.first else nn.relu(x), middle, 3)
        y = _halve(convolve(nn.relu(y), self.width, 3))
        if self.first:  # of an image, the mean is taken before the channels are many
            return y + convolve(_halve(x), self.width, 1)
        return y + _halve(convolve(x, self.width, 1))


class _ConditionalBatchNorm(nn.Module):
    """BatchNorm whose scale and shift are those of each example's class (Dumoulin et al., ICLR 2017)."""

    classes: int

    @nn.compact
    def __call__(self, x: Array, labels: Array, train: bool) -> Array:
        width = x.shape[-1]
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, use_scale=False, use_bias=False)(x)
        scale = self.param("scale", nn.initializers.ones_init(), (self.classes, width))
        shift = self.param("shift", nn.initializers.zeros_init(), (self.classes, width))
        return x * scale[labels][:, None, None] + shift[labels][:, None, None]


def _halvings(size: int) -> int:
    """How often a square of that size is halved down to 4."""
    if size < 8 or size & (size - 1):
        raise ValueError(f"size: {size}; legal is a power of two, 8 or more")
    return int(math.log2(size // 4))


def _double(x: Array) -> Array:
    n, height, width, channels = x.shape
    return jax.image.resize(x, (n, 2 * height, 2 * width, channels), "bilinear")


def _halve(x: Array) -> Array:
    n, height, width, channels = x.shape
    return jnp.mean(x.reshape(n, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
