"""Keeping the label of an answer that was changed."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["exchanged"]


def exchanged(changed: Float[Array, "*n c"], clean: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """`changed` with its largest entry moved to where `clean` has its own; these two change places.

    >>> exchanged(jnp.array([0.5, 0.25, 0.125]), jnp.array([0.25, 0.25, 0.5])).tolist()
    [0.125, 0.25, 0.5]
    """
    one = jnp.argmax(changed, -1, keepdims=True)
    other = jnp.argmax(clean, -1, keepdims=True)
    at_one = jnp.take_along_axis(changed, one, -1)
    at_other = jnp.take_along_axis(changed, other, -1)
    index = jnp.arange(changed.shape[-1])
    return jnp.where(index == other, at_one, jnp.where(index == one, at_other, changed))
