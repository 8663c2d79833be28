"""Minibatches as a pure function of the step, which is what makes a resumed training equal an uninterrupted one."""

import functools
import hashlib
import operator
from typing import Any, SupportsIndex

import numpy as np

__all__ = ["minibatches"]


class Minibatches:
    """What `minibatches` returns: `step -> minibatch`.

    Attributes:
      identity: text (64 hex digits) that other arrays, another batch size or another seed change.
    """

    def __init__(self, arrays: Any, batch_size: int, seed: int, rows: int):
        self._arrays, self._size, self._seed, self._rows = arrays, batch_size, seed, rows
        self._current: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __call__(self, step: SupportsIndex) -> Any:
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"step: {step} is out of range, it must be at least 0")
        epoch, position = divmod(step, self._rows // self._size)
        known, order = self._current
        if known != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._rows)
            self._current = (epoch, order)
        return _gather(self._arrays, order[position * self._size : (position + 1) * self._size])

    @functools.cached_property
    def identity(self) -> str:
        sha = hashlib.sha256(f"minibatches of {self._size}, seed {self._seed}".encode())
        for path, leaf in _leaves(self._arrays, ""):
            sha.update(f"{path}{leaf.shape}{leaf.dtype}".encode())
            sha.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        return sha.hexdigest()


def minibatches(arrays: Any, batch_size: int, seed: int) -> Minibatches:
    """`step -> minibatch`: the same step gives the same minibatch, in any order of calls.

    Every epoch walks through all rows once in an order of its own, drawn from (seed, epoch). What is left at
    the end of an epoch and does not fill a minibatch is dropped; another epoch drops other rows.

    Args:
      arrays: an array, or tuples, named tuples, lists and dicts of arrays that share their first axis.
        Memmaps work: only the rows of the minibatch are read.
      batch_size: rows per minibatch, 1 to the number of rows.
      seed: of the orders, at least 0.

    Raises:
      ValueError: batch size or seed out of range, lengths that differ, or something in `arrays` that is no
        array.

    >>> batch = minibatches({"x": np.arange(6), "y": np.arange(6) * 10}, batch_size=2, seed=0)
    >>> sorted(np.concatenate([batch(step)["x"] for step in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    >>> bool((batch(1)["y"] == batch(1)["x"] * 10).all())
    True
    """
    lengths = {path: len(leaf) for path, leaf in _leaves(arrays, "arrays")}
    if not lengths:
        raise ValueError("arrays: holds no array")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays: first axes differ: {', '.join(f'{path} {n}' for path, n in lengths.items())}")
    rows = next(iter(lengths.values()))
    if not 1 <= batch_size <= rows:
        raise ValueError(f"batch_size: {batch_size} is out of range, it must be 1 to {rows}, the number of rows")
    if seed < 0:
        raise ValueError(f"seed: {seed} is out of range, it must be at least 0")
    return Minibatches(arrays, batch_size, seed, rows)


def _children(tree: Any) -> list[tuple[Any, Any]] | None:
    """(key, child) pairs of a container, None for a leaf."""
    if isinstance(tree, dict):
        return list(tree.items())
    if isinstance(tree, tuple | list):
        return list(enumerate(tree))
    return None


def _leaves(tree: Any, path: str) -> list[tuple[str, np.ndarray]]:
    children = _children(tree)
    if children is not None:
        return [leaf for key, child in children for leaf in _leaves(child, f"{path}[{key!r}]")]
    if not isinstance(tree, np.ndarray) or tree.ndim == 0:
        raise ValueError(f"{path}: is a {type(tree).__name__}, must be a numpy array with at least one axis")
    return [(path, tree)]


def _gather(tree: Any, rows: np.ndarray) -> Any:
    children = _children(tree)
    if children is None:
        return np.asarray(tree[rows])
    values = [_gather(child, rows) for _, child in children]
    if isinstance(tree, dict):
        return dict(zip(tree, values, strict=True))
    return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
