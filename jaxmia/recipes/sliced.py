"""What an attack does side by side for one case, in slices that bound its memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Literal, jaxpr_as_fun

__all__ = ["SLICE_BYTES", "sliced"]

SLICE_BYTES = 2**30
"""What one slice of one case may hold beside its inputs. The engine chooses how many cases run at once by what a program
of them needs in all, so this need not know the device; that it is the same on all keeps a run resumable on another."""


def sliced(fn: Callable[..., Any], *arguments: Any, gradient: bool = False) -> Any:
    """`jax.vmap(fn)(*arguments)`, in slices one after another where all at once would hold more than `SLICE_BYTES`.

    How many elements a slice has follows from the shapes that `fn` computes with, so that a small count stays one slice,
    without a loop. Results differ from those of `vmap` by rounding at most.

    Args:
      fn: of one element; traced once.
      *arguments: trees whose leaves have one leading axis, `[n, ...]`, n 0 or more.
      gradient: whether the result is differentiated. Then what a slice holds is all that its derivative needs, and a slice
        is computed once more on the way back, so that no more than one is held there either.

    >>> sliced(lambda x: x + 1, jax.numpy.arange(3)).tolist()
    [1, 2, 3]
    """
    leaves = jax.tree.leaves(arguments)
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), arguments)
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*example)
    structure, n = jax.tree.structure(shapes), leaves[0].shape[0]

    def each(*flat: Any) -> Any:
        return jax.tree.unflatten(structure, jaxpr_as_fun(closed)(*flat))

    size = _even(max(1, n), max(1, SLICE_BYTES // max(1, (_kept if gradient else _peak)(closed.jaxpr))))
    if size >= n:
        return jax.vmap(each)(*leaves)
    with jax.named_scope("sliced"):  # by this name the loop is known in a trace
        return jax.lax.map(lambda flat: jax.checkpoint(each)(*flat), leaves, batch_size=size)


def _even(n: int, most: int) -> int:
    """At most `most` elements for as few slices as possible, equal ones where that costs few more: two sizes are two
    programs to compile.

    >>> _even(100, 40), _even(51, 20), _even(7, 9)
    (25, 17, 7)
    """
    size = -(-n // -(-n // most))
    return next((able for able in range(size, size // 2, -1) if n % able == 0), size)


def _bytes(variables: Any) -> int:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables if hasattr(v.aval, "shape"))


def _inner(equation: Any) -> Iterator[Any]:
    """The programs that an equation calls: bodies of loops, branches, functions."""
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            found = getattr(item, "jaxpr", item)
            if hasattr(found, "eqns"):
                yield found


def _peak(jaxpr: Any) -> int:
    """Most bytes of results that are held at once, where each goes as soon as it has been read for the last time."""
    last = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not isinstance(v, Literal)}
    last |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, Literal)}
    held: dict[Any, int] = {}
    now = most = 0
    for i, eqn in enumerate(jaxpr.eqns):
        made = {v: _bytes([v]) for v in eqn.outvars}
        now += sum(made.values())
        most = max(most, now + max(map(_peak, _inner(eqn)), default=0))
        held |= made
        over = [v for v in {*made, *(v for v in eqn.invars if not isinstance(v, Literal))} if last.get(v, i) == i]
        now -= sum(held.pop(v, 0) for v in over)
    return most


def _kept(jaxpr: Any) -> int:
    """Bytes of all results, as a derivative may need each of them."""
    return sum(_bytes(eqn.outvars) + eqn.params.get("length", 1) * sum(map(_kept, _inner(eqn))) for eqn in jaxpr.eqns)
