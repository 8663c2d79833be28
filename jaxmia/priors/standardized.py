"""Pixels in units of their deviation from a mean, believed to be smooth and small."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar

__all__ = ["mean_square_variation", "standardized"]


def mean_square_variation(image: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Mean squared difference of vertical neighbors plus that of horizontal ones (total variation with beta = 2).

    >>> float(mean_square_variation(jnp.eye(2)[..., None]))
    2.0
    """
    return jnp.mean(jnp.diff(image, axis=0) ** 2) + jnp.mean(jnp.diff(image, axis=1) ** 2)


def standardized(
    shape: tuple[int, int, int],
    *,
    variation: Scalar,
    norm: Scalar = 0.0,
    center: Scalar = 0.0,
    deviation: Scalar = 1.0,
    start: Scalar = 0.0,
) -> Prior:
    """The latent u is the image less `center`, over `deviation`; it is free, so that images may leave [0, 1].

    The penalty is variation * (mean square variation of u) + norm * (mean of u^2), as split inference attacks have it
    (He et al., ACSAC 2019; Erdogan et al., WPES 2022).

    Args:
      shape: (height, width, channels), at least 2 x 2.
      variation: weight of the smoothness.
      norm: weight of the size.
      center: image at u = 0.
      deviation: image units of one unit of u.
      start: u at the start, everywhere.

    Raises:
      ValueError: for a shape without neighbors.
    """
    if min(shape[:2]) < 2:
        raise ValueError(f"shape: {shape}; legal is (height, width, channels), at least 2 x 2 pixels")

    def penalty(u: Any, image: Any) -> Float[Array, ""]:
        del image
        return variation * mean_square_variation(u) + norm * jnp.mean(u**2)

    return Prior(
        lambda key: jnp.full(shape, start, jnp.float32), lambda u: center + deviation * u, penalty, lambda u: u
    )
