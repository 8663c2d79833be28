"""A training stage that runs the process of one case for every class in turn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmia.core import Process, info

__all__ = ["by_class"]


def by_class(make: Callable[[Any], Process], classes: int) -> Process:
    """The training stage that gives the process of class 0 its steps, then that of class 1, and so on; reads out what
    they read, stacked, `[classes, ...]`. It does not look at the minibatch.

    One class at a time, so that no more is held than the largest of them needs.

    Args:
      make: class (traced) -> process whose case is the class; step count and shapes do not depend on it.
      classes: how many.

    >>> import jax, numpy as np
    >>> from jaxmia import fit, info
    >>> def counting(label):
    ...     step = lambda key, x, label: (x + label, info(0.0))
    ...     return Process(lambda key, label: jnp.zeros(()), step, lambda x: x, 2)
    >>> fit(by_class(counting, 3), jax.random.key(0), lambda step: None)[0].tolist()
    [0.0, 2.0, 4.0]
    """
    zero = jnp.zeros((), jnp.int32)
    steps = make(zero).steps

    def init(key: Any, batch: Any) -> Any:
        del batch
        run = jax.eval_shape(make(zero).init, key, zero)  # every class begins in a step
        read = jax.eval_shape(make(zero).read, run)
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), run)
        return zero, zero, blank, jax.tree.map(lambda leaf: jnp.zeros((classes, *leaf.shape), leaf.dtype), read)

    def step(key: Any, state: Any, batch: Any) -> Any:
        del batch
        count, queries, run, read = state
        label = count // steps
        inner, (begin, move) = make(label), jax.random.split(key)
        run = jax.lax.cond(count % steps == 0, lambda: inner.init(begin, label), lambda: run)
        run, told = inner.step(move, run, label)

        def note() -> Any:
            return jax.tree.map(lambda every, one: every.at[label].set(one), read, inner.read(run))

        over, asked = (count + 1) % steps == 0, queries + told.queries
        state = count + 1, jnp.where(over, asked, queries), run, jax.lax.cond(over, note, lambda: read)
        return state, info(told.loss, queries=asked)

    return Process(init, step, lambda state: state[3], classes * steps)
