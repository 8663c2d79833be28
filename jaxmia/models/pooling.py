"""A max-pool whose gradient is fast.

JAX takes the gradient of a max-pool by `select_and_scatter`, which XLA compiles badly, above all on CPU
(`experiments/benchmarks/convolution.py`). Windows that do not overlap need none of it: the forward pass keeps which place
won in each window, the backward pass writes every number to its place at once. Values and gradients are those of
`flax.linen.max_pool` to the last bit.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["max_pool"]


def max_pool(x: Float[Array, "n h w c"], window: tuple[int, int] = (2, 2)) -> Float[Array, "n height width c"]:
    """The largest value of every window, as `nn.max_pool(x, window, strides=window)` gives it.

    Windows do not overlap; rows and columns that fill none are left out. The gradient goes to the first of equal
    values. Forward mode (`jax.jvp`) raises, as it does for every `jax.custom_vjp`.

    Args:
      x: images, channels last.
      window: height and width of a window.
    """
    return _pool(window, x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pool(window: tuple[int, int], x: Array) -> Array:
    return _pool_forward(window, x)[0]


def _pool_forward(window: tuple[int, int], x: Array) -> tuple[Array, tuple[Array, Array]]:
    (rows, columns), (n, h, w, c) = window, x.shape
    cut = x[:, : h - h % rows, : w - w % columns].reshape(n, h // rows, rows, w // columns, columns, c)
    best = cut[:, :, 0, :, 0]
    winner = jnp.zeros(best.shape, jnp.int32)  # which place of its window
    for place in range(1, rows * columns):
        value = cut[:, :, place // columns, :, place % columns]
        winner = jnp.where(value > best, place, winner)
        best = jnp.maximum(best, value)
    return best, (winner, x[:, :, :, :0])  # no numbers, only the shape


def _pool_backward(window: tuple[int, int], residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array]:
    (rows, columns), (winner, shape) = window, residuals
    (n, h, w, _), c = shape.shape, cotangent.shape[-1]
    places = jnp.arange(rows * columns, dtype=jnp.int32).reshape(1, 1, rows, 1, columns, 1)
    there = winner[:, :, None, :, None] == places
    gradient = jnp.where(there, cotangent[:, :, None, :, None], 0.0)
    gradient = gradient.reshape(n, h // rows * rows, w // columns * columns, c)
    return (jnp.pad(gradient, ((0, 0), (0, h % rows), (0, w % columns), (0, 0))),)


_pool.defvjp(_pool_forward, _pool_backward)
