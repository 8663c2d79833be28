"""Shape A: optimize a candidate by gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import WORST, Objective, Prior, Process, Scalar, info
from jaxmia.oracle import Weights

__all__ = ["descend"]


class State(NamedTuple):
    latent: Any
    optimizer: Any
    best: Any  # the latent of least total loss so far
    loss: Float[Array, ""]  # its total loss
    identity: Float[Array, ""]  # identity loss at the last step


def descend(
    oracle: Weights,
    objective: Objective,
    prior: Prior,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    weight: Scalar = 1.0,
    keep: str = "best",
) -> Process:
    """min over latents of weight * objective(f(decode(latent)), case) + penalty(latent).

    Every step takes one gradient, one optimizer update and one projection. The process reads out the decoded latent,
    its total loss is what `best_of` compares.

    Args:
      oracle: white-box access.
      objective: L_id of one candidate's logits and the case.
      prior: where the candidate lives.
      optimizer: any optax transformation.
      steps: the budget.
      weight: lambda, of the identity loss.
      keep: "best" reads the latent of least total loss seen, "last" the final one.

    Raises:
      ValueError: for an unknown `keep`.
    """
    if keep not in ("best", "last"):
        raise ValueError(f"keep: {keep!r}; legal is best or last")

    def init(key: Any, case: Any) -> State:
        del case
        latent = prior.project(prior.init(key))
        worst = jnp.asarray(WORST, jnp.float32)
        return State(latent, optimizer.init(latent), latent, worst, worst)

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        def total(latent: Any) -> tuple[Any, Any]:
            candidate = prior.decode(latent)
            identity = objective(oracle.answer(key, candidate), case)
            return weight * identity + prior.penalty(latent, candidate), identity

        (loss, identity), gradient = jax.value_and_grad(total, has_aux=True)(state.latent)
        updates, opt = optimizer.update(gradient, state.optimizer, state.latent)
        latent = prior.project(optax.apply_updates(state.latent, updates))
        better = loss < state.loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.latent, state.best)
        new = State(latent, opt, best, jnp.where(better, loss, state.loss), identity)
        return new, info(loss, identity=identity)

    def read(state: State) -> Any:
        return prior.decode(state.best if keep == "best" else state.latent)

    return Process(init, step, read, steps)
