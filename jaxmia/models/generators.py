"""Generators, a critic and an inversion decoder: the image networks that attacks train on public data.

Kernels start as in DCGAN (Radford et al. 2016): normal with deviation 0.02, BatchNorm scales around 1.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.models.convolution import Conv, ConvTranspose

__all__ = ["DCGenerator", "InversionDecoder", "WGANCritic"]

_KERNEL = nn.initializers.normal(0.02)


def _scale(key, shape, dtype=jnp.float32) -> Array:
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def _batch_norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, scale_init=_scale)


class DCGenerator(nn.Module):
    """Generator of GMI and its descendants: latent `[n, d]` to images in [0, 1], `[n, size, size, channels]`.

    An affine layer makes a 4 x 4 map; 5x5 transposed convolutions of stride 2, with BatchNorm and ReLU, double it; a
    last one with a sigmoid paints the image (Zhang et al. 2020). With the default width, size 64 is the CelebA
    generator of that paper and size 32 its MNIST generator.

    Attributes:
      size: height and width of the images, 32 or 64.
      channels: channels of the images.
      width: channels before the last layer; doubles with every halving of the map.
    """

    size: int = 64
    channels: int = 3
    width: int = 64

    @nn.compact
    def __call__(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n size size channels"]:
        """Returns images."""
        if self.size not in (32, 64):
            raise ValueError(f"size={self.size}: the generator makes images of 32 or 64 pixels")
        doublings = int(math.log2(self.size // 4))
        width = self.width * 2 ** (doublings - 1)
        x = nn.Dense(4 * 4 * width, use_bias=False, kernel_init=_KERNEL)(z)
        x = nn.relu(_batch_norm(train)(x)).reshape(-1, 4, 4, width)
        while width > self.width:
            width //= 2
            x = self._up(width, use_bias=False)(x)
            x = nn.relu(_batch_norm(train)(x))
        return nn.sigmoid(self._up(self.channels, use_bias=True)(x))

    def _up(self, features: int, use_bias: bool) -> ConvTranspose:
        return ConvTranspose(
            features,
            (5, 5),
            stride=2,
            padding=2,
            output_padding=1,
            use_bias=use_bias,
            kernel_init=_KERNEL,
        )


class WGANCritic(nn.Module):
    """Critic of GMI's WGAN-GP: images `[n, size, size, c]` in [0, 1] to one unbounded score each.

    5x5 convolutions of stride 2 halve the image down to 4 x 4, InstanceNorm on all but the first, as the gradient
    penalty forbids BatchNorm; a 4x4 convolution gives the score.

    Attributes:
      width: channels of the first layer; doubles with every halving.
    """

    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, " n"]:
        """Returns scores; higher means more like the real images. Size is 32 or 64."""
        if x.shape[1] not in (32, 64) or x.shape[1] != x.shape[2]:
            raise ValueError(f"x: the critic reads square images of 32 or 64 pixels, not {x.shape[1]} x {x.shape[2]}")
        width = self.width
        x = nn.leaky_relu(self._down(width)(x), 0.2)
        while x.shape[1] > 4:
            width *= 2
            x = nn.InstanceNorm(epsilon=1e-5, scale_init=_scale)(self._down(width)(x))
            x = nn.leaky_relu(x, 0.2)
        return Conv(1, (4, 4), padding="VALID", kernel_init=_KERNEL)(x).reshape(-1)

    def _down(self, features: int) -> nn.Conv:
        return Conv(features, (5, 5), strides=2, padding=2, kernel_init=_KERNEL)


class MapDecoder(nn.Module):
    """Maps of a hidden layer `[n, ...]` to those of a layer before it, or to images: undoes one block of a network.

    Repeated pixels bring the map to the height and width asked for; two 3x3 convolutions follow, with BatchNorm and ReLU,
    and one without.

    Attributes:
      shape: (height, width, channels) of what comes out.
      width: channels in between.
    """

    shape: tuple[int, int, int]
    width: int = 64

    @nn.compact
    def __call__(self, maps: Float[Array, "n rows columns features"], train: bool = False) -> Float[Array, "n h w c"]:
        """Returns maps of `shape`, unbounded."""
        height, width, channels = self.shape
        x = jax.image.resize(maps, (maps.shape[0], height, width, maps.shape[3]), "nearest")
        for _ in range(2):
            x = nn.relu(_batch_norm(train)(Conv(self.width, (3, 3), use_bias=False)(x)))
        return Conv(channels, (3, 3))(x)


class InversionDecoder(nn.Module):
    """Decoder of training-based inversion (Yang et al. 2019): what a model answered, `[n, ...]`, to images in (0, 1).

    An affine layer makes a map of at most 4 x 4; 4x4 transposed convolutions of stride 2, with BatchNorm and tanh,
    double it until it covers the image, and the middle is cut out. For 32 and 64 pixels squared this is the
    network of the paper.

    Attributes:
      image_shape: (height, width, channels) of the images.
      width: channels before the last layer; doubles with every halving of the map.
    """

    image_shape: tuple[int, int, int]
    width: int = 128

    @nn.compact
    def __call__(self, answers: Float[Array, "n ..."], train: bool = False) -> Float[Array, "n h w c"]:
        """Returns images of `image_shape`."""
        height, width, channels = self.image_shape
        doublings = max(1, math.ceil(math.log2(max(height, width) / 4)))
        start = (math.ceil(height / 2**doublings), math.ceil(width / 2**doublings))
        features = self.width * 2 ** (doublings - 1)
        # The paper's transposed convolution of a 1 x 1 map is an affine layer.
        x = nn.Dense(math.prod(start) * features, use_bias=False, kernel_init=_KERNEL)(
            answers.reshape(answers.shape[0], -1)
        )
        x = nn.tanh(_batch_norm(train)(x.reshape(-1, *start, features)))
        while features > self.width:
            features //= 2
            x = ConvTranspose(features, (4, 4), stride=2, padding=1, use_bias=False, kernel_init=_KERNEL)(x)
            x = nn.tanh(_batch_norm(train)(x))
        x = nn.sigmoid(ConvTranspose(channels, (4, 4), stride=2, padding=1, kernel_init=_KERNEL)(x))
        top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
        return x[:, top : top + height, left : left + width]
