"""Checked conversion of what callers hand to a metric: one-dimensional values, feature matrices, labels.

A metric never skips an element. What is empty, ragged or not finite is refused here, by name and index.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["as_binary", "as_classes", "as_matrix", "as_vector", "require_finite", "require_same_length"]


def require_finite(name: str, values: np.ndarray) -> None:
    """Raises ValueError that names the first bad index and the count, if any element is NaN or infinite."""
    bad = ~np.isfinite(values)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = index[0] if len(index) == 1 else index
        raise ValueError(
            f"{name} has {int(bad.sum())} non-finite values of {values.size}, the first at index {place}: "
            "a metric is computed from finite values only"
        )


def require_same_length(first_name: str, first: np.ndarray, second_name: str, second: np.ndarray) -> None:
    """Raises ValueError if two arrays differ in their leading axis."""
    if len(first) != len(second):
        raise ValueError(f"{first_name} has {len(first)} rows but {second_name} has {len(second)}: they must be equal")


def as_vector(name: str, values: Any) -> Float[np.ndarray, " n"]:
    """A finite, non-empty float64 vector; ValueError otherwise."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} has shape {vector.shape}: a non-empty one-dimensional array is needed")
    require_finite(name, vector)
    return vector


def as_matrix(name: str, values: Any, *, minimum_rows: int = 1) -> Float[np.ndarray, "n d"]:
    """A finite float64 matrix with at least `minimum_rows` rows and one column; ValueError otherwise."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < minimum_rows or matrix.shape[1] < 1:
        raise ValueError(f"{name} has shape {matrix.shape}: [n, d] with n >= {minimum_rows} and d >= 1 is needed")
    require_finite(name, matrix)
    return matrix


def as_classes(name: str, values: Any, count: int | None = None) -> Int[np.ndarray, " n"]:
    """An int64 vector of class (or group) numbers; with `count`, each in [0, count). ValueError otherwise."""
    classes = np.asarray(values)
    if classes.ndim != 1 or classes.size == 0 or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"{name} has shape {classes.shape} and dtype {classes.dtype}: non-empty one-dimensional integers are needed"
        )
    if count is not None and (classes.min() < 0 or classes.max() >= count):
        raise ValueError(f"{name} spans [{classes.min()}, {classes.max()}]: legal classes are 0 to {count - 1}")
    return classes.astype(np.int64)


def as_binary(name: str, values: Any) -> Bool[np.ndarray, " n"]:
    """A bool vector from bools or 0/1 numbers that holds both classes; ValueError otherwise."""
    labels = as_vector(name, values)
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError(f"{name} holds {labels[~np.isin(labels, (0.0, 1.0))][0]}: only 0 and 1 are legal")
    positive = labels == 1.0
    if positive.all() or not positive.any():
        raise ValueError(f"{name} has {int(positive.sum())} positives of {len(positive)}: both classes must be present")
    return positive
