"""A training stage: two networks against each other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Process, info

__all__ = ["adversarial"]


def adversarial(
    start: Callable[[Any], tuple[Any, Any]],
    critic_loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    generator_loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    critic_steps: int = 5,
    queries: int = 0,
) -> Process:
    """Per step `critic_steps` updates of the critic, then one of the generator; reads out
    `{"generator": variables, "critic": variables}`. It draws its own data; the minibatch is not looked at.

    Both losses are `(key, generator variables, critic variables) -> (scalar, changed)`, where `changed` holds the new
    "batch_stats" of the network that is updated; each is differentiated by the "params" of that network. So a generator's
    running statistics follow its own updates alone; those of PyTorch also follow what it paints for the critic.

    Args:
      start: `key -> (generator variables, critic variables)`.
      critic_loss: of the critic.
      generator_loss: of the generator.
      optimizer: of both.
      steps: generator updates.
      critic_steps: critic updates before each.
      queries: what the losses of one step ask the target.
    """

    def update(loss: Callable[[Any], Any], variables: Any, opt: Any) -> Any:
        (value, changed), gradient = jax.value_and_grad(
            lambda params: loss({**variables, "params": params}), has_aux=True
        )(variables["params"])
        updates, opt = optimizer.update(gradient, opt, variables["params"])
        return value, {**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}, opt

    def init(key: Any, batch: Any) -> Any:
        del batch
        g, d = start(key)
        return g, d, optimizer.init(g["params"]), optimizer.init(d["params"]), jnp.zeros((), jnp.int32)

    def step(key: Any, state: Any, batch: Any) -> Any:
        del batch
        g, d, g_opt, d_opt, asked = state
        value, (last, *keys) = jnp.zeros(()), jax.random.split(key, critic_steps + 1)
        for one in keys:  # unrolled: convolutions in a loop are slow on CPU
            value, d, d_opt = update(lambda changed, one=one: critic_loss(one, g, changed), d, d_opt)
        painted, g, g_opt = update(lambda changed: generator_loss(last, changed, d), g, g_opt)
        asked += queries
        return (g, d, g_opt, d_opt, asked), info(painted, queries=asked, critic=value)

    return Process(init, step, lambda state: {"generator": state[0], "critic": state[1]}, steps)
