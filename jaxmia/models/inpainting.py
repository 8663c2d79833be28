"""The generator that SecretGen and the masked variant of GMI paint with: a masked image and a latent to an image.

After Zhang et al., CVPR 2020 (https://arxiv.org/abs/1911.07135): one branch reads the image and its mask, with dilated
convolutions so that it sees around the hole, another one draws a map from the latent, and both together are decoded.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.models.convolution import Conv, ConvTranspose

__all__ = ["InpaintingGenerator"]


class InpaintingGenerator(nn.Module):
    """Images `[n, h, w, c]` in [0, 1], their masks `[n, h, w, 1]` (1 is hidden) and latents `[n, d]` to images in (0, 1).

    Height and width are multiples of 4.

    Attributes:
      width: channels of the first layer; the map at a quarter of the size has four times as many.
    """

    width: int = 32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], mask: Float[Array, "n h w 1"], z: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n h w c"]:
        """Returns images, of which the hidden pixels count."""
        n, height, width, channels = x.shape
        if height % 4 or width % 4:
            raise ValueError(f"x: {height} x {width} pixels; legal are multiples of 4")

        def active(y: Array) -> Array:
            return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(y))

        y = active(Conv(self.width, (5, 5), use_bias=False)(jnp.concatenate([x, mask], -1)))
        for factor in (2, 4):
            y = active(Conv(factor * self.width, (3, 3), strides=2, padding=1, use_bias=False)(y))
        for dilation in (2, 4):
            y = active(Conv(4 * self.width, (3, 3), kernel_dilation=dilation, use_bias=False)(y))
        drawn = nn.Dense(height * width // 16 * 4 * self.width, use_bias=False)(z)
        drawn = active(drawn.reshape(n, height // 4, width // 4, 4 * self.width))
        y = active(Conv(4 * self.width, (3, 3), use_bias=False)(jnp.concatenate([y, drawn], -1)))
        for factor in (2, 1):
            y = active(ConvTranspose(factor * self.width, (4, 4), stride=2, padding=1, use_bias=False)(y))
        return nn.sigmoid(Conv(channels, (3, 3))(y))
