"""StyleGAN2: the generator that attacks on large faces bring from elsewhere (PPA, MIRROR, IF-GMI, VMI).

Karras et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020 (https://arxiv.org/abs/1912.04958),
sections 2 and 4: weight demodulation, skip connections, no progressive growing. Submodules are named as in the published
weights, which `jaxmia.models.pretrained` reads. Without classes and with one filter, [1, 3, 3, 1].

A modulated convolution scales the kernel by the style of each example, equation 1, and normalizes it, equation 3. As
both are linear, here the input is scaled before and the output after one convolution with the common kernel: the
examples share it, and no convolution is grouped.
"""

import math
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxmia.models.convolution import conv_general_dilated
from jaxmia.models.features import expose

__all__ = ["Hidden", "MappingNetwork", "StyleGAN2", "SynthesisNetwork", "from_p_space", "to_p_space"]

_NORMAL = nn.initializers.normal(1.0)


class Hidden(NamedTuple):
    """What one synthesis block hands to the next.

    Attributes:
      map: the feature map, `[n, s, s, features]`.
      image: what the blocks so far have painted, `[n, s, s, channels]` in about [-1, 1]; None where nothing is.
    """

    map: Array
    image: Array | None = None


def to_p_space(w: Float[Array, "*d"], slope: float | Float[Array, ""] = 5.0) -> Float[Array, "*d"]:
    """w before the last activation of the mapping network: LeakyReLU of slope 5 undoes the one of slope 0.2.

    In that space (Zhu et al. 2020, https://arxiv.org/abs/2012.09036) latents are about Gaussian; MIRROR clips there.
    """
    return jnp.where(w >= 0, w, slope * w)


def from_p_space(p: Float[Array, "*d"], slope: float | Float[Array, ""] = 5.0) -> Float[Array, "*d"]:
    """The inverse of `to_p_space`."""
    return jnp.where(p >= 0, p, p / slope)


class StyleGAN2(nn.Module):
    """Latents z ~ N(0, I), `[n, latent]`, to images in about [0, 1], `[n, size, size, channels]`.

    Images are not clipped: the published weights paint in [-1, 1], of which this is `(image + 1) / 2`. With the defaults it
    is configuration F for 1,024 pixels. `method="to_w"` and `method="synthesize"` are its two halves.

    Attributes:
      size: height and width of the images, a power of two, 8 or more.
      channels: channels of the images.
      latent: numbers in z and in w.
      mapping_layers: affine layers from z to w.
      channel_base: a map of s pixels squared has channel_base / s features ...
      channel_max: ... but not more than this.
      clamp: bound of every layer's output; 256 for weights that were trained in half precision.
    """

    size: int = 1024
    channels: int = 3
    latent: int = 512
    mapping_layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    clamp: float | None = None

    def setup(self):
        self.mapping = MappingNetwork(self.latent, self.mapping_layers)
        self.synthesis = SynthesisNetwork(self.size, self.channels, self.channel_base, self.channel_max, self.clamp)

    def __call__(self, z: Float[Array, "n d"], train: bool = False) -> Float[Array, "n size size channels"]:
        """Returns images; in training, w_avg in "batch_stats" follows the mean of w."""
        return cast(Array, self.synthesis(self.mapping(z, train)))

    def to_w(
        self, z: Float[Array, "n d"], psi: float | Float[Array, ""] = 1.0, cutoff: int | None = None
    ) -> Float[Array, "n *layers d"]:
        """Returns w, `[n, d]`, drawn towards its mean: w_avg + psi (w - w_avg).

        Args:
          z: latents.
          psi: truncation; 1 leaves w as it is, 0 gives the mean.
          cutoff: so many layers get the truncated w, the others get w; the answer is then `[n, layers, d]`.
        """
        return self.truncate(self.mapping(z), psi, cutoff)

    def truncate(
        self, w: Float[Array, "n d"], psi: float | Float[Array, ""], cutoff: int | None = None
    ) -> Float[Array, "n *layers d"]:
        """Returns w as `to_w` does, of a w that it gives with psi 1."""
        near = self.mapping.truncate(w, psi)
        if cutoff is None:
            return near
        first = jnp.arange(2 * self.synthesis.blocks)[:, None] < cutoff
        return jnp.where(first, near[:, None], w[:, None])

    def synthesize(self, w: Float[Array, "n *layers d"], **where: Any) -> Float[Array, "n s s c"] | Hidden:
        """Returns images of `w`, or what lies between two blocks; see `SynthesisNetwork.__call__`."""
        return self.synthesis(w, **where)


