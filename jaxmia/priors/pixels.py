"""Pixels in a box, with nothing or smoothness believed about them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar

__all__ = ["pixels", "total_variation"]


def total_variation(image: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Anisotropic total variation: the sum of absolute differences of neighboring pixels.

    >>> float(total_variation(jnp.eye(2)[..., None]))
    4.0
    """
    return jnp.sum(jnp.abs(jnp.diff(image, axis=0))) + jnp.sum(jnp.abs(jnp.diff(image, axis=1)))


def pixels(
    shape: tuple[int, ...], *, start: str = "zeros", low: Scalar = 0.0, high: Scalar = 1.0, smoothness: Scalar = 0.0
) -> Prior:
    """The candidate itself is optimized, clipped to `[low, high]`.

    Args:
      shape: of one candidate: `(h, w, c)` for an image, `(d,)` for a record.
      start: "zeros" (Fredrikson 2015), "gray" (the middle of the box) or "uniform" noise.
      low: least value.
      high: largest value.
      smoothness: weight of the total variation; needs an image shape when not zero.

    Raises:
      ValueError: for an unknown start or an empty box.
    """
    starts = {
        "zeros": lambda key: jnp.zeros(shape),
        "gray": lambda key: jnp.full(shape, (low + high) / 2),
        "uniform": lambda key: jax.random.uniform(key, shape, minval=low, maxval=high),
    }
    if start not in starts:
        raise ValueError(f"start: {start!r}; legal is one of {', '.join(starts)}")
    if not isinstance(low, jax.Array) and not isinstance(high, jax.Array) and not low < high:
        raise ValueError(f"low, high: {low}, {high}; legal is low < high")
    if len(shape) == 3:
        penalty = lambda latent, candidate: smoothness * total_variation(candidate)  # noqa: E731
    else:
        penalty = lambda latent, candidate: jnp.zeros(())  # noqa: E731
    return Prior(starts[start], lambda latent: latent, penalty, lambda latent: jnp.clip(latent, low, high))
