"""Combinators that run a process several times for one case and keep one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmia.core import Process
from jaxmia.recipes.sliced import sliced

__all__ = ["best_of", "selected"]


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
        states, told = sliced(lambda key, state: process.step(key, state, case), keys(key), states)
        chosen = jax.tree.map(lambda leaf: leaf[best(states)], told)
        return states, chosen._replace(queries=jnp.sum(told.queries), done=jnp.all(told.done))

    def read(states: Any) -> Any:
        return process.read(jax.tree.map(lambda leaf: leaf[best(states)], states))

    def init(key: Any, case: Any) -> Any:
        return sliced(lambda key: process.init(key, case), keys(key))

    return process._replace(
        init=init,
        step=step,
        read=read,
        asked=lambda states: jnp.sum(jax.vmap(lambda state: jnp.asarray(process.asked(state)))(states)),
    )


class Selected(NamedTuple):
    runs: Any  # states of the inner process, with a leading axis
    case: Any


def selected(
    process: Process,
    *,
    pool: int,
    starts: int,
    first: Callable[[Any, Any], Any],
    last: Callable[[Any, Any], Any],
) -> Process:
    """Initial and final selection, as in PPA (Struppek et al., ICML 2022, sections 3.2 and 3.4).

    `pool` starting states are drawn for every case, the `starts` best of them run side by side, one is read out.

    Args:
      process: what to run; start i is drawn with `fold_in(key, i)`, and asks nothing.
      pool: how many starting states.
      starts: how many of them run.
      first: `(state, case) -> scalar` of a starting state, lower is better.
      last: `(state, case) -> scalar` of a state that is read, lower is better.

    The info is that of the run of least loss, with the queries of all runs; done when all are.

    Raises:
      ValueError: unless 1 <= starts <= pool.
    """
    if not 1 <= starts <= pool:
        raise ValueError(f"starts: {starts}; legal is 1 to pool, {pool}")

    def keys(key: Any, number: int) -> Any:
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number))

    def init(key: Any, case: Any) -> Selected:
        drawn = keys(key, pool)
        _, rows = jax.lax.top_k(-sliced(lambda key: first(process.init(key, case), case), drawn), starts)
        # Those that run are made once more, since states of a whole pool may be larger than all that is done with them.
        states = sliced(lambda key: process.init(key, case), drawn[rows])
        return Selected(states, jax.tree.map(jnp.asarray, case))

    def step(key: Any, state: Selected, case: Any) -> Any:
        runs, told = sliced(lambda key, run: process.step(key, run, case), keys(key, starts), state.runs)
        chosen = jax.tree.map(lambda leaf: leaf[jnp.argmin(told.loss)], told)
        told = chosen._replace(queries=jnp.sum(told.queries), done=jnp.all(told.done))
        return Selected(runs, state.case), told

    def read(state: Selected) -> Any:
        best = jnp.argmin(sliced(lambda run: last(run, state.case), state.runs))
        return process.read(jax.tree.map(lambda leaf: leaf[best], state.runs))

    return Process(init, step, read, process.steps)
