"""A training stage that runs a process of one case for every class, with what earlier ones read out of that class."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmia.core import Cases, Process
from jaxmia.recipes.swept import casewise, swept

__all__ = ["by_class", "of_class"]


def by_class(process: Process, classes: int) -> Cases:
    """The training stage of the cases 0, 1, ..., classes - 1; what they read is stacked, `[classes, ...]`, on the host.

    As many classes at once as a device holds.

    >>> from jaxmia import info
    >>> from jaxmia.engine import learn
    >>> step = lambda key, x, label: (x + label, info(0.0))
    >>> counting = Process(lambda key, label: jnp.zeros(()), step, lambda x: x, 2)
    >>> learn(by_class(counting, 3), jax.random.key(0), None)[0].tolist()
    [0.0, 2.0, 4.0]
    """
    return Cases(process, np.arange(classes, dtype=np.int32))


def of_class(make: Callable[[Any, Any], Process], common: Any, tables: Any = None) -> Process:
    """The process `make(held, class)` of every case, a class, where `held` is `common` or the row of the class in `tables`.

    Tables stay on the host, since those of all classes may be larger than a device; a case gets its row when it begins,
    and keeps it in its state. Where tables are traced they are on the device already.

    Args:
      make: (held, class (traced)) -> process, whose step count and shapes do not depend on them.
      common: what is held where there are no tables; also an example of a row.
      tables: arrays in the structure of `common`, `[classes, ...]`, or None.
    """
    steps = make(common, jnp.zeros((), jnp.int32)).steps
    if tables is None:
        return casewise(lambda label: make(common, label), steps)
    inner, row = swept(lambda held: make(*held), steps), _rows(tables)

    def init(key: Any, label: Any) -> Any:
        return inner.init(key, ((row(label), label), label))

    return Process(init, lambda key, state, label: inner.step(key, state, (state[0], label)), inner.read, steps)


def _rows(tables: Any) -> Callable[[Any], Any]:
    """`class (traced) -> row` of tables."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tables)):
        return lambda label: jax.tree.map(lambda leaf: leaf[label], tables)
    rows, sha = jax.tree.map(np.asarray, tables), hashlib.sha256()
    for leaf in jax.tree.leaves(rows):
        sha.update(np.ascontiguousarray(leaf).tobytes())
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)

    def fetch(label: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[np.asarray(label)], rows)

    fetch.identity = sha.hexdigest()  # type: ignore[attr-defined]  # by which a run in a folder is known again
    return lambda label: jax.pure_callback(fetch, shapes, label, vmap_method="expand_dims")
