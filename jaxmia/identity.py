"""What makes a run the same run: the programs it computes, every number they are fed, the versions that run them.

An identity is an object of texts that a folder keeps beside its results. Whoever finds the same one may use them;
where one differs, `differing` says in which part. It knows nothing of a plan: programs are traced for one case.
"""

import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

__all__ = ["VERSIONED", "Identity", "check_stable", "differing", "digest", "equations", "identify", "versions"]

Identity = dict[str, str]

VERSIONED = ("jaxmia", "jax", "jaxlib", "flax", "optax")
"""Packages of which another version may compute another result."""


@functools.cache
def versions() -> dict[str, str]:
    """The installed version of each package of `VERSIONED`."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def identify(programs: Sequence[ClosedJaxpr], **inputs: Any) -> Identity:
    """The identity of a run.

    Args:
      programs: what it computes, traced for one case: all parameters of all operations count, and all constants.
      inputs: trees of arrays, texts and numbers that the programs are fed, by the name that `differing` calls them.

    Raises:
      ValueError: if a program calls a function on the host that has no attribute `identity`.
    """
    walk = _Walk()
    texts = {"program": walk.value(tuple(programs)).hex()}
    if walk.unnamed:
        raise ValueError(
            f"folder: the program asks a host function, {walk.unnamed[0]}, and nothing tells whether it is the same when "
            "the run is resumed; give `from_callable(..., identity=...)` a text that names model and version, or no folder"
        )
    for name, value in inputs.items():
        leaves = jax.tree_util.tree_leaves_with_path(value)
        texts[name] = walk.value([(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]).hex()
    partitionable = getattr(jax.config, "jax_threefry_partitionable", None)  # other random numbers
    settings = "" if partitionable in (True, None) else ", jax_threefry_partitionable off"
    return {**texts, "versions": ", ".join(f"{name} {version}" for name, version in versions().items()) + settings}


def differing(found: Any, wanted: Identity) -> str:
    """In words, what two identities differ in.

    >>> differing({"program": "ab", "key": "0"}, {"program": "ab", "key": "1"})
    'another key'
    """
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        return "other inputs, settings or code"
    parts = [name for name in wanted if found[name] != wanted[name]]
    if "versions" in parts:  # they may change the program too, and are the reason then
        return f"made with {found['versions']}, where this is {wanted['versions']}"
    return ", ".join(f"another {part}" for part in parts)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of arrays, texts and numbers in dicts, lists and tuples."""
    return _Walk().value(value).hex()


def equations(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """All operations of a traced program, those inside others too."""
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        for inner in _jaxprs(tuple(equation.params.values())):
            found += equations(inner)
    return found


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr | Jaxpr):
        return [value.jaxpr if isinstance(value, ClosedJaxpr) else value]
    return [jaxpr for item in value for jaxpr in _jaxprs(item)] if isinstance(value, tuple | list) else []


