"""C2FMI: coarse by a public face embedding, fine by differential evolution on the served scores.

Ye, Luo, Naseem, Yang, Shi, Jia, "C2FMI: Corse-to-Fine Black-Box Model Inversion Attack", IEEE TDSC 2023
(https://github.com/MiLabHITSZ/2022YeC2FMI). (1) On public images a network M learns to tell an embedding from the target's
scores, min |M(h(f(x))) - E(x)|^2. (2) Coarse: M says what embedding scores of the wanted class would have; of many latents
the `starts` whose images are nearest to it descend on |E(G(w)) - M|^2 and the `kept` nearest fill, with blends and noise,
a population. (3) Fine: every member w is tried against

    w' = w + pull * (elite - w) + beta * (w_a - w_b), each gene replaced with probability 1/2,

and gives way where the target believes w' more. The member believed most is the result.

h keeps the largest log-score, shifted by 50, and divides by the norm, so that a class is asked for by 50 for itself and
|N(0, 1)| for the others. beta falls to zero over the last 6 % of the generations.

What differs. The mapping network has no dropout. A later toolbox ranks the last generation by the scores of the one
before it; here scores belong to their latents. The target is asked by (1), once for all classes, and by (3).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Prior, Process, Scalar, info
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import regress, sliced

__all__ = ["CARD", "blend", "c2fmi", "shape_scores"]

CARD = Card(
    title="C2FMI",
    paper="Ye, Luo, Naseem, Yang, Shi, Jia. C2FMI: Corse-to-Fine Black-Box Model Inversion Attack. IEEE TDSC 2023",
    url="https://github.com/MiLabHITSZ/2022YeC2FMI",
    year=2023,
    modality="image",
    access=Access.SCORES,
    recovers="a face of a class, as the prior can draw it",
    knows="public images of other people, a face embedding",
)


class Mapping(nn.Module):
    """M, from shaped scores `[n, classes]` to embeddings `[n, outputs]`."""

    width: int
    outputs: int

    @nn.compact
    def __call__(self, scores: Float[Array, "n classes"], train: bool = False) -> Float[Array, "n outputs"]:
        """Returns embeddings."""
        for _ in range(2):
            scores = nn.leaky_relu(nn.Dense(self.width)(scores), 0.2)
        return nn.Dense(self.outputs)(scores)


class State(NamedTuple):
    population: Float[Array, "members d"]
    loss: Float[Array, " members"]  # -log p_y
    queries: Int[Array, ""]


def shape_scores(scores: Float[Array, " classes"], keep: int) -> Float[Array, " classes"]:
    """h: the `keep` largest as max(0, log p + 50), the others zero, of norm one.

    >>> [round(float(v), 2) for v in shape_scores(jnp.asarray([0.9, 0.1]), 1)]
    [1.0, 0.0]
    """
    logs = jnp.maximum(jnp.log(jnp.maximum(scores, 1e-30)) + 50.0, 0.0)
    kept = jnp.where(jnp.argsort(jnp.argsort(-scores)) < keep, logs, 0.0)
    return kept / jnp.linalg.norm(kept)


def blend(key: Any, latents: Float[Array, "kept d"], members: int, noise: Scalar) -> Float[Array, "members d"]:
    """The latents and, up to `members`, sums of three random ones weighted 1/2, 1/4, 1/4 plus `noise` * N(0, 1)."""
    choose, disturb = jax.random.split(key)
    more = members - len(latents)
    one, two, three = latents[jax.random.randint(choose, (3, more), 0, len(latents))]
    fresh = 0.5 * one + 0.25 * two + 0.25 * three + noise * jax.random.normal(disturb, (more, latents.shape[1]))
    return jnp.concatenate([latents, fresh])


def c2fmi(
    oracle: Oracle,
    prior: Prior,
    embedding: Any,
    classes: int,
    *,
    train_steps: int = 5000,
    train_rate: Scalar = 1e-3,
    width: int = 4096,
    keep: int = 1,
    draws: int = 5000,
    starts: int = 16,
    coarse_steps: int = 20,
    coarse_rate: Scalar = 0.02,
    kept: int = 10,
    members: int = 32,
    noise: Scalar = 0.3,
    steps: int = 500,
    pull: Scalar = 0.02,
    beta: Scalar = 0.1,
    budget: int = 100_000,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: score access.
      prior: vector latents.
      embedding: E, `image -> vector`, differentiable; not that of an evaluator.
      classes: of the target.
      train_steps: public minibatches for M (the paper's 40 epochs).
      train_rate: Adam's learning rate there; times 0.8 after every twentieth of the steps.
      width: of M's two hidden layers.
      keep: how many scores M is told.
      draws: latents of which the nearest are chosen, without asking the target.
      starts: how many descend.
      coarse_steps: of that descent.
      coarse_rate: Adam's learning rate there.
      kept: of the starts, the nearest.
      members: population, at least 3 and `kept`.
      noise: deviation of the members that are blended, in latent units.
      steps: generations, `members` queries each.
      pull: towards the elite.
      beta: of the difference of two members.
      budget: most queries per case, without M's training.

    Raises:
      ThreatModelError: without score access.
      ValueError: for sizes that are not 1 <= kept <= starts <= draws, members below kept or 3, a budget below the
        population and one generation.
    """
    view: Scores = lower(oracle, CARD.access, "image/c2fmi")
    if not 1 <= kept <= starts <= draws:
        raise ValueError(f"kept, starts, draws: {kept}, {starts}, {draws}; legal is 1 <= kept <= starts <= draws")
    if members < max(3, kept):
        raise ValueError(f"members: {members}; legal is at least 3 and kept, {kept}")
    if budget < 2 * members:
        raise ValueError(f"budget: {budget}; legal is at least the population and one generation, {2 * members}")
    blank = jax.eval_shape(lambda key: embedding(prior.decode(prior.init(key))), jax.random.key(0))
    mapping = Mapping(width, blank.shape[0])

    def learn(fitted: Any) -> Process:
        del fitted

        def error(told: Any, images: Any) -> Any:
            return jnp.mean((told - jax.lax.stop_gradient(jax.vmap(embedding)(images))) ** 2)

        def observe(key: Any, image: Any) -> Any:
            return shape_scores(view.answer(key, image), keep)

        falling = optax.exponential_decay(1.0, max(1, train_steps // 20), 0.8, staircase=True)
        adam = optax.adam(lambda count: train_rate * falling(count))
        return regress(mapping, observe, adam, steps=train_steps, loss=error)

    def search(fitted: Any) -> Process:
        def losses(key: Any, population: Any, label: Any) -> Any:
            keys = jax.random.split(key, members)
            scores = sliced(lambda k, w: view.answer(k, prior.decode(w))[label], keys, population)
            return -jnp.log(jnp.maximum(scores, 1e-30))

        def init(key: Any, label: Any) -> State:
            other, draw, fill, ask = jax.random.split(key, 4)
            shown = jnp.abs(jax.random.normal(other, (classes,))).at[label].set(50.0)
            told: Any = mapping.apply(fitted[0], (shown / jnp.linalg.norm(shown))[None])

            def distance(w: Any) -> Any:
                return jnp.mean((embedding(prior.decode(w)) - told[0]) ** 2)

            many = jax.vmap(lambda k: prior.project(prior.init(k)))(jax.random.split(draw, draws))
            near = many[jnp.argsort(sliced(distance, many))[:starts]]
            adam = optax.adam(coarse_rate)

            def descend(_: Any, pair: Any) -> Any:
                updates, optimizer = adam.update(sliced(jax.grad(distance), pair[0]), pair[1])
                return jax.vmap(prior.project)(optax.apply_updates(pair[0], updates)), optimizer

            near, _ = jax.lax.fori_loop(0, coarse_steps, descend, (near, adam.init(near)))
            near = near[jnp.argsort(sliced(distance, near))[:kept]]
            population = jax.vmap(prior.project)(blend(fill, near, members, noise))
            return State(population, losses(ask, population, label), jnp.asarray(members, jnp.int32))

        def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
            pair, genes, ask = jax.random.split(key, 3)
            w, (a, b) = state.population, jax.random.randint(pair, (2, members), 0, members)
            passed = (state.queries - members) / (members * max(1, steps))  # share of the generations
            strength = beta * jnp.clip((1.0 - passed) / 0.06, 0.0, 1.0)
            moved = w + pull * (w[jnp.argmin(state.loss)] - w) + strength * (w[a] - w[b])
            child = jax.vmap(prior.project)(jnp.where(jax.random.bernoulli(genes, 0.5, w.shape), moved, w))
            loss = losses(ask, child, label)
            better, queries = loss < state.loss, state.queries + members
            new = State(jnp.where(better[:, None], child, w), jnp.minimum(loss, state.loss), queries)
            return new, info(new.loss.min(), queries=queries, done=queries + members > budget)

        return Process(init, step, lambda state: prior.decode(state.population[jnp.argmin(state.loss)]), steps)

    return Attack(search, (learn,))
