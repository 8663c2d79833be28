"""Convolutions whose gradients are fast on CPU, inside `lax.scan` and `lax.while_loop` too.

XLA's CPU backend has a fast routine only for a convolution in the plain layout. JAX's own gradient rules leave the
flip of the kernel and the exchange of its dimensions to the dimension numbers; a bare jitted step lets XLA bring
most of these to the plain layout, a loop body does not (jax issue 12868), and the kernel gradient of
a transposed convolution never gets there. Here the backward pass writes the flipped and transposed arrays
out, so that it is made of plain convolutions in every context. A dilated input (the value of a transposed convolution,
the gradient of a strided one) is never filled up with zeros: each phase of the output is a plain convolution with every
s-th tap. Nor has it a fast routine for few channels in or out, as the first layer of a network has and the gradient of its
input: there a block of neighboring pixels is computed as the channels of one. Values and gradients are those of
`jax.lax.conv_general_dilated`, to which every other backend is sent directly; phases and blocks sum in another order.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["Conv", "ConvTranspose", "conv_general_dilated"]


class _Geometry(NamedTuple):
    """Static description of one convolution; hashable, so it can be a non-differentiated argument."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    dimensions: lax.ConvDimensionNumbers
    groups: int
    precision: Any


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
    geometry = _Geometry(strides, pads, lhs_dilation, rhs_dilation, dimensions, feature_group_count, precision)
    # Decided while tracing: elsewhere the compiler recognizes JAX's own gradient rules and has routines for them.
    convolve = _convolve if jax.default_backend() == "cpu" else _raw
    return convolve(geometry, lhs, rhs)


