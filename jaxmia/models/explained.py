"""The decoder of XAI-aware inversion: a U-Net of an explanation, told what the model answered."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.models.convolution import Conv, ConvTranspose

__all__ = ["ExplainedDecoder"]


class ExplainedDecoder(nn.Module):
    """Scores `[n, classes]` and an explanation `[n, h, w, c]` to images in (0, 1) (Zhao et al. 2021, their U-Net).

    4x4 convolutions of stride 2, with BatchNorm and leaky ReLU, halve the explanation until it is 4 pixels or less; an
    affine map of the scores joins it there; transposed ones double it again, each beside the map of the same size that
    was seen on the way down, and a sigmoid paints the image.

    Attributes:
      image_shape: (height, width, channels) of the images; height and width are those of the explanation, and what
        they are halved to must be whole.
      width: channels next to the image; doubles with every halving.
    """

    image_shape: tuple[int, int, int]
    width: int = 32

    @nn.compact
    def __call__(self, told: dict[str, Array], train: bool = False) -> Float[Array, "n h w c"]:
        """Returns images of `image_shape`."""
        height, width, channels = self.image_shape
        halvings = max(1, math.ceil(math.log2(max(height, width) / 4)))
        if height % 2**halvings or width % 2**halvings:
            raise ValueError(f"image_shape: {height} x {width}; legal are multiples of {2**halvings} pixels")
        features = [self.width * 2**level for level in range(halvings)]

        def norm(x: Array) -> Array:
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x, seen = told["explanation"], []
        for count in features:
            seen.append(x)
            x = nn.leaky_relu(norm(Conv(count, (4, 4), strides=2, padding=1, use_bias=False)(x)), 0.2)
        scores = nn.Dense(math.prod(x.shape[1:3]) * features[-1], use_bias=False)(told["scores"])
        x = jnp.concatenate([x, nn.relu(norm(scores.reshape(x.shape)))], -1)
        for count, beside in zip(features[::-1], seen[::-1]):
            x = nn.relu(norm(ConvTranspose(count, (4, 4), stride=2, padding=1, use_bias=False)(x)))
            x = jnp.concatenate([x, beside], -1)
        return nn.sigmoid(Conv(channels, (3, 3), padding=1)(x))
