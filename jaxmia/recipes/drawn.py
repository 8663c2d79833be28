"""A training stage that draws its own minibatches and does not ask the target."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmia.core import Process

__all__ = ["drawn"]


def drawn(process: Process, draw: Callable[[Any], Any]) -> Process:
    """The training stage `process` on the minibatches `draw(key)` instead of public ones; it counts no queries."""

    def init(key: Any, batch: Any) -> Any:
        del batch
        choose, begin = jax.random.split(key)
        return process.init(begin, draw(choose))

    def step(key: Any, state: Any, batch: Any) -> Any:
        del batch
        choose, learn = jax.random.split(key)
        state, told = process.step(learn, state, draw(choose))
        return state, told._replace(queries=jnp.zeros((), jnp.int32))

    return process._replace(init=init, step=step)
