"""BREP-MI: walk away from the decision boundary, knowing only labels.

Kahla, Chen, Just, Jia, "Label-Only Model Inversion Attacks via Boundary Repulsion", CVPR 2022
(https://arxiv.org/abs/2203.01925), Algorithm 1. Draw latents until the target says the wanted class. Then ask for
`points` latents on a sphere of radius R around z: when all are inside the class, keep z and grow R; else move by
min(R / 3, 3) along the mean of w_i u_i, w_i = 0 for points inside and -1 outside, and take the move only when the target
still says the class. The z that carried the largest sphere is the result.

What differs. Targeted by construction: a class no draw reaches is a failure (`failed` in the info), where the released
code by default attacks whatever 300 classes it happens to hit. Rejected moves and growths count as steps, rejected moves
as idle, and every query counts, so a point stuck at the boundary cannot ask forever; a hard `budget` ends the case before
a step would exceed it. Every step asks points + 1 queries: while searching all are fresh draws, while walking the last one
tries the move. The search draws anew for every class: one that the target says of every n-th draw costs about n queries.
The released code labels one stream of draws for all its classes, so that 1,000 equally likely ones cost about 7 each
there and about 1,000 each here; beside the 33,000 of a walk that matters for rare classes alone.

The released code (`released=True`) counts +1 for a point inside and -1 for one outside and grows R when the sum exceeds
0.75 N, with 29 of 32 inside. It moves in the same iteration, by min(R / 3, 3) R / R' along that mean, where R' is R as
grown. What it keeps is z after the last such move that stayed inside. Only moves that are taken count as idle there, so
that nothing but `steps` and `budget` ends a walk whose moves all fail.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmia.core import Attack, Card, Prior, Process, Scalar, info
from jaxmia.oracle import Access, Labels, Oracle, lower
from jaxmia.recipes import sliced

__all__ = ["CARD", "brep_mi"]

CARD = Card(
    title="BREP-MI",
    paper="Kahla, Chen, Just, Jia. Label-Only Model Inversion Attacks via Boundary Repulsion. CVPR 2022",
    url="https://arxiv.org/abs/2203.01925",
    year=2022,
    modality="image",
    access=Access.LABELS,
    recovers="a face of a class, deep inside its decision region",
    knows="public images of other people",
)


LARGEST = 1e6
"""Bound on R, far outside any latent space: a target that says one class everywhere would let it overflow."""


class State(NamedTuple):
    z: Float[Array, " d"]
    best: Float[Array, " d"]  # what is read: the center of the largest sphere that was inside
    radius: Float[Array, ""]
    found: Bool[Array, ""]
    idle: Int[Array, ""]  # steps since the sphere last grew
    queries: Int[Array, ""]


def brep_mi(
    oracle: Oracle,
    prior: Prior,
    *,
    steps: int = 10_000,
    points: int = 32,
    radius: Scalar = 2.0,
    growth: Scalar = 1.3,
    patience: int = 1000,
    released: bool = False,
    budget: int = 330_000,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: label access.
      prior: vector latents, with the box in its projection (the paper's is [-1.5, 1.5] for a GAN).
      steps: most steps, search included.
      points: N, on the sphere.
      radius: R at the start, in latent units.
      growth: factor on R.
      patience: steps without growth after which the case ends.
      released: grow, move, keep and count as in the released code, see above.
      budget: most queries per case; the default lets all steps be taken.

    Raises:
      ThreatModelError: without label access.
      ValueError: for points below 1, or a budget below one step.
    """
    view: Labels = lower(oracle, CARD.access, "image/brep_mi")
    each = points + 1
    if points < 1:
        raise ValueError(f"points: {points}; legal is 1 or more")
    if budget < each:
        raise ValueError(f"budget: {budget}; legal is at least one step, {each} queries")

    def says(key: Any, zs: Any, label: Any) -> Any:
        keys = jax.random.split(key, zs.shape[0])
        return sliced(lambda k, z: view.answer(k, prior.decode(z)), keys, zs) == label

    def init(key: Any, label: Any) -> State:
        del label
        z = jnp.zeros_like(prior.init(key))
        zero = jnp.zeros((), jnp.int32)
        return State(z, z, jnp.asarray(radius, jnp.float32), jnp.asarray(False), zero, zero)

    def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
        draw, around, ask, again = jax.random.split(key, 4)
        fresh = jax.vmap(lambda k: prior.project(prior.init(k)))(jax.random.split(draw, each))
        gauss = jax.random.normal(around, (points,) + state.z.shape)
        unit = gauss / jnp.linalg.norm(gauss, axis=1, keepdims=True)
        sphere = state.z + state.radius * unit
        hit = says(ask, jnp.where(state.found, sphere, fresh[:points]), label)

        enough = jnp.sum(jnp.where(hit, 1, -1)) > 0.75 * points if released else jnp.all(hit)
        grown = state.found & enough
        grown_radius = jnp.where(grown, jnp.minimum(state.radius * growth, LARGEST), state.radius)
        direction = jnp.mean(jnp.where(hit[:, None], 0.0, -unit), axis=0)
        if released:
            direction *= state.radius / grown_radius
        moved = prior.project(state.z + jnp.minimum(state.radius / 3.0, 3.0) * direction)
        last = jnp.where(state.found, moved, fresh[points])
        last_hit = says(again, last[None], label)[0]

        hits = jnp.append(hit, last_hit)
        start = fresh[jnp.argmax(hits)]
        walked = jnp.where(last_hit if released else last_hit & ~enough, moved, state.z)
        found = state.found | jnp.any(hits)
        z = jnp.where(state.found, walked, jnp.where(found, start, state.z))
        carried = grown & last_hit if released else grown
        new = State(
            z=z,
            best=jnp.where(carried, moved if released else state.z, jnp.where(state.found, state.best, z)),
            radius=grown_radius,
            found=found,
            idle=jnp.where(grown | ~state.found, 0, state.idle + (last_hit if released else 1)),
            queries=state.queries + each,
        )
        done = (new.idle >= patience) | (new.queries + each > budget)
        return new, info(-new.radius, queries=new.queries, done=done, failed=~found)

    return Attack(
        lambda fitted: Process(init, step, lambda state: prior.decode(state.best), steps),
        observes=CARD.observes,
    )
