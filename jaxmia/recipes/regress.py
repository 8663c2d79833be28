"""Shape B: train an inverse network on public pairs, then decode what was observed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Process, info

__all__ = ["regress"]


def regress(
    module: Any,
    observe: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    loss: Callable[[Any, Any], Any] = lambda guess, truth: jnp.mean((guess - truth) ** 2),
) -> Process:
    """A training stage: fit `module(observe(x)) ~ x` on public minibatches; reads out the trained variables.

    Args:
      module: a Linen module without batch statistics, from a batch of observations to a batch of guesses.
      observe: `(key, x) -> observation` of ONE public example: what the adversary would see of it.
      optimizer: any optax transformation.
      steps: minibatches.
      loss: `(guesses, truths) -> scalar` of a batch; mean squared error by default.

    The minibatch is a dict with "x", `[n, ...]`.
    """

    def look(key: Any, batch: Any) -> Any:
        return jax.vmap(observe)(jax.random.split(key, batch["x"].shape[0]), batch["x"])

    def init(key: Any, batch: Any) -> Any:
        start, ask = jax.random.split(key)
        variables = module.init(start, look(ask, batch))
        return variables, optimizer.init(variables)

    def step(key: Any, state: Any, batch: Any) -> Any:
        variables, opt = state
        seen = jax.lax.stop_gradient(look(key, batch))
        value, gradient = jax.value_and_grad(lambda v: loss(module.apply(v, seen), batch["x"]))(variables)
        updates, opt = optimizer.update(gradient, opt, variables)
        return (optax.apply_updates(variables, updates), opt), info(value)

    return Process(init, step, lambda state: state[0], steps)
