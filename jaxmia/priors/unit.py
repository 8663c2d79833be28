"""What is taken for images: numbers in [0, 1]."""

from typing import Any

import numpy as np
from jax.core import Tracer

__all__ = ["check_images"]


def check_images(name: str, images: Any) -> None:
    """Refuse images outside of [0, 1], such as bytes or standardized ones, of which clipping would leave two colors.

    Args:
      name: of the argument.
      images: array `[n, ...]`; one that is traced is not looked at.

    Raises:
      ValueError: naming the argument and the range of its numbers.
    """
    if isinstance(images, Tracer) or not np.size(images):
        return
    known = np.asarray(images)  # not JAX's: where a factory is traced, its numbers would be none yet
    low, high = float(known.min()), float(known.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN fails as well
        raise ValueError(f"{name}: images from {low:g} to {high:g}; legal is 0 to 1 (bytes are divided by 255)")
