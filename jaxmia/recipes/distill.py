"""Teach a network what another one answers, on public examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Process, info

__all__ = ["distill"]


def distill(
    module: Any, teach: Callable[[Any, Any], Any], optimizer: optax.GradientTransformation, *, steps: int
) -> Process:
    """A training stage: fit `softmax module(x) ~ teach(x)` by mean KL(teach(x), softmax module(x)); reads out variables.

    Args:
      module: a Linen module `(x [n, ...], train) -> logits [n, classes]`.
      teach: `(key, x) -> probabilities [classes]` of ONE public example. All of a minibatch are asked with one key.
      optimizer: any optax transformation.
      steps: minibatches.

    The minibatch is a dict with "x", `[n, ...]`. Every example of a minibatch is one query; the start asks nothing.
    """

    def init(key: Any, batch: Any) -> Any:
        variables = module.init({"params": key, "dropout": key}, batch["x"][:1], train=False)
        return variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32)

    def step(key: Any, state: Any, batch: Any) -> Any:
        variables, opt, queries = state
        queries += batch["x"].shape[0]
        taught = jax.vmap(lambda x: teach(key, x))(batch["x"])

        def divergence(params: Any) -> Any:
            logits, changed = module.apply(
                {**variables, "params": params}, batch["x"], train=True, rngs={"dropout": key}, mutable=["batch_stats"]
            )
            return optax.losses.kl_divergence(jax.nn.log_softmax(logits), taught).mean(), changed

        (value, changed), gradient = jax.value_and_grad(divergence, has_aux=True)(variables["params"])
        updates, opt = optimizer.update(gradient, opt, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return ({**variables, **changed, "params": params}, opt, queries), info(value, queries=queries)

    return Process(init, step, lambda state: state[0], steps)
