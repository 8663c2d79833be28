"""Shape C: search with queries alone, a population of latents scored by the oracle."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmia.core import Prior, Process, Scalar, info
from jaxmia.recipes.sliced import sliced

__all__ = ["evolve"]


class State(NamedTuple):
    population: Float[Array, "members d"]
    fitness: Float[Array, " members"]  # lower is better
    queries: Int[Array, ""]

    @property
    def loss(self) -> Float[Array, ""]:
        return jnp.min(self.fitness)


def evolve(
    fitness: Callable[[Any, Any, Any], Any],
    prior: Prior,
    *,
    members: int,
    steps: int,
    mutation: Scalar = 0.1,
    budget: int | None = None,
) -> Process:
    """An elitist genetic search over latents: the best half survives; children are uniform crossovers of two random
    survivors plus Gaussian noise of scale `mutation`.

    Args:
      fitness: `(key, candidate, case) -> scalar` from ONE oracle query, lower is better.
      prior: vector latents; its init gives the first population.
      members: population size, even, 4 or more.
      steps: generations.
      mutation: standard deviation of the noise, in latent units.
      budget: most queries per case; the case stops before a generation would exceed it. None is no limit.

    Raises:
      ValueError: for an odd or small population, or a budget below the first population.
    """
    if members < 4 or members % 2:
        raise ValueError(f"members: {members}; legal is an even number, 4 or more")
    if budget is not None and budget < members:
        raise ValueError(f"budget: {budget}; legal is at least the first population, {members}")
    half = members // 2

    def judge(key: Any, population: Any, case: Any) -> Any:
        keys = jax.random.split(key, population.shape[0])
        return sliced(lambda k, z: fitness(k, prior.decode(z), case), keys, population)

    def init(key: Any, case: Any) -> State:
        start, ask = jax.random.split(key)
        population = jax.vmap(prior.init)(jax.random.split(start, members))
        return State(population, judge(ask, population, case), jnp.asarray(members, jnp.int32))

    def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
        parents, mask, noise, ask = jax.random.split(key, 4)
        order = jnp.argsort(state.fitness)[:half]
        survivors = state.population[order]
        pair = survivors[jax.random.randint(parents, (2, half), 0, half)]
        child = jnp.where(jax.random.bernoulli(mask, 0.5, pair[0].shape), pair[0], pair[1])
        child = jax.vmap(prior.project)(child + mutation * jax.random.normal(noise, child.shape))
        new = State(
            jnp.concatenate([survivors, child]),
            jnp.concatenate([state.fitness[order], judge(ask, child, case)]),
            state.queries + half,
        )
        done = jnp.asarray(False) if budget is None else new.queries + half > budget
        return new, info(new.loss, queries=new.queries, done=done)

    def read(state: State) -> Any:
        return prior.decode(state.population[jnp.argmin(state.fitness)])

    return Process(init, step, read, steps)
