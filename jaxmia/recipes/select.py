"""Combinators that run a process several times for one case and keep one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmia.core import Process

__all__ = ["best_of"]


def best_of(process: Process, restarts: int, rank: Callable[[Any], Any] = lambda state: state.loss) -> Process:
    """`restarts` independent runs of `process` side by side for every case; the one of least `rank` is read out.

    Args:
      process: what to repeat; run i gets `fold_in(key, i)`.
      restarts: how many.
      rank: `state -> scalar`, lower is better; by default the state's `loss`.

    The info is that of the best run, with the queries of all runs; the case is done when all its runs are. A run that
    goes non-finite freezes the case: give the inner process a guard if it may.

    Raises:
      ValueError: for fewer than one restart.
    """
    if restarts < 1:
        raise ValueError(f"restarts: {restarts}; legal is 1 or more")

    def keys(key: Any) -> Any:
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(restarts))

    def best(states: Any) -> Any:
        return jnp.argmin(jax.vmap(rank)(states))

    def step(key: Any, states: Any, case: Any) -> Any:
        states, told = jax.vmap(process.step, in_axes=(0, 0, None))(keys(key), states, case)
        chosen = jax.tree.map(lambda leaf: leaf[best(states)], told)
        return states, chosen._replace(queries=jnp.sum(told.queries), done=jnp.all(told.done))

    def read(states: Any) -> Any:
        return process.read(jax.tree.map(lambda leaf: leaf[best(states)], states))

    return Process(
        lambda key, case: jax.vmap(process.init, in_axes=(0, None))(keys(key), case), step, read, process.steps
    )
