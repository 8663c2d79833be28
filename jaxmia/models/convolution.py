"""Convolutions whose gradients are fast on CPU, inside `lax.scan` and `lax.while_loop` too.

XLA's CPU backend has a fast routine only for a convolution in the plain layout. JAX's own gradient rules leave the
flip of the kernel and the exchange of its dimensions to the dimension numbers; a bare jitted step lets XLA bring
most of these to the plain layout, a loop body does not (jax issue 12868), and the kernel gradient of
a transposed convolution never gets there. Here the backward pass writes the flipped and transposed arrays
out, so that it is made of plain convolutions in every context (`plain_convolution`). Values and gradients are those of
`jax.lax.conv_general_dilated`, to which every other backend is sent directly.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxmia.models.plain_convolution import Geometry, by_phase, cropped, raw

__all__ = ["Conv", "ConvTranspose", "conv_general_dilated"]


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """Convolves as `jax.lax.conv_general_dilated` does, with gradients that are fast in loops on CPU.

    A drop-in for `nn.Conv(conv_general_dilated=...)`; arguments, shapes and values are those of the function in
    `jax.lax`. Reverse-mode derivatives of every order work; on CPU forward mode (`jax.jvp`, `jax.linearize`)
    raises, as it does for every `jax.custom_vjp`.

    Args:
      lhs: the input, laid out as `dimension_numbers` says.
      rhs: the kernel, likewise.
      window_strides: one stride for each spatial dimension.
      padding: "SAME", "VALID" or one (low, high) pair for each spatial dimension.
      lhs_dilation: one input dilation for each spatial dimension; 1 when not given.
      rhs_dilation: one kernel dilation for each spatial dimension; 1 when not given.
      dimension_numbers: as in `jax.lax`.
      feature_group_count: number of channel groups.
      precision: as in `jax.lax`.

    Raises:
      ValueError: for padding given by name together with an input dilation, which `jax.lax` refuses as well.
    """
    dimensions = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    ones = (1,) * (lhs.ndim - 2)
    lhs_dilation = ones if lhs_dilation is None else tuple(lhs_dilation)
    rhs_dilation = ones if rhs_dilation is None else tuple(rhs_dilation)
    strides = tuple(window_strides)
    if isinstance(padding, str):
        if lhs_dilation != ones:
            raise ValueError(f"padding={padding!r}: with lhs_dilation={lhs_dilation} give (low, high) pairs")
        padding = lax.padtype_to_pads(
            [lhs.shape[axis] for axis in dimensions.lhs_spec[2:]],
            _dilate([rhs.shape[axis] for axis in dimensions.rhs_spec[2:]], rhs_dilation),
            strides,
            padding,
        )
    pads = tuple((int(low), int(high)) for low, high in padding)
    geometry = Geometry(strides, pads, lhs_dilation, rhs_dilation, dimensions, feature_group_count, precision)
    # Decided while tracing: elsewhere the compiler recognizes JAX's own gradient rules and has routines for them.
    convolve = _convolve if jax.default_backend() == "cpu" else raw
    return convolve(geometry, lhs, rhs)


def _dilate(sizes: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    return tuple((size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(geometry: Geometry, lhs: Array, rhs: Array) -> Array:
    return by_phase(geometry, lhs, rhs)


def _forward(geometry: Geometry, lhs: Array, rhs: Array) -> tuple[Array, tuple[Array, Array]]:
    return by_phase(geometry, lhs, rhs), (lhs, rhs)


def _backward(geometry: Geometry, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    lhs, rhs = residuals
    # Both gradients are themselves `_convolve`, so a second derivative (gradient penalty) is fast as well.
    return _input_gradient(geometry, lhs, rhs, cotangent), _kernel_gradient(geometry, lhs, rhs, cotangent)


_convolve.defvjp(_forward, _backward)


def _input_gradient(geometry: Geometry, lhs: Array, rhs: Array, cotangent: Array) -> Array:
    """Convolves the cotangent with the transposed kernel, stride and input dilation exchanged."""
    lhs_spec, rhs_spec, out_spec = geometry.dimensions
    sizes = _dilate([lhs.shape[axis] for axis in lhs_spec[2:]], geometry.lhs_dilation)
    windows = _dilate([rhs.shape[axis] for axis in rhs_spec[2:]], geometry.rhs_dilation)
    outputs = _dilate([cotangent.shape[axis] for axis in out_spec[2:]], geometry.strides)
    # Low side: the window's reach beyond the forward padding. High side: whatever makes the result as long
    # as the input, which also covers the rows that a stride never reached.
    lows = [window - 1 - low for window, (low, _) in zip(windows, geometry.padding, strict=True)]
    highs = [
        size + window - 1 - output - low
        for size, window, output, low in zip(sizes, windows, outputs, lows, strict=True)
    ]
    backward = geometry._replace(
        strides=geometry.lhs_dilation,
        padding=tuple(zip(lows, highs, strict=True)),
        lhs_dilation=geometry.strides,
        dimensions=lax.ConvDimensionNumbers(out_spec, rhs_spec, lhs_spec),
    )
    return _convolve(backward, cotangent, _transpose_kernel(rhs, rhs_spec, geometry.groups))


def _transpose_kernel(rhs: Array, rhs_spec: Sequence[int], groups: int) -> Array:
    """Flips the kernel in space and exchanges its input and output channels within each group."""
    out_axis, in_axis = rhs_spec[:2]
    kernel = jnp.moveaxis(jnp.flip(rhs, rhs_spec[2:]), (out_axis, in_axis), (0, 1))
    outputs, inputs, *window = kernel.shape
    kernel = kernel.reshape(groups, outputs // groups, inputs, *window).swapaxes(1, 2)
    kernel = kernel.reshape(groups * inputs, outputs // groups, *window)
    return jnp.moveaxis(kernel, (0, 1), (out_axis, in_axis))


def _kernel_gradient(geometry: Geometry, lhs: Array, rhs: Array, cotangent: Array) -> Array:
    """Correlates the input with the cotangent, channels standing for examples and examples for channels."""
    strided, dilated = max(geometry.strides) > 1, max(geometry.lhs_dilation) > 1
    if geometry.groups > 1 or (strided and dilated):
        geometry, lhs = cropped(geometry, lhs)
        _, vjp = jax.vjp(lambda kernel: raw(geometry, lhs, kernel), rhs)
        return vjp(cotangent)[0]
    lhs_spec, rhs_spec, out_spec = geometry.dimensions
    lhs, cotangent = lhs.transpose(lhs_spec), cotangent.transpose(out_spec)  # both "n c *space" from here on
    windows = _dilate([rhs.shape[axis] for axis in rhs_spec[2:]], geometry.rhs_dilation)
    lows = [low for low, _ in geometry.padding]
    if dilated:
        # A dilated input is mostly zeros: let it be the kernel, where dilation is free. This finds taps in reverse.
        lows = [window - 1 - low for window, low in zip(windows, lows, strict=True)]
        gradient = _correlate(geometry, cotangent, lhs, geometry.lhs_dilation, lows, windows)
        gradient = jnp.flip(gradient, tuple(range(2, gradient.ndim))).swapaxes(0, 1)
    else:
        gradient = _correlate(geometry, lhs, cotangent, geometry.strides, lows, windows)
    return jnp.moveaxis(gradient, tuple(range(gradient.ndim)), (rhs_spec[1], rhs_spec[0], *rhs_spec[2:]))


def _correlate(
    geometry: Geometry,
    signal: Float[Array, "n a *long"],
    kernel: Float[Array, "n b *short"],
    step: tuple[int, ...],
    lows: list[int],
    windows: tuple[int, ...],
) -> Float[Array, "a b *taps"]:
    """Sums signal times kernel over examples and positions, for every tap of a forward kernel.

    `step` is the distance in `signal` between neighbors of `kernel`, `lows` the padding before `signal`, `windows` the
    reach of the taps, which lie `geometry.rhs_dilation` apart.
    """
    spans = _dilate(kernel.shape[2:], step)
    highs = [
        window - 1 + span - size - low
        for window, span, size, low in zip(windows, spans, signal.shape[2:], lows, strict=True)
    ]
    # Written out with channels last, the layout of the fast routine; the specs name (batch, channel, *space) and
    # (out, in, *space).
    last, space = signal.ndim - 1, range(2, signal.ndim)
    image_spec = (0, last, *range(1, last))
    kernel_spec = (last, last - 1, *range(last - 1))
    correlation = geometry._replace(
        strides=geometry.rhs_dilation,
        padding=tuple(zip(lows, highs, strict=True)),
        lhs_dilation=(1,) * len(step),
        rhs_dilation=step,
        dimensions=lax.ConvDimensionNumbers(image_spec, kernel_spec, image_spec),
    )
    taps: Array = _convolve(correlation, signal.transpose(1, *space, 0), kernel.transpose(*space, 0, 1))
    return jnp.moveaxis(taps, -1, 1)


Conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)
"""`nn.Conv` with the convolution of this module."""


class ConvTranspose(nn.Module):
    """Transposed 2-D convolution, `[n, h, w, c]` to `[n, (h - 1) s - 2 p + k + o, ..., features]`.

    `nn.ConvTranspose` calls `lax.conv_transpose` and has no hook for another convolution; this layer has, and
    takes its padding as the GAN papers give it, counted on the side of the output.

    Attributes:
      features: output channels.
      kernel_size: window k, (height, width).
      stride: up-sampling factor s.
      padding: p, rows and columns cut from each side of the full result; at most k - 1.
      output_padding: o, rows and columns added at the lower and right side; less than s.
      use_bias: whether to add a bias.
      kernel_init: initializer of the kernel `[kh, kw, in, features]`.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n height width features"]:
        """Up-samples `x` by the stride and convolves it."""
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        y = conv_general_dilated(
            x,
            kernel,
            window_strides=(1, 1),
            padding=[
                (size - 1 - self.padding, size - 1 - self.padding + self.output_padding) for size in self.kernel_size
            ],
            lhs_dilation=(self.stride, self.stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y
