"""A small U-Net that predicts noise: the denoiser of a diffusion model of images of classes.

Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020 (https://arxiv.org/abs/2006.11239), appendix B,
with one residual block per resolution instead of two and attention at the lowest resolution alone.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmia.models.convolution import Conv

__all__ = ["Denoiser"]


class Denoiser(nn.Module):
    """Noisy images `[n, h, w, c]`, noise levels `[n]` in [0, 1] and classes `[n]` to the noise in them, `[n, h, w, c]`.

    A class from 0 to `classes` - 1 is a condition; `classes` itself is none, as classifier-free guidance needs.

    Attributes:
      classes: how many.
      width: channels at full resolution, a multiple of 8.
      multiples: channels of each resolution, of `width`; each halves the image once.
    """

    classes: int
    width: int = 64
    multiples: tuple[int, ...] = (1, 2, 2)

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], level: Float[Array, " n"], labels: Int[Array, " n"], train: bool = False
    ) -> Float[Array, "n h w c"]:
        """Returns the noise; zero before training."""
        del train
        halvings = 2 ** len(self.multiples)
        if x.shape[1] % halvings or x.shape[2] % halvings:
            raise ValueError(f"x: {x.shape[1]} x {x.shape[2]} pixels; legal are multiples of {halvings}")
        if self.width % 8:
            raise ValueError(f"width: {self.width}; legal is a multiple of 8")
        hidden = nn.silu(nn.Dense(4 * self.width)(_waves(level, self.width)))
        told = nn.silu(nn.Dense(4 * self.width)(hidden) + nn.Embed(self.classes + 1, 4 * self.width)(labels))
        h, skips = Conv(self.width, (3, 3))(x), []
        for multiple in self.multiples:
            h = _Block(self.width * multiple)(h, told)
            skips.append(h)
            h = nn.avg_pool(h, (2, 2), (2, 2))
        h = _Block(h.shape[-1])(h, told)
        h = _Block(h.shape[-1])(_attend(h), told)
        for multiple in reversed(self.multiples):
            h = jnp.repeat(jnp.repeat(h, 2, 1), 2, 2)
            h = _Block(self.width * multiple)(jnp.concatenate([h, skips.pop()], -1), told)
        h = nn.silu(nn.GroupNorm(8)(h))
        return Conv(x.shape[-1], (3, 3), kernel_init=nn.initializers.zeros_init())(h)


class _Block(nn.Module):
    """A residual block; what is told about level and class is added between its convolutions."""

    width: int

    @nn.compact
    def __call__(self, x: Array, told: Array) -> Array:
        y = Conv(self.width, (3, 3))(nn.silu(nn.GroupNorm(8)(x)))
        y = y + nn.Dense(self.width)(told)[:, None, None]
        y = Conv(self.width, (3, 3), kernel_init=nn.initializers.zeros_init())(nn.silu(nn.GroupNorm(8)(y)))
        return y + (x if x.shape[-1] == self.width else Conv(self.width, (1, 1))(x))


def _attend(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Every position looks at every other; inside a compact module."""
    flat = nn.GroupNorm(8)(x).reshape(x.shape[0], -1, x.shape[-1])
    return x + nn.MultiHeadDotProductAttention(1)(flat, flat).reshape(x.shape)


def _waves(level: Float[Array, " n"], width: int) -> Float[Array, "n width"]:
    """Sines and cosines of a thousand times the level, of wavelengths from 2 pi to 20,000 pi."""
    slow = jnp.exp(-jnp.log(10_000.0) * jnp.arange(width // 2) / (width // 2))
    angle = 1000.0 * level[:, None] * slow
    return jax.lax.concatenate([jnp.sin(angle), jnp.cos(angle)], 1)
