"""A sweep of numbers as one process: every case brings its own hyperparameters, or decides by itself."""

from collections.abc import Callable
from typing import Any

from jaxmia.core import Process

__all__ = ["casewise", "swept"]


def swept(make: Callable[[Any], Process], steps: int) -> Process:
    """The process `make(settings)`, where settings come with the case, so that one program runs them all.

    A case is `(settings, case)`: a tree of scalars, traced when `make` sees them, and what a case of the process is
    without a sweep. The settings lie in the state, since what is read out may depend on them. Give the cases of every
    setting the same `ids` and each draws the random numbers that it would draw alone.

    Args:
      make: settings -> process, whose step count and shapes do not depend on them.
      steps: the budget, the same for all.

    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from jaxmia import Process, info, solve
    >>> def halving(rate):
    ...     step = lambda key, x, case: (x - rate * (x - case), info(0.0))
    ...     return Process(lambda key, case: jnp.zeros(()), step, lambda x: x)
    >>> cases = (np.array([0.5, 1.0], np.float32), np.array([8.0, 8.0], np.float32))
    >>> solve(swept(halving, steps=2), jax.random.key(0), cases, ids=[0, 0]).output.tolist()
    [6.0, 8.0]
    """

    def init(key: Any, data: Any) -> Any:
        settings, case = data
        return settings, make(settings).init(key, case)

    def step(key: Any, state: Any, data: Any) -> Any:
        settings, case = data
        inner, told = make(settings).step(key, state[1], case)
        return (settings, inner), told

    def read(state: Any) -> Any:
        settings, inner = state
        return make(settings).read(inner)

    def asked(state: Any) -> Any:
        settings, inner = state
        return make(settings).asked(inner)

    return Process(init, step, read, steps, asked)


def casewise(make: Callable[[Any], Process], steps: int) -> Process:
    """The process `make(case)` of every case, where what is read out depends on the case, which lies in the state.

    Args:
      make: case (traced) -> process, whose step count and shapes do not depend on it.
      steps: the budget.
    """
    inner = swept(make, steps)
    return inner._replace(
        init=lambda key, case: inner.init(key, (case, case)),
        step=lambda key, state, case: inner.step(key, state, (case, case)),
    )
