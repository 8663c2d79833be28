"""Arrays out of pickles, read as data: no name in them is looked up, nothing in them is called.

`pickletools.genops` splits a pickle into its operations and executes none. Those that make plain values are followed
here; what a pickle would call becomes a `Made`, a record of the name and the arguments. Only pickles of protocol 2 with
the operations of the Planetoid files are read.
"""

import pickletools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

__all__ = ["Made", "Name", "array", "read", "sparse_rows"]


class Name(str):
    """The name of a class or function, "module name"."""


@dataclass
class Made:
    """What a pickle would make by a call.

    Attributes:
      name: what would be called.
      arguments: of the call.
      state: what the result would be set to; None for nothing.
      items: what would be put into the result by key.
    """

    name: Name
    arguments: tuple
    state: Any = None
    items: dict = field(default_factory=dict)


_VALUES = ("BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING")
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read(data: bytes) -> Any:
    """What is in a pickle: numbers, strings (bytes as latin-1), tuples, lists, dicts, `Name` and `Made`.

    Raises:
      ValueError: for a damaged pickle, and for an operation that is not among those above.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    try:
        for operation, argument, position in pickletools.genops(data):
            name = operation.name
            if name in _VALUES:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name == "GLOBAL":
                stack.append(Name(argument))
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "EMPTY_DICT":
                stack.append({})
            elif name == "MARK":
                marks.append(len(stack))
            elif name == "TUPLE":
                stack.append(tuple(since_mark()))
            elif name in _TUPLES:
                start = len(stack) - _TUPLES[name]
                stack[start:] = [tuple(stack[start:])]
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in ("REDUCE", "NEWOBJ"):
                arguments = stack.pop()
                stack.append(Made(_checked(stack.pop(), Name), _checked(arguments, tuple)))
            elif name == "BUILD":
                state = stack.pop()
                _checked(stack[-1], Made).state = state
            elif name == "APPEND":
                value = stack.pop()
                _checked(stack[-1], list).append(value)
            elif name == "APPENDS":
                values = since_mark()
                _checked(stack[-1], list).extend(values)
            elif name == "SETITEMS":
                items = since_mark()
                held = stack[-1].items if isinstance(stack[-1], Made) else _checked(stack[-1], dict)
                held.update(zip((_checked(key, int | str) for key in items[::2]), items[1::2], strict=True))
            elif name == "STOP":
                return stack.pop()
            elif name != "PROTO":
                raise ValueError(f"operation {name} at byte {position} is none that is read")
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"pickle: cannot be read as data ({error})") from error
    raise ValueError("pickle: has no end")


def array(value: Any, kind: str, dimensions: int) -> Shaped[np.ndarray, "..."]:
    """A numpy array out of what `read` returns.

    Args:
      value: of an array with C order and little-endian numbers.
      kind: of its numbers, such as "i4" or "f4".
      dimensions: how many axes it has.

    Raises:
      ValueError: for anything else, saying what there is.
    """
    made = _made("array", value, "numpy.core.multiarray _reconstruct")
    if not isinstance(made.state, tuple) or len(made.state) != 5:
        raise ValueError("pickle: an array without its numbers")
    _, shape, dtype, fortran, data = made.state
    numbers = _made("dtype", dtype, "numpy dtype")
    found = (numbers.arguments[:1], numbers.state[1:2] if isinstance(numbers.state, tuple) else None, fortran)
    if found != ((kind,), ("<",), False):
        raise ValueError(f"pickle: an array of {found}; legal is {((kind,), ('<',), False)}")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"pickle: an array of shape {shape!r}; legal is a tuple of integers")
    numbers = np.frombuffer(_checked(data, str).encode("latin-1"), f"<{kind}")
    if len(shape) != dimensions or np.prod(shape, dtype=object) != len(numbers):
        raise ValueError(f"pickle: {len(numbers)} numbers for shape {shape}; legal is {dimensions} axes that hold all")
    return numbers.reshape(shape)


def sparse_rows(value: Any) -> Float[np.ndarray, "n d"]:
    """A scipy matrix of compressed rows and float32 numbers, as a dense array.

    Raises:
      ValueError: for anything else, or indices outside of the matrix.
    """
    made = _made("matrix", value, "scipy.sparse.csr csr_matrix")
    parts = made.state if isinstance(made.state, dict) else {}
    shape = parts.get("_shape")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(n) is int and 0 < n < 1 << 16 for n in shape):
        raise ValueError(f"pickle: a matrix of shape {shape!r}; legal is two numbers from 1 to 65,535")
    starts, columns = (array(parts.get(name), "i4", 1) for name in ("indptr", "indices"))
    values, sizes = array(parts.get("data"), "f4", 1), np.diff(starts)
    fits = len(sizes) == shape[0] and starts[0] == 0 and (sizes >= 0).all() and starts[-1] == len(columns)
    if not fits or len(columns) != len(values) or ((columns < 0) | (columns >= shape[1])).any():
        raise ValueError(f"pickle: {len(values)} numbers do not fit into {shape[0]} rows of {shape[1]}")
    dense = np.zeros(shape, np.float32)
    dense[np.repeat(np.arange(shape[0]), sizes), columns] = values
    return dense


def _made(what: str, value: Any, name: str) -> Made:
    if not isinstance(value, Made) or value.name != name:
        found = value.name if isinstance(value, Made) else type(value).__name__
        raise ValueError(f"pickle: {found!r} where {what} is wanted; legal is {name!r}")
    return value


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind} is wanted")
    return value
