"""Who draws a defense's noise: the target, from a secret and from what it is asked."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["noise_key"]


def noise_key(secret: int, query: Any, grid: int | None = 255) -> Any:
    """The key of a defense for one query: equal for equal queries, independent for unequal ones.

    It is fold_in(fold_in(key(secret), h_1), h_2), where h_k = mix(sum_i (2 a_ki + 1) w_i mod 2^32) are two hashes of the
    query's numbers w_i, a_k vectors of random uint32 drawn from the secret, and mix is murmur3's 32-bit finalizer. The
    sums are exact, so that a query has the same key alone, in any batch and on any device.

    Args:
      secret: 0 to 2^32 - 1.
      query: pytree of arrays of floats, integers or booleans.
      grid: floats count as round(grid * x), so that what differs by less than a gray level is the same query; None
        takes the bits of float32(x), with -0 as 0. Integers and booleans count as they are.
    """
    words = [_words(jnp.asarray(leaf), grid) for leaf in jax.tree.leaves(query)]
    root, hashes = _root(secret, sum(math.prod(word.shape) for word in words))
    flat = jnp.concatenate([word.reshape(-1) for word in words])
    for multipliers in hashes:
        mixed = _mix(jnp.sum((2 * multipliers + 1) * flat, dtype=jnp.uint32))
        root = jax.random.fold_in(root, mixed)
    return root


@functools.lru_cache(maxsize=64)
def _root(secret: int, size: int) -> tuple[Any, tuple[Any, Any]]:
    """key(secret), of the generator whose numbers no vmap changes, and a_1, a_2, `[size]` each."""
    with jax.ensure_compile_time_eval():  # constants, even when asked for inside of a program
        key = jax.random.key(np.uint32(secret), impl="threefry2x32")
        first, second = jax.random.split(key)
        return key, (jax.random.bits(first, (size,), jnp.uint32), jax.random.bits(second, (size,), jnp.uint32))


def _words(leaf: Any, grid: int | None) -> Any:
    """Numbers as uint32."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(leaf.astype(jnp.int32), jnp.uint32)
    x = leaf.astype(jnp.float32)
    if grid is None:
        return jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    steps = jnp.clip(jnp.round(grid * x), -(2.0**31), 2.0**31 - 128)  # the largest float32 that is an int32
    return jax.lax.bitcast_convert_type(steps.astype(jnp.int32), jnp.uint32)


def _mix(h: Any) -> Any:
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
