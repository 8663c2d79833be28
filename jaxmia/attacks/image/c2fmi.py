"""C2FMI: coarse by a public face embedding, fine by differential evolution on the served scores.

Ye, Luo, Naseem, Yang, Shi, Jia, "C2FMI: Corse-to-Fine Black-Box Model Inversion Attack", IEEE TDSC 2023
(https://github.com/MiLabHITSZ/2022YeC2FMI). (1) On public images a network M learns to tell an embedding from the
target's scores, min |M(h(f(x))) - E(x)|^2. (2) Coarse: M says what embedding scores of the wanted class would have.
`starts` latents, each the mean of two that the prior draws, descend on |E(G(w)) - M|^2. The `kept` that the target
believes most fill a population with their blends: .7 (w_1 / 2 + w_2 / 4 + w_3 / 4) of three different ones + .3 of the
mean of three that the prior draws. (3) Fine: every member w is tried against

    w' = w + pull * (elite - w) + beta * (sum of four differences w_a - w_b), each gene replaced with probability 1/2,

and gives way where the target believes w' more. The member believed most is the result.

h keeps the largest log-score, shifted by 50, and divides by the norm. A class is asked for by h of scores in which it
has 1e18 and the others |N(0, 1)|: with one score kept, one-hot. beta is .1 until 94 % of the generations have passed,
then .1 (500 - g) / 50 of 500, which falls from .06 to zero.

What differs. Rules and numbers are those of that repository, for FaceScrub, whose M has a dropout of 1/4 and learns the
class scores of a face network as E(x). It ranks the starts by their images before the last step of the descent, here by
those after it; it asks about parents again in every generation, here they keep their score. A later toolbox blends with
noise, takes one difference, and ranks the last generation by the scores of the one before. The target is asked by (1),
once for all classes, by the choice in (2) and by (3).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Prior, Process, Scalar, info
from jaxmia.models import Perceptron
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import regress, sliced
from jaxmia.recipes.raised_logs import raised_logs

__all__ = ["CARD", "blend", "c2fmi", "children", "shape_scores", "strength"]

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


class State(NamedTuple):
    population: Float[Array, "members d"]
    loss: Float[Array, " members"]  # -log p_y
    generation: Int[Array, ""]
    queries: Int[Array, ""]


def shape_scores(scores: Float[Array, " classes"], keep: int) -> Float[Array, " classes"]:
    """h: the `keep` largest as log p + 50, the others zero, of norm one."""
    logs = raised_logs(scores, keep)
    return logs / jnp.linalg.norm(logs)


def blend(key: Any, kept: Float[Array, "k d"], drawn: Float[Array, "n 3 d"], fresh: Scalar) -> Float[Array, "n d"]:
    """Sums of three different kept ones, weighted 1/2, 1/4, 1/4, with a share `fresh` of the mean of three drawn ones."""
    _, rows = jax.lax.top_k(jax.random.uniform(key, (len(drawn), len(kept))), 3)
    inherited = jnp.einsum("k,nkd->nd", jnp.asarray([0.5, 0.25, 0.25]), kept[rows])
    return (1 - fresh) * inherited + fresh * drawn.mean(1)


def strength(generation: Int[Array, ""], steps: int) -> Float[Array, ""]:
    """Of the differences, relative to beta: 1 before generation 0.94 steps, then 0.6 falling to 0."""
    return jnp.where(50 * generation < 47 * steps, 1.0, 10.0 * (1.0 - generation / max(1, steps)))


def children(
    key: Any, population: Float[Array, "members d"], elite: Float[Array, " d"], pull: Scalar, beta: Scalar
) -> Float[Array, "members d"]:
    """One child of every member: see (3) above."""
    mates, genes = jax.random.split(key)
    a, b = jax.random.randint(mates, (2, 4, len(population)), 0, len(population))
    moved = population + pull * (elite - population) + beta * jnp.sum(population[a] - population[b], 0)
    return jnp.where(jax.random.bernoulli(genes, 0.5, population.shape), moved, population)


def c2fmi(
    oracle: Oracle,
    prior: Prior,
    embedding: Any,
    classes: int,
    *,
    train_steps: int = 23_420,
    train_rate: Scalar = 1e-3,
    width: int = 4096,
    keep: int = 1,
    starts: int = 16,
    coarse_steps: int = 20,
    coarse_rate: Scalar = 0.02,
    kept: int = 10,
    members: int = 32,
    fresh: Scalar = 0.3,
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
      train_steps: public minibatches for M (20 epochs of 150,000 images by 128).
      train_rate: Adam's learning rate there; times 0.8 after every tenth of the steps.
      width: of M's two hidden layers.
      keep: how many scores M is shown.
      starts: how many descend, one query each.
      coarse_steps: of that descent.
      coarse_rate: Adam's learning rate there.
      kept: of the starts, those that the target believes most; at least 3.
      members: population, at least `kept`.
      fresh: share of newly drawn latents in the members that are blended, in [0, 1].
      steps: generations, `members` queries each.
      pull: towards the elite.
      beta: of the differences.
      budget: most queries per case, without M's training.

    Raises:
      ThreatModelError: without score access.
      ValueError: for sizes that are not 3 <= kept <= starts, members below kept, a budget below one generation.
    """
    view: Scores = lower(oracle, CARD.access, "image/c2fmi")
    if not 3 <= kept <= starts:
        raise ValueError(f"kept, starts: {kept}, {starts}; legal is 3 <= kept <= starts")
    if members < kept:
        raise ValueError(f"members: {members}; legal is at least kept, {kept}")
    if budget < (least := starts + 2 * members - kept):
        raise ValueError(f"budget: {budget}; legal is at least the starts, a population and one generation, {least}")
    blank = jax.eval_shape(lambda key: embedding(prior.decode(prior.init(key))), jax.random.key(0))
    mapping = Perceptron(width, blank.shape[0], functools.partial(jax.nn.leaky_relu, negative_slope=0.2))

    def learn(_: Any) -> Process:
        def error(guesses: Any, images: Any) -> Any:
            return jnp.mean((guesses - jax.lax.stop_gradient(jax.vmap(embedding)(images))) ** 2)

        falling = optax.exponential_decay(1.0, max(1, train_steps // 10), 0.8, staircase=True)
        adam = optax.adam(lambda count: train_rate * falling(count))
        return regress(mapping, lambda k, x: shape_scores(view.answer(k, x), keep), adam, steps=train_steps, loss=error)

    def search(fitted: Any) -> Process:
        def losses(key: Any, latents: Any, label: Any) -> Any:
            keys = jax.random.split(key, len(latents))
            scores = sliced(lambda k, w: view.answer(k, prior.decode(w))[label], keys, latents)
            return -jnp.log(jnp.maximum(scores, 1e-30))

        def elite(state: State) -> Any:
            return state.population[jnp.argmin(state.loss)]

        def draws(key: Any, *shape: int) -> Any:
            return jax.vmap(jax.vmap(lambda k: prior.project(prior.init(k))))(jax.random.split(key, shape))

        def init(key: Any, label: Any) -> State:
            pairs, noise, choose, fill, parents, ask = jax.random.split(key, 6)

            def distance(w: Any, wanted: Any) -> Any:
                return jnp.mean((embedding(prior.decode(w)) - wanted) ** 2)

            adam, latents = optax.adam(coarse_rate), draws(pairs, starts, 2).mean(1)

            def descend(t: Any, pair: Any) -> Any:
                asked = jnp.abs(jax.random.normal(jax.random.fold_in(noise, t), (starts, classes)))
                asked = asked.at[:, label].set(1e18) / 1e18  # of norm one, as 1e18 is to all the others
                wanted = mapping.apply(fitted[0], jax.vmap(lambda row: shape_scores(row, keep))(asked))
                updates, optimizer = adam.update(sliced(jax.grad(distance), pair[0], wanted), pair[1])
                return jax.vmap(prior.project)(optax.apply_updates(pair[0], updates)), optimizer

            latents, _ = jax.lax.fori_loop(0, coarse_steps, descend, (latents, adam.init(latents)))
            doubts = losses(choose, latents, label)
            best = jnp.argsort(doubts)[:kept]
            more = jax.vmap(prior.project)(blend(parents, latents[best], draws(fill, members - kept, 3), fresh))
            loss = jnp.concatenate([doubts[best], losses(ask, more, label)])
            asked = jnp.asarray(starts + members - kept, jnp.int32)
            return State(jnp.concatenate([latents[best], more]), loss, jnp.zeros((), jnp.int32), asked)

        def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
            breed, ask = jax.random.split(key)
            child = children(breed, state.population, elite(state), pull, beta * strength(state.generation, steps))
            child = jax.vmap(prior.project)(child)
            loss, queries = losses(ask, child, label), state.queries + members
            survivors = jnp.where((loss < state.loss)[:, None], child, state.population)
            new = State(survivors, jnp.minimum(loss, state.loss), state.generation + 1, queries)
            return new, info(new.loss.min(), queries=queries, done=queries + members > budget)

        return Process(init, step, lambda state: prior.decode(elite(state)), steps)

    return Attack(search, (learn,), observes=CARD.observes)