def check_stable(before: Any, after: Any) -> None:
    """Raise ValueError unless a step keeps the structure, shapes and dtypes of its state."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            f"process.step: state structure {jax.tree.structure(before)} became {jax.tree.structure(after)}"
        )
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after)):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"process.step: state{jax.tree_util.keystr(path)} was {old.dtype}{old.shape}, "
                f"became {new.dtype}{new.shape}; a step keeps shapes and dtypes"
            )


class _Walk:
    """sha256 of values of any kind, each inside the next; equal in every process that runs the same code.

    Attributes:
      unnamed: host functions met on the way that nothing identifies.
    """

    def __init__(self) -> None:
        self.unnamed: list[str] = []
        self._known: dict[int, tuple[Any, bytes]] = {}  # by address, with the object itself, so that it stays taken

    def value(self, value: Any) -> bytes:
        if isinstance(value, ClosedJaxpr):
            return self._once(value, lambda: self._jaxpr(value.jaxpr, value.consts))
        if isinstance(value, Jaxpr):
            return self._once(value, lambda: self._jaxpr(value, None))
        if isinstance(value, jax.Array | np.ndarray):
            return self._once(value, lambda: _array(value))
        if isinstance(value, np.generic):  # an axis may be a number of numpy's or of Python's
            value = value.item()
        if isinstance(value, enum.Enum):
            return _sha("enum", _name(type(value)), value.name)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return _sha(type(value).__name__, repr(value))
        if isinstance(value, np.dtype):
            return _sha("dtype", str(value))
        if isinstance(value, Mapping):
            items = sorted((self.value(key), self.value(item)) for key, item in value.items())
            return _sha("mapping", *(part for item in items for part in item))
        if isinstance(value, set | frozenset):
            return _sha("set", *sorted(map(self.value, value)))
        if isinstance(value, tuple | list):
            return _sha("sequence", *map(self.value, value))
        if isinstance(value, functools.partial):
            return _sha("partial", *map(self.value, (value.func, value.args, value.keywords)))
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return _aval(value)
        if isinstance(value, jax.tree_util.PyTreeDef):
            return _sha("tree", *map(self.value, (value.node_data(), value.children())))
        if isinstance(value, _LAYOUTS):
            return _sha("layout", _name(type(value)))  # where numbers lie, not which they are
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
            return _sha("record", _name(type(value)), *map(self.value, parts))
        if callable(value) or hasattr(value, "call_wrapped"):
            return _sha("callable", _name(value))  # what it computes is traced where it is called
        words = repr(value)
        return _sha("other", _name(type(value)), "" if re.search("0x[0-9a-f]{6,}", words) else words)

    def _once(self, value: Any, make: Any) -> bytes:
        if id(value) not in self._known:
            self._known[id(value)] = value, make()
        return self._known[id(value)][1]

    def _jaxpr(self, jaxpr: Jaxpr, constants: Sequence[Any] | None) -> bytes:
        """Variables count by where they are made, constants by what they hold, however often they were closed over."""
        names: dict[Any, bytes] = {}
        numbers = itertools.count()

        def bind(variables: Sequence[Any]) -> bytes:
            for variable in variables:
                names[variable] = str(next(numbers)).encode()
            return _sha(*(_aval(variable.aval) for variable in variables))

        def use(atoms: Sequence[Any]) -> bytes:
            return _sha(
                *(_array(a.val, getattr(a.aval, "dtype", None)) if isinstance(a, Literal) else names[a] for a in atoms)
            )

        inputs = bind(jaxpr.invars)
        if constants is None:
            inputs += bind(jaxpr.constvars)
        else:
            for variable, constant in zip(jaxpr.constvars, constants):
                names[variable] = self._once(constant, lambda constant=constant: _array(constant))
        done = []
        for equation in jaxpr.eqns:
            used, name = use(equation.invars), equation.primitive.name
            settings = (self._setting(name, key, equation.params[key]) for key in sorted(equation.params))
            done.append(_sha(name, used, *settings, bind(equation.outvars)))
        return _sha("program", inputs, *done, use(jaxpr.outvars))

    def _setting(self, primitive: str, key: str, value: Any) -> bytes:
        if primitive in ("pure_callback", "io_callback") and key == "callback":
            function = getattr(value, "callback_func", value)
            identity = getattr(function, "identity", None)
            while isinstance(function, functools.partial):
                function = function.func
                identity = getattr(function, "identity", identity)
            if identity is None and not _name(function).startswith("jax."):
                self.unnamed.append(_name(function))
            return _sha(key, "host", _name(function), str(identity))
        return _sha(key, self.value(value))


_LAYOUTS = (jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.AbstractMesh)


def _sha(*parts: Any) -> bytes:
    """Of texts, bytes and arrays of bytes, each with its length before it."""
    sha = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.digest()


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _aval(aval: Any) -> bytes:
    if not hasattr(aval, "shape"):  # of a reference or a token
        inner = getattr(aval, "inner_aval", None)
        return _sha("aval", type(aval).__name__, b"" if inner is None else _aval(inner))
    return _sha("aval", str(aval.dtype), str(tuple(aval.shape)), str(getattr(aval, "weak_type", False)))


def _array(value: Any, dtype: Any = None) -> bytes:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return _sha("key", str(jax.random.key_impl(value)), _array(jax.random.key_data(value)))
    array = np.asarray(value, dtype)
    return _sha("array", str(array.dtype), str(array.shape), np.ascontiguousarray(array).reshape(-1).view(np.uint8))