class MappingNetwork(nn.Module):
    """z to w: normalization, then affine layers with leaky ReLU that learn at a hundredth of the rate.

    Attributes:
      features: numbers in w, and units of every layer.
      layers: how many.
    """

    features: int = 512
    layers: int = 8

    def setup(self):
        self.w_avg = self.variable("batch_stats", "w_avg", lambda: jnp.zeros(self.features))
        self.affine = [_Affine(self.features, slowness=0.01, name=f"fc{layer}") for layer in range(self.layers)]

    def __call__(self, z: Float[Array, "n latent"], train: bool = False) -> Float[Array, "n features"]:
        """Returns w; in training, the running mean of w is updated."""
        x = z * lax.rsqrt(jnp.mean(z**2, axis=-1, keepdims=True) + 1e-8)
        for layer in self.affine:
            x = _activate(layer(x))
        if train and not self.is_initializing():
            self.w_avg.value += 0.005 * (lax.stop_gradient(jnp.mean(x, axis=0)) - self.w_avg.value)
        return x

    def truncate(self, w: Float[Array, "*n d"], psi: float | Float[Array, ""]) -> Float[Array, "*n d"]:
        """Returns w_avg + psi (w - w_avg)."""
        return self.w_avg.value + psi * (w - self.w_avg.value)


