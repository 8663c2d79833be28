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

__all__ = ["Geometry", "by_phase", "cropped", "raw"]


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
        return _by_block(*cropped(geometry, lhs), rhs)
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


def cropped(geometry: Geometry, lhs: Array) -> tuple[Geometry, Array]:
    """The same convolution without negative padding, for which XLA's CPU routine reads beyond the end of its input.

    What it finds there is multiplied by a kernel and told as the output of a row of zeros (jax 0.10.2): mostly too little
    to see, now and then NaN.
    """
    ends = [(0, 0, 0)] * lhs.ndim
    padding, dilation = list(geometry.padding), list(geometry.lhs_dilation)
    for i, (low, high) in enumerate(geometry.padding):
        if min(low, high) < 0 and dilation[i] > 1:  # cut off what is filled up
            ends[geometry.dimensions.lhs_spec[2 + i]] = (low, high, dilation[i] - 1)
            padding[i], dilation[i] = (0, 0), 1
        elif min(low, high) < 0:
            ends[geometry.dimensions.lhs_spec[2 + i]] = (min(low, 0), min(high, 0), 0)
            padding[i] = (max(low, 0), max(high, 0))
    if not any(map(any, ends)):
        return geometry, lhs
    left = lax.pad(lhs, jnp.zeros((), lhs.dtype), ends)
    return geometry._replace(padding=tuple(padding), lhs_dilation=tuple(dilation)), left


def _by_block(geometry: Geometry, lhs: Array, rhs: Array) -> Array:
    """A convolution of few channels: a block of outputs is the channels of one, by a kernel that holds every shift.

    The product of a pixel's window with a kernel of one channel is one of a matrix and a vector, and its window is copied
    for every pixel anew. With blocks of 4 x 4 there are 16 columns, for 16 times fewer windows, if larger ones. Zeros
    around a shifted kernel leave the sums what they are, except that what is not finite spreads over its block.
    """
    (_, _, *lhs_axes), (out_channel, in_channel, *rhs_axes), (_, feature, *out_axes) = geometry.dimensions
    sizes = [
        lhs.shape[a] + low + high - rhs.shape[b] + 1
        for a, b, (low, high) in zip(lhs_axes, rhs_axes, geometry.padding, strict=True)
    ]
    few = min(rhs.shape[out_channel], rhs.shape[in_channel])
    most = 4 if few == 1 else 2 if few <= 8 else 1  # see experiments/benchmarks/convolution.py
    blocks = tuple(math.gcd(most, size) if rhs.shape[axis] > 2 else 1 for size, axis in zip(sizes, rhs_axes))
    plain = geometry.groups == 1 and {*geometry.strides, *geometry.lhs_dilation, *geometry.rhs_dilation} == {1}
    if not plain or set(blocks) == {1}:
        return raw(geometry, lhs, rhs)
    for axis, block in zip(rhs_axes, blocks):
        shifts = [
            [(shift, block - 1 - shift) if a == axis else (0, 0) for a in range(rhs.ndim)] for shift in range(block)
        ]
        rhs = jnp.concatenate([jnp.pad(rhs, ends) for ends in shifts], out_channel)
    out = raw(geometry._replace(strides=blocks), lhs, rhs)
    for axis, block in reversed([*zip(out_axes, blocks)]):  # the last shift is the outermost among the channels
        out = out.reshape(*out.shape[:feature], block, -1, *out.shape[feature + 1 :])
        out = jnp.moveaxis(out, feature, axis + 1)
        out = out.reshape(*out.shape[:axis], -1, *out.shape[axis + 2 :])
    return out


def _replaced(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])
