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
      module: a Linen module `(observations [n, ...], train) -> guesses [n, ...]`.
      observe: `(key, x) -> observation` of ONE public example: what the adversary would see of it.
      optimizer: any optax transformation.
      steps: minibatches.
      loss: `(guesses, truths) -> scalar` of a batch; mean squared error by default.

    The minibatch is a dict with "x", `[n, ...]`. Every example of a minibatch is one query; the start asks nothing.
    """

    def look(key: Any, batch: Any) -> Any:
        return jax.vmap(observe)(jax.random.split(key, batch["x"].shape[0]), batch["x"])

    def init(key: Any, batch: Any) -> Any:
        start, ask = jax.random.split(key)
        blank = jax.tree.map(lambda seen: jnp.zeros(seen.shape, seen.dtype), jax.eval_shape(look, ask, batch))
        variables = module.init(start, blank, train=False)
        return variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32)

    def step(key: Any, state: Any, batch: Any) -> Any:
        variables, opt, queries = state
        queries += batch["x"].shape[0]
        seen = jax.lax.stop_gradient(look(key, batch))

        def error(params: Any) -> Any:
            guess, changed = module.apply({**variables, "params": params}, seen, train=True, mutable=["batch_stats"])
            return loss(guess, batch["x"]), changed

        (value, changed), gradient = jax.value_and_grad(error, has_aux=True)(variables["params"])
        updates, opt = optimizer.update(gradient, opt, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return ({**variables, **changed, "params": params}, opt, queries), info(value, queries=queries)

    return Process(init, step, lambda state: state[0], steps)