class SynthesisNetwork(nn.Module):
    """w to images, by blocks that double a learned constant of 4 x 4; attributes as in `StyleGAN2`.

    Maps are sown as "block1", "block2", ... into "features".
    """

    size: int = 1024
    channels: int = 3
    channel_base: int = 32768
    channel_max: int = 512
    clamp: float | None = None

    @property
    def blocks(self) -> int:
        """How many: the maps have 4, 8, ..., size pixels."""
        return int(math.log2(self.size)) - 1

    @nn.compact
    def __call__(
        self,
        w: Float[Array, "n *layers d"],
        *,
        from_block: int = 0,
        feature: Hidden | None = None,
        to_block: int | None = None,
        noise: bool = True,
    ) -> Float[Array, "n size size channels"] | Hidden:
        """Returns images in about [0, 1], or a `Hidden` where `to_block` stops before the end.

        `synthesis(w)` is `synthesis(w, from_block=k, feature=synthesis(w, to_block=k))`. The released code of IF-GMI
        starts from a map alone and so loses what earlier blocks have painted: `feature._replace(image=None)`.

        Args:
          w: one for all layers, `[n, d]`, or one for each, `[n, 2 blocks, d]`.
          from_block: blocks to skip; then `feature` takes the place of their result.
          feature: what block `from_block` reads.
          to_block: blocks to run, counted from the first; all when not given.
          noise: whether the layers add their fixed noise images.

        Raises:
          ValueError: for an illegal size, number of layers or block, and for a feature that is missing, not asked for or
            not of the size that the block reads.
        """
        if self.size < 8 or self.size & (self.size - 1):
            raise ValueError(f"size: {self.size}; legal is a power of two, 8 or more")
        if w.ndim == 3 and w.shape[1] != 2 * self.blocks:
            raise ValueError(f"w: {w.shape[1]} layers; legal is {2 * self.blocks}, or one w of shape [n, d]")
        end = self.blocks if to_block is None else to_block
        if not 0 <= from_block < end <= self.blocks:
            raise ValueError(f"from_block: {from_block}, to_block: {end}; legal is 0 <= from < to <= {self.blocks}")
        if (feature is None) != (from_block == 0):
            raise ValueError(f"feature: needed where from_block is not 0, and only there; from_block is {from_block}")
        read = (2 ** (from_block + 1), 2 ** (from_block + 1), self._features(2 ** (from_block + 1)))
        if feature is not None and feature.map.shape[1:] != read:
            raise ValueError(f"feature: maps of shape {feature.map.shape[1:]}; block {from_block} reads {read}")
        w = w if w.ndim == 3 else jnp.repeat(w[:, None], 2 * self.blocks, axis=1)
        for block in range(from_block, end):
            size = 2 ** (block + 2)
            run = _Block(size, self._features(size), self.channels, self.clamp, name=f"b{size}")
            # The last w of a block, for its colors, is the first of the next.
            feature = run(feature, w[:, max(0, 2 * block - 1) : 2 * block + 2], noise)
            expose(self, f"block{block + 1}", feature.map)
        assert feature is not None and feature.image is not None  # at least one block has run
        return feature if end < self.blocks else (feature.image + 1) / 2

    def _features(self, size: int) -> int:
        return min(self.channel_base // size, self.channel_max)


class _Block(nn.Module):
    size: int
    features: int
    channels: int
    clamp: float | None

    @nn.compact
    def __call__(self, hidden: Hidden | None, w: Array, noise: bool) -> Hidden:
        if hidden is None:
            x = self.param("const", _NORMAL, (self.size, self.size, self.features))
            x, image = jnp.repeat(x[None], len(w), axis=0), None
        else:
            x, image = _Layer(self.features, True, self.clamp, name="conv0")(hidden.map, w[:, 0], noise), hidden.image
        x = _Layer(self.features, False, self.clamp, name="conv1")(x, w[:, -2], noise)
        painted = _ToRGB(self.channels, self.clamp, name="torgb")(x, w[:, -1])
        if image is not None:
            painted = painted + _smooth(jnp.repeat(jnp.repeat(image, 2, axis=1), 2, axis=2), 2)
        return Hidden(x, painted)


class _Layer(nn.Module):
    features: int
    doubles: bool
    clamp: float | None

    @nn.compact
    def __call__(self, x: Array, w: Array, noise: bool) -> Array:
        inputs = x.shape[-1]
        style = _Affine(inputs, bias_init=nn.initializers.ones_init(), name="affine")(w)
        kernel = self.param("kernel", _NORMAL, (3, 3, inputs, self.features)) / math.sqrt(9 * inputs)
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = x * style[:, None, None]
        if self.doubles:  # transposed; its one surplus row and column go with the smoothing
            x = conv_general_dilated(
                x, kernel[::-1, ::-1], (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2), dimension_numbers=dimensions
            )
            x = _smooth(x, 3)
        else:
            x = conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=dimensions)
        x = x * lax.rsqrt(style**2 @ jnp.sum(kernel**2, axis=(0, 1)) + 1e-8)[:, None, None]
        strength = self.param("noise_strength", nn.initializers.zeros_init(), ())
        fixed = self.variable("batch_stats", "noise_const", lambda: _NORMAL(self.make_rng("params"), x.shape[1:3]))
        if noise:
            x = x + strength * fixed.value[None, :, :, None]
        x = x + self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return _clamp(_activate(x), self.clamp)


class _ToRGB(nn.Module):
    channels: int
    clamp: float | None

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        inputs = x.shape[-1]
        style = _Affine(inputs, bias_init=nn.initializers.ones_init(), name="affine")(w)
        kernel = self.param("kernel", _NORMAL, (1, 1, inputs, self.channels))[0, 0] / math.sqrt(inputs)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,))
        return _clamp((x * style[:, None, None]) @ kernel + bias, self.clamp)


class _Affine(nn.Module):
    """An affine layer with an equalized learning rate: weights of deviation one, scaled where they are used."""

    features: int
    slowness: float = 1.0
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        start = nn.initializers.normal(1.0 / self.slowness)
        kernel = self.param("kernel", start, (inputs, self.features)) * (self.slowness / math.sqrt(inputs))
        return x @ kernel + self.slowness * self.param("bias", self.bias_init, (self.features,))


def _activate(x: Array) -> Array:
    return math.sqrt(2) * nn.leaky_relu(x, 0.2)


def _clamp(x: Array, bound: float | None) -> Array:
    return x if bound is None else jnp.clip(x, -bound, bound)


def _smooth(x: Array, times: int) -> Array:
    """Adds neighbors, `times` times per axis, a quarter of it: 3 is the filter [1, 3, 3, 1], 2 is it less one [1, 1].

    A map filled up with zeros in between needs all three, a map of doubled pixels has had the first.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for _ in range(times):
        x = x[:, :-1] + x[:, 1:]
        x = x[:, :, :-1] + x[:, :, 1:]
    return x / 16
