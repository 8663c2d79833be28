"""MIRROR, black box: a genetic algorithm over latents, started from the best of a pool that was asked once.

An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang, "MIRROR: Model Inversion for Deep Learning Network with High Fidelity", NDSS 2022
(https://github.com/njuaplusplus/mirror), black-box variant. A pool of latents is decoded and shown to the target; every
class starts from its `members` best. A generation keeps the elite and replaces the rest: parents a, b are drawn in
proportion to their fitness f = p_y(G(w)); a gene comes from a with probability f_a / (f_a + f_b), else from b; with
probability `mutation` it moves, in P-space, by a uniform share of the pool's deviation; P-space is clipped to
mean +- `bound` deviations. It ends when the elite's confidence reaches `confident`.

P-space undoes the last activation of a StyleGAN mapping network, p = LeakyReLU_5(w) (`slope`); give 1 for latents that are
Gaussian as they are.

What differs. The released code divides *log*-confidences in the crossover; they are negative, so the worse parent gives
more genes (`crossover="log"`). It also draws one mutation noise for the whole generation; here every child has its own.
The target is asked about the pool once, by a training stage, for all classes; `budget` bounds what a case asks itself.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmia.core import WORST, Attack, Card, Prior, Process, Scalar, info
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import sliced

__all__ = ["CARD", "cross", "mirror_genetic"]

CARD = Card(
    title="MIRROR, genetic",
    paper="An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang. MIRROR. NDSS 2022",
    url="https://github.com/njuaplusplus/mirror",
    year=2022,
    modality="image",
    access=Access.SCORES,
    recovers="a face of a class, as the prior can draw it",
    knows="public images of other people",
)


class Pool(NamedTuple):
    latents: Float[Array, "pool d"]
    fitness: Float[Array, "classes members"]  # log-confidence of the best of the pool, best first
    rows: Int[Array, "classes members"]  # where they are in the pool
    filled: Int[Array, ""]


class State(NamedTuple):
    population: Float[Array, "members d"]  # the elite first
    fitness: Float[Array, " members"]  # log-confidence
    queries: Int[Array, ""]


def cross(
    key: Any, a: Float[Array, " d"], b: Float[Array, " d"], share: Float[Array, ""] | Scalar
) -> Float[Array, " d"]:
    """Every gene from `a` with probability `share`, else from `b`; a share beyond [0, 1] counts as its end."""
    return jnp.where(jax.random.uniform(key, a.shape) < share, a, b)


def mirror_genetic(
    oracle: Oracle,
    prior: Prior,
    classes: int,
    *,
    steps: int = 100,
    members: int = 1000,
    pool_steps: int = 100,
    pool_draws: int = 1000,
    mutation: Scalar = 0.1,
    coefficient: Scalar = 0.1,
    bound: Scalar = 1.0,
    slope: Scalar = 5.0,
    confident: Scalar = 0.95,
    crossover: Literal["probability", "log"] = "probability",
    budget: int = 1_000_000,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: score access.
      prior: vector latents; its init gives the pool.
      classes: of the target.
      steps: generations.
      members: population size, 2 or more; a generation asks `members - 1` queries.
      pool_steps: the pool has pool_steps * pool_draws latents (the paper's 100,000), asked once for all classes ...
      pool_draws: ... so many at a time.
      mutation: probability that a gene moves.
      coefficient: most that it moves, in standard deviations of the pool in P-space.
      bound: half the width of the box in P-space, in standard deviations.
      slope: of the activation that leads to P-space, below zero.
      confident: confidence of the elite at which a case ends, looked at after a generation.
      crossover: "probability", or "log" as released.
      budget: most queries per case, without the pool.

    Raises:
      ThreatModelError: without score access.
      ValueError: for fewer than two members, a pool smaller than the population, a budget below one generation.
    """
    view: Scores = lower(oracle, CARD.access, "image/mirror_genetic")
    size, each = pool_steps * pool_draws, members - 1
    if members < 2:
        raise ValueError(f"members: {members}; legal is 2 or more")
    if size < members:
        raise ValueError(f"pool_steps * pool_draws: {size}; legal is at least the population, {members}")
    if budget < each:
        raise ValueError(f"budget: {budget}; legal is at least one generation, {each} queries")

    def confidences(key: Any, latents: Any) -> Any:
        keys = jax.random.split(key, len(latents))
        scores = sliced(lambda k, w: view.answer(k, prior.decode(w)), keys, latents)
        return jnp.log(jnp.maximum(scores, 1e-30))

    def sample(fitted: Any) -> Process:
        del fitted

        def init(key: Any, batch: Any) -> Pool:
            del batch
            dimensions = prior.init(key).shape[0]
            best = jnp.full((classes, members), -WORST, jnp.float32)
            rows = jnp.zeros((classes, members), jnp.int32)
            return Pool(jnp.zeros((size, dimensions)), best, rows, jnp.zeros((), jnp.int32))

        def step(key: Any, pool: Pool, batch: Any) -> tuple[Pool, Any]:
            del batch
            draw, ask = jax.random.split(key)
            fresh = jax.vmap(lambda k: prior.project(prior.init(k)))(jax.random.split(draw, pool_draws))
            here = jnp.broadcast_to(pool.filled + jnp.arange(pool_draws, dtype=jnp.int32), (classes, pool_draws))
            fitness, order = jax.lax.top_k(jnp.concatenate([pool.fitness, confidences(ask, fresh).T], 1), members)
            rows = jnp.take_along_axis(jnp.concatenate([pool.rows, here], 1), order, 1)
            latents = jax.lax.dynamic_update_slice(pool.latents, fresh, (pool.filled, 0))
            new = Pool(latents, fitness, rows, pool.filled + pool_draws)
            return new, info(-fitness[:, 0].mean(), queries=new.filled)

        return Process(init, step, lambda pool: pool, pool_steps)

    def search(fitted: Any) -> Process:
        pool: Pool = fitted[0]

        def to_p(w: Any) -> Any:
            return jnp.where(w >= 0, w, slope * w)

        def from_p(p: Any) -> Any:
            return jnp.where(p >= 0, p, p / slope)

        mean, deviation = jnp.mean(to_p(pool.latents), 0), jnp.std(to_p(pool.latents), 0)

        def child(key: Any, parents: Any, state: State) -> Any:
            genes, moves, noise = jax.random.split(key, 3)
            f = state.fitness[parents]
            share = jax.nn.sigmoid(f[0] - f[1]) if crossover == "probability" else f[0] / (f[0] + f[1] - 1e-12)
            crossed = cross(genes, state.population[parents[0]], state.population[parents[1]], share)
            moved = jax.random.bernoulli(moves, mutation, crossed.shape)
            shift = coefficient * deviation * jax.random.uniform(noise, crossed.shape, minval=-1.0)
            p = jnp.clip(to_p(crossed) + moved * shift, mean - bound * deviation, mean + bound * deviation)
            return prior.project(from_p(p))

        def init(key: Any, label: Any) -> State:
            del key
            return State(pool.latents[pool.rows[label]], pool.fitness[label], jnp.zeros((), jnp.int32))

        def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
            choose, make, ask = jax.random.split(key, 3)
            parents = jax.random.choice(choose, members, (each, 2), p=jax.nn.softmax(state.fitness))
            children = jax.vmap(child, in_axes=(0, 0, None))(jax.random.split(make, each), parents, state)
            population = jnp.concatenate([state.population[:1], children])
            fitness = jnp.concatenate([state.fitness[:1], confidences(ask, children)[:, label]])
            order = jnp.argsort(-fitness)
            new = State(population[order], fitness[order], state.queries + each)
            done = (new.fitness[0] >= jnp.log(confident)) | (new.queries + each > budget)
            return new, info(-new.fitness[0], queries=new.queries, done=done)

        return Process(init, step, lambda state: prior.decode(state.population[0]), steps)

    return Attack(search, (sample,), observes=CARD.observes)
