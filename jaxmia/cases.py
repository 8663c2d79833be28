"""What a caller hands over as cases, as arrays, or refused in a sentence before anything runs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["as_arrays", "check_labels", "count"]


def as_arrays(cases: Any) -> Any:
    """The same tree with a numpy array for every leaf; a list or tuple of numbers is one array.

    >>> as_arrays({"record": [[1, 2], [3, 4]], "label": (0, 1)})["record"].shape
    (2, 2)

    Raises:
      ValueError: for what holds no numbers (names of classes, say), or numbers that 32 bits do not hold.
    """
    if isinstance(cases, dict):
        return {name: as_arrays(value) for name, value in cases.items()}
    if isinstance(cases, list | tuple):
        if all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(cases)):
            return _array(cases)
        parts = [as_arrays(part) for part in cases]
        return type(cases)(*parts) if hasattr(cases, "_fields") else type(cases)(parts)  # type: ignore[call-arg]
    return jax.tree.map(_array, cases)


def _array(given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except Exception as error:  # whatever another library finds wrong with handing over its own
        raise ValueError(
            f"cases: {type(given).__name__} is no array ({error}); legal is numbers, a row a case"
        ) from None
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        first = array.ravel()[0] if array.size else array.dtype
        raise ValueError(f"cases: {first!r}; legal is numbers, and for a class its index")
    kept = array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
    if jnp.issubdtype(array.dtype, jnp.integer) and not np.array_equal(kept, array):
        raise ValueError(f"cases: {array[kept != array][0]}; legal is numbers of {kept.itemsize * 8} bits")
    return kept


def count(cases: Any) -> int:
    """How many cases there are.

    Raises:
      ValueError: for none, or leaves of unequal length.
    """
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(cases)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"cases: leaves have leading axes {sorted(lengths)}; legal is one length for all")
    (n,) = lengths.pop()
    if n == 0:
        raise ValueError("cases: there are none; give at least one case")
    return n


def check_labels(cases: Any, observes: str, classes: int | None) -> None:
    """Refuse what are no labels, where an attack observes them.

    Args:
      cases: arrays.
      observes: "label", a class index a case; "labels", a batch of them a case; "" where nobody said: then one integer a
        case is a label. Anything else is not looked at.
      classes: of the target; None where there is none.

    Raises:
      ValueError: for another shape or type, a class that the target does not have, or a target of one class.
    """
    array = cases if isinstance(cases, np.ndarray) else None
    if observes == "" and (array is None or array.ndim != 1 or not jnp.issubdtype(array.dtype, jnp.integer)):
        return
    if observes not in ("", "label", "labels"):
        return
    legal = "a class index a case" if observes != "labels" else "a row of class indices a case"
    if classes is not None:
        legal += f", 0 to {classes - 1}"
    if array is None:
        raise ValueError(f"cases: {type(cases).__name__}; legal is one array, {legal}")
    if array.ndim != (2 if observes == "labels" else 1):
        raise ValueError(f"cases: shape {array.shape}; legal is {legal}")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"cases: {array.ravel()[0]} ({array.dtype}); legal is {legal}, an integer")
    if classes is None:
        return
    if classes < 2:
        raise ValueError(f"cases: the target has {classes} class, that of every candidate; legal is 2 classes or more")
    wrong = array[(array < 0) | (array >= classes)]
    if wrong.size:  # indexing in a compiled program would take the nearest class and say nothing
        raise ValueError(f"cases: label {wrong[0]}; legal is 0 to {classes - 1}")