def _dilate(sizes: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    return tuple((size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True))


def _raw(geometry: _Geometry, lhs: Array, rhs: Array) -> Array:
    return lax.conv_general_dilated(
        lhs,
        rhs,
        geometry.strides,
        geometry.padding,
        lhs_dilation=geometry.lhs_dilation,
        rhs_dilation=geometry.rhs_dilation,
        dimension_numbers=geometry.dimensions,
        feature_group_count=geometry.groups,
        precision=geometry.precision,
    )


def _by_phase(geometry: _Geometry, lhs: Array, rhs: Array) -> Array:
    """The convolution without input dilation, axis by axis: output o = s m + r needs every s-th tap and no zeros."""
    able = [
        axis
        for axis, (dilation, stride, spread) in enumerate(
            zip(geometry.lhs_dilation, geometry.strides, geometry.rhs_dilation, strict=True)
        )
        if dilation > 1 and stride == 1 and spread == 1
    ]
    if not able:
        return _by_block(geometry, lhs, rhs)
    axis = able[0]
    phases, (low, high) = geometry.lhs_dilation[axis], geometry.padding[axis]
    lhs_axis, rhs_axis, out_axis = (spec[2 + axis] for spec in geometry.dimensions)
    size, taps = lhs.shape[lhs_axis], rhs.shape[rhs_axis]
    length = (size - 1) * phases + 1 + low + high - taps + 1
    longest = -(-length // phases)  # outputs of the first phase, to which the others are filled up
    if taps < phases:  # so that no phase is without a tap
        rhs = lax.pad(
            rhs, jnp.zeros((), rhs.dtype), [(0, (phases - taps) * (a == rhs_axis), 0) for a in range(rhs.ndim)]
        )
    parts = []
    for phase in range(phases):
        first = (low - phase) % phases
        chosen = lax.slice_in_dim(rhs, first, None, phases, rhs_axis)
        begin = (phase + first - low) // phases  # the input that tap `first` meets at output `phase`
        ends = (-begin, longest + chosen.shape[rhs_axis] - 1 + begin - size)
        plain = geometry._replace(
            padding=_replaced(geometry.padding, axis, ends), lhs_dilation=_replaced(geometry.lhs_dilation, axis, 1)
        )
        parts.append(_by_phase(plain, lhs, chosen))
    out = jnp.stack(parts, out_axis + 1)
    out = out.reshape(*out.shape[:out_axis], longest * phases, *out.shape[out_axis + 2 :])
    return lax.slice_in_dim(out, 0, length, axis=out_axis)


def _by_block(geometry: _Geometry, lhs: Array, rhs: Array) -> Array:
    """A convolution of few channels: a block of outputs is the channels of one, by a kernel that holds every shift.

    The product of a pixel's window with a kernel of one channel is one of a matrix and a vector, and its window is copied
    for every pixel anew. With blocks of 4 x 4 there are 16 columns, for 16 times fewer windows, if larger ones. Zeros
    around a shifted kernel leave the sums what they are, except that what is not finite spreads over its block.
    """
    (_, _, *lhs_axes), (_, _, *rhs_axes), out_spec = geometry.dimensions
    sizes = [
        lhs.shape[a] + low + high - rhs.shape[b] + 1
        for a, b, (low, high) in zip(lhs_axes, rhs_axes, geometry.padding, strict=True)
    ]
    few = min(rhs.shape[axis] for axis in geometry.dimensions.rhs_spec[:2])
    most = 4 if few == 1 else 2 if few <= 8 else 1  # by measurement
    blocks = tuple(math.gcd(most, size) if rhs.shape[axis] > 2 else 1 for size, axis in zip(sizes, rhs_axes))
    plain = geometry.groups == 1 and {*geometry.strides, *geometry.lhs_dilation, *geometry.rhs_dilation} == {1}
    if not plain or set(blocks) == {1}:
        return _raw(geometry, lhs, rhs)
    space, last = len(blocks), lhs.ndim - 1
    kernel = rhs.transpose(*rhs_axes, geometry.dimensions.rhs_spec[1], geometry.dimensions.rhs_spec[0])
    for axis in reversed(range(space)):
        shifted = []
        for shift in range(blocks[axis]):
            ends = [(0, 0)] * kernel.ndim
            ends[axis] = (shift, blocks[axis] - 1 - shift)
            shifted.append(jnp.pad(kernel, ends))
        kernel = jnp.stack(shifted, space + 1)  # [*space, in, *blocks of the axes from here on, out]
    specs = _channels_last(lhs.ndim)
    blocked = geometry._replace(strides=blocks, dimensions=specs)
    images = lhs.transpose(geometry.dimensions.lhs_spec[0], *lhs_axes, geometry.dimensions.lhs_spec[1])
    out = _raw(blocked, images, kernel.reshape(*kernel.shape[: space + 1], -1))
    out = out.reshape(len(out), *out.shape[1:last], *blocks, kernel.shape[-1])
    order = [axis for pair in zip(range(1, last), range(last, last + space)) for axis in pair]
    out = out.transpose(0, *order, out.ndim - 1).reshape(len(out), *sizes, -1)
    return jnp.moveaxis(out, specs.out_spec, out_spec)


def _channels_last(dimensions: int) -> lax.ConvDimensionNumbers:
    """Of images [n, *space, c] and kernels [*space, in, out], the layout of the fast routine."""
    last = dimensions - 1
    image = (0, last, *range(1, last))  # (batch, channel, *space)
    return lax.ConvDimensionNumbers(image, (last, last - 1, *range(last - 1)), image)


def _replaced(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(geometry: _Geometry, lhs: Array, rhs: Array) -> Array:
    return _by_phase(geometry, lhs, rhs)


def _forward(geometry: _Geometry, lhs: Array, rhs: Array) -> tuple[Array, tuple[Array, Array]]:
    return _by_phase(geometry, lhs, rhs), (lhs, rhs)


def _backward(geometry: _Geometry, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    lhs, rhs = residuals
    # Both gradients are themselves `_convolve`, so a second derivative (gradient penalty) is fast as well.
    return _input_gradient(geometry, lhs, rhs, cotangent), _kernel_gradient(geometry, lhs, rhs, cotangent)


_convolve.defvjp(_forward, _backward)


def _input_gradient(geometry: _Geometry, lhs: Array, rhs: Array, cotangent: Array) -> Array:
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


def _kernel_gradient(geometry: _Geometry, lhs: Array, rhs: Array, cotangent: Array) -> Array:
    """Correlates the input with the cotangent, channels standing for examples and examples for channels."""
    strided, dilated = max(geometry.strides) > 1, max(geometry.lhs_dilation) > 1
    if geometry.groups > 1 or (strided and dilated):
        _, vjp = jax.vjp(lambda kernel: _raw(geometry, lhs, kernel), rhs)
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
    geometry: _Geometry,
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
    space = range(2, signal.ndim)
    correlation = geometry._replace(
        strides=geometry.rhs_dilation,
        padding=tuple(zip(lows, highs, strict=True)),
        lhs_dilation=(1,) * len(step),
        rhs_dilation=step,
        dimensions=_channels_last(signal.ndim),
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
