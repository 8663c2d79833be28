"""A process: descent on a loss of any tree, from where it is told to begin."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Process, info

__all__ = ["minimize"]


def minimize(
    start: Any, loss: Callable[[Any, Any, Any], Any], optimizer: optax.GradientTransformation, steps: int
) -> Process:
    """min over x of `loss(key, share, x)`, share being that of the steps taken so far, in [0, 1); reads out x.

    Args:
      start: x at the beginning, a tree of floats.
      loss: to a scalar. Case or minibatch are not looked at.
      optimizer: any optax transformation.
      steps: the budget.

    >>> from jaxmia import fit
    >>> process = minimize(jnp.zeros(2), lambda key, share, x: jnp.sum((x - 3) ** 2), optax.sgd(0.5), 1)
    >>> fit(process, jax.random.key(0), lambda step: None)[0].tolist()
    [3.0, 3.0]
    """

    def init(key: Any, case: Any) -> Any:
        return start, optimizer.init(start), jnp.zeros((), jnp.int32)

    def step(key: Any, state: Any, case: Any) -> Any:
        x, opt, count = state
        value, gradient = jax.value_and_grad(lambda x: loss(key, count / steps, x))(x)
        updates, opt = optimizer.update(gradient, opt, x)
        return (optax.apply_updates(x, updates), opt, count + 1), info(value)

    return Process(init, step, lambda state: state[0], steps)
