"""The discriminator of KED-MI's inversion-specific GAN: a classifier of the target's classes that tells fakes as well.

Chen, Kahla, Jia, Qi, ICCV 2021 (https://arxiv.org/abs/2010.04092); minibatch discrimination after Salimans et al., NeurIPS
2016 (https://arxiv.org/abs/1606.03498), section 3.2. Its generator is `DCGenerator`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.models.convolution import Conv
from jaxmia.models.features import expose

__all__ = ["InversionDiscriminator", "MinibatchDiscrimination"]

_KERNEL = nn.initializers.normal(0.02)


class MinibatchDiscrimination(nn.Module):
    """Appends to each example how close the others of its batch are: sum over j of exp(-|M_i - M_j|_1), M = f T.

    The released T starts as N(0, 1), with which hardly anything is close; here it starts as the other layers do.

    Attributes:
      kernels: numbers appended.
      size: of the rows that are compared.
    """

    kernels: int = 64
    size: int = 50

    @nn.compact
    def __call__(self, f: Float[Array, "n d"]) -> Float[Array, "n d_and_kernels"]:
        """Returns the features with the closeness appended, an example's own (1) left out."""
        rows = nn.Dense(self.kernels * self.size, use_bias=False, kernel_init=_KERNEL)(f)
        rows = rows.reshape(-1, self.kernels, self.size)
        apart = jnp.sum(jnp.abs(rows[:, None] - rows[None]), axis=-1)
        return jnp.concatenate([f, jnp.sum(jnp.exp(-apart), axis=1) - 1.0], axis=-1)


class InversionDiscriminator(nn.Module):
    """Images `[n, h, w, c]` in [0, 1] to logits `[n, classes]`; log sum exp of them is how real an image looks.

    5x5 convolutions of stride 2, then a 3x3 one, with InstanceNorm and leaky ReLU; the flattened map is the feature
    "penultimate", whose mean the generator matches; minibatch discrimination and an affine layer follow. With the
    defaults and 64 pixels it has the published size, 4,096 features.

    Attributes:
      classes: how many.
      width: channels of the first layer; the next two double them, the last keeps them.
      kernels: of the minibatch discrimination.
    """

    classes: int
    width: int = 64
    kernels: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        for width, window in ((1, 5), (2, 5), (4, 5), (4, 3)):
            convolve = Conv(
                self.width * width, (window, window), strides=2, padding=window // 2, kernel_init=_KERNEL
            )  # fmt: skip
            x = nn.leaky_relu(nn.InstanceNorm(epsilon=1e-5)(convolve(x)), 0.2)
        x = x.reshape(x.shape[0], -1)
        expose(self, "penultimate", x)
        return nn.Dense(self.classes, kernel_init=_KERNEL)(MinibatchDiscrimination(self.kernels)(x))
