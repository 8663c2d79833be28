"""MIRROR, white box: descent in a generator's latents, kept where the generator's own latents lie.

An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang, "MIRROR: Model Inversion for Deep Learning Network with High Fidelity", NDSS 2022
(https://doi.org/10.14722/ndss.2022.24335), white-box variant. A pool of latents is decoded and shown to the target once,
for all classes. From the `starts` latents that it believes most for a class, min over w of weight * CE(f(G(w)), y) by Adam,
the image mirrored at random; after every step w is clipped in P-space to mean +- `bound` deviations of the pool. The rate
rises linearly over the first twentieth of the steps and falls as a cosine over the last quarter, and a run's result is its
iterate of least loss, as released. The result of the case is one of the runs. Those that the target takes for the class
are compared by the other four of their five most believed labels: of the largest group of runs that have two of these
labels in common, or of all runs if there is none, it is that of most confidence.

P-space undoes the last activation of a StyleGAN mapping network, p = LeakyReLU_5(w) (`slope`); give 1 for latents that are
Gaussian as they are. Where the prior truncates w as it decodes, pool and box are of w before that, as released.

What differs. The pool is ranked as it is drawn, and a run starts from its projection into the box; the released code
projects after the first step. There the runs of a class are mirrored together, and the iterates kept are those after the
step of least mean loss; here each run has its own. A later toolbox applies only one side of the box and maps back with
another slope; here both are as in the paper.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import WORST, Attack, Card, Prior, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import descend, moments

__all__ = ["CARD", "agreeing", "mirror"]

CARD = Card(
    title="MIRROR",
    paper="An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang. MIRROR. NDSS 2022",
    url="https://doi.org/10.14722/ndss.2022.24335",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, as the prior can draw it",
    knows="public images of other people",
)
MOST_STARTS = 10  # 2 ** starts groups of runs are compared


class Pool(NamedTuple):
    spread: Any  # of the latents in P-space: the state of `recipes.moments`
    latents: Float[Array, "classes starts d"]  # those that the target believes most, best first
    fitness: Float[Array, "classes starts"]  # log-confidence


class State(NamedTuple):
    runs: Any  # states of `recipes.descend`, with a leading axis
    label: Int[Array, ""]


def agreeing(logits: Float[Array, "runs classes"], label: Int[Array, ""]) -> Int[Array, ""]:
    """The run that is kept: the most confident one of the largest group that agrees on what else an image may show.

    Args:
      logits: of each run's result.
      label: the class that is attacked.
    """
    runs, classes = logits.shape
    groups = sorted(itertools.product((0, 1), repeat=runs), key=lambda group: (sum(group), group), reverse=True)
    groups = jnp.asarray(groups[:-1], jnp.int32)  # that of all runs first, then by size; without the empty one
    top = jax.lax.top_k(logits, min(5, classes))[1]
    also = jnp.any(jax.nn.one_hot(top[:, 1:], classes, dtype=bool), 1) & (top[:, :1] == label)
    shared = jnp.sum(groups @ also.astype(jnp.int32) == jnp.sum(groups, 1)[:, None], 1)
    group = groups[jnp.argmax(shared >= 2)]
    return jnp.argmax(jnp.where(group > 0, jax.nn.log_softmax(logits)[:, label], -jnp.inf)).astype(jnp.int32)


def mirror(
    oracle: Oracle,
    prior: Prior,
    classes: int,
    *,
    steps: int = 20_000,
    rate: Scalar = 0.25,
    identity_weight: Scalar = 10.0,
    starts: int = 8,
    pool_steps: int = 5000,
    pool_draws: int = 20,
    bound: Scalar = 1.0,
    slope: Scalar = 5.0,
    flip: Scalar = 0.5,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: white-box access.
      prior: vector latents, such as a StyleGAN's w; its penalty and projection are not used.
      classes: of the target.
      steps: of Adam.
      rate: Adam's largest learning rate, as in the released command; the released script's own default is 0.2.
      identity_weight: of the cross entropy.
      starts: latents of the pool that are optimized for a class.
      pool_steps: the pool has pool_steps * pool_draws latents (the released 100,000), asked once for all classes ...
      pool_draws: ... so many at a time.
      bound: half the width of the box in P-space, in standard deviations of the pool.
      slope: of the activation that leads to P-space, below zero.
      flip: probability that the target is shown the mirror image at a step.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: unless starts is 1 to 10 and at most the pool.
    """
    view: Weights = lower(oracle, CARD.access, "image/mirror")
    size = pool_steps * pool_draws
    if not 1 <= starts <= min(size, MOST_STARTS):
        raise ValueError(f"starts: {starts}; legal is 1 to {MOST_STARTS}, and to the pool's size, {size}")

    def to_p(w: Any) -> Any:
        return jnp.where(w >= 0, w, slope * w)

    def from_p(p: Any) -> Any:
        return jnp.where(p >= 0, p, p / slope)

    def answer(w: Any) -> Any:
        return view.answer(jax.random.key(0), prior.decode(w))

    def pool(fitted: Any) -> Process:
        del fitted
        spread = moments(lambda key, latents: to_p(latents), steps=pool_steps)

        def draw(key: Any) -> Any:
            return jax.vmap(prior.init)(jax.random.split(key, pool_draws))

        def init(key: Any, batch: Any) -> Pool:
            del batch
            fresh = draw(key)
            fitness = jnp.full((classes, starts), -WORST, jnp.float32)
            return Pool(spread.init(key, fresh), jnp.zeros((classes, starts, fresh.shape[1])), fitness)

        def step(key: Any, state: Pool, batch: Any) -> tuple[Pool, Any]:
            del batch
            fresh = draw(key)
            confidence = jax.nn.log_softmax(jax.vmap(answer)(fresh)).T
            fitness, rows = jax.lax.top_k(jnp.concatenate([state.fitness, confidence], 1), starts)
            known = jnp.take_along_axis(state.latents, jnp.minimum(rows, starts - 1)[..., None], 1)
            latents = jnp.where((rows < starts)[..., None], known, fresh[jnp.maximum(rows - starts, 0)])
            new = Pool(spread.step(key, state.spread, fresh)[0], latents, fitness)
            return new, info(-jnp.mean(confidence.max(1)))

        return Process(init, step, lambda state: (*spread.read(state.spread), state.latents), pool_steps)

    def mirrored(key: Any, x: Any) -> Any:
        ask, turn = jax.random.split(key)
        return view.answer(ask, jnp.where(jax.random.bernoulli(turn, flip), x[:, ::-1], x))

    def schedule(count: Any) -> Any:
        share = (count + 1) / steps
        falling = (1 - jnp.cos(jnp.pi * jnp.minimum((1 - share) / 0.25, 1))) / 2
        return rate * falling * jnp.minimum(share / 0.05, 1)

    def solve(fitted: Any) -> Process:
        mean, deviation, latents = fitted[0]

        def project(w: Any) -> Any:
            return from_p(jnp.clip(to_p(w), mean - bound * deviation, mean + bound * deviation))

        def run(start: Any) -> Process:
            boxed = Prior(lambda key: start, prior.decode, lambda w, candidate: jnp.zeros(()), project)
            return descend(
                view._replace(answer=mirrored), cross_entropy, boxed, optax.adam(schedule), steps=steps,
                weight=identity_weight,
            )  # fmt: skip

        def init(key: Any, label: Any) -> State:
            label = jnp.asarray(label, jnp.int32)
            return State(jax.vmap(lambda start: run(start).init(key, label))(latents[label]), label)

        def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(starts))
            runs, infos = jax.vmap(run(latents[label, 0]).step, (0, 0, None))(keys, state.runs, label)
            return State(runs, state.label), jax.tree.map(lambda leaf: leaf[jnp.argmin(infos.loss)], infos)

        def read(state: State) -> Any:
            chosen = agreeing(jax.vmap(answer)(state.runs.best), state.label)
            return prior.decode(state.runs.best[chosen])

        return Process(init, step, read, steps)

    return Attack(solve, (pool,), observes=CARD.observes)
