"""A training stage: mean and deviation of what is seen on public minibatches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Process, info

__all__ = ["moments"]


class State(NamedTuple):
    count: Float[Array, ""]
    mean: Float[Array, " d"]
    squares: Float[Array, " d"]  # sum of squared deviations from the mean


def moments(observe: Callable[[Any, Any], Float[Array, "n d"]], *, steps: int) -> Process:
    """Reads out `(mean [d], deviation [d])` of all rows of `observe(key, minibatch)`, the population's deviation.

    Minibatches are merged by Chan et al. 1979, eq. 1.5, exact for any sizes.

    Args:
      observe: `(key, minibatch) -> [n, d]`; it may ignore the minibatch and draw.
      steps: minibatches.

    Raises:
      ValueError: for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")

    def init(key: Any, batch: Any) -> State:
        shape = jax.eval_shape(observe, key, batch).shape[1:]
        return State(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))

    def step(key: Any, state: State, batch: Any) -> tuple[State, Any]:
        seen = observe(key, batch)
        n, here = len(seen), jnp.mean(seen, 0)
        count, apart = state.count + n, here - state.mean
        squares = state.squares + jnp.sum((seen - here) ** 2, 0) + apart**2 * state.count * n / count
        return State(count, state.mean + apart * n / count, squares), info(0.0)

    def read(state: State) -> Any:
        return state.mean, jnp.sqrt(state.squares / jnp.maximum(state.count, 1.0))

    return Process(init, step, read, steps)
