"""One convolution on CPU by plain ones, for which alone XLA has a fast routine there.

A dilated input (the value of a transposed convolution, the gradient of a strided one) is never filled up with zeros: each
phase of the output is a plain convolution with every s-th tap. Of few channels in or out, as in the first layer of a
network and in the gradient of its input, a block of neighboring pixels is computed as the channels of one. Both sum in
another order than `jax.lax.conv_general_dilated`.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

__all__ = ["Geometry", "by_phase", "channels_last", "raw"]


class Geometry(NamedTuple):
    """Static description of one convolution; hashable, so it can be a non-differentiated argument."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    dimensions: lax.ConvDimensionNumbers
    groups: int
    precision: Any


def raw(geometry: Geometry, lhs: Array, rhs: Array) -> Array:
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


def by_phase(geometry: Geometry, lhs: Array, rhs: Array) -> Array:
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
        parts.append(by_phase(plain, lhs, chosen))
    out = jnp.stack(parts, out_axis + 1)
    out = out.reshape(*out.shape[:out_axis], longest * phases, *out.shape[out_axis + 2 :])
    return lax.slice_in_dim(out, 0, length, axis=out_axis)


def _by_block(geometry: Geometry, lhs: Array, rhs: Array) -> Array:
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
    most = 4 if few == 1 else 2 if few <= 8 else 1  # see experiments/benchmarks/convolution.py
    blocks = tuple(math.gcd(most, size) if rhs.shape[axis] > 2 else 1 for size, axis in zip(sizes, rhs_axes))
    plain = geometry.groups == 1 and {*geometry.strides, *geometry.lhs_dilation, *geometry.rhs_dilation} == {1}
    if not plain or set(blocks) == {1}:
        return raw(geometry, lhs, rhs)
    space, last = len(blocks), lhs.ndim - 1
    kernel = rhs.transpose(*rhs_axes, geometry.dimensions.rhs_spec[1], geometry.dimensions.rhs_spec[0])
    for axis in reversed(range(space)):
        shifted = []
        for shift in range(blocks[axis]):
            ends = [(0, 0)] * kernel.ndim
            ends[axis] = (shift, blocks[axis] - 1 - shift)
            shifted.append(jnp.pad(kernel, ends))
        kernel = jnp.stack(shifted, space + 1)  # [*space, in, *blocks of the axes from here on, out]
    specs = channels_last(lhs.ndim)
    blocked = geometry._replace(strides=blocks, dimensions=specs)
    images = lhs.transpose(geometry.dimensions.lhs_spec[0], *lhs_axes, geometry.dimensions.lhs_spec[1])
    out = raw(blocked, images, kernel.reshape(*kernel.shape[: space + 1], -1))
    out = out.reshape(len(out), *out.shape[1:last], *blocks, kernel.shape[-1])
    order = [axis for pair in zip(range(1, last), range(last, last + space)) for axis in pair]
    out = out.transpose(0, *order, out.ndim - 1).reshape(len(out), *sizes, -1)
    return jnp.moveaxis(out, specs.out_spec, out_spec)


def channels_last(dimensions: int) -> lax.ConvDimensionNumbers:
    """Of images [n, *space, c] and kernels [*space, in, out], the layout of the fast routine."""
    last = dimensions - 1
    image = (0, last, *range(1, last))  # (batch, channel, *space)
    return lax.ConvDimensionNumbers(image, (last, last - 1, *range(last - 1)), image)


def _replaced(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])
