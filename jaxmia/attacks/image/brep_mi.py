"""BREP-MI: walk away from the decision boundary, knowing only labels.

Kahla, Chen, Just, Jia, "Label-Only Model Inversion Attacks via Boundary Repulsion", CVPR 2022
(https://arxiv.org/abs/2203.01925), Algorithm 1. Draw latents until the target says the wanted class. Then ask for
`points` latents on a sphere of radius R around z: when all are inside the class, keep z and grow R; else move by
min(R / 3, 3) along the mean of w_i u_i, w_i = 0 for points inside and -1 outside, and take the move only when the target
still says the class. The z that carried the largest sphere is the result.

What differs. Targeted by construction: a class no draw reaches is a failure (`failed` in the info), where the released
code by default attacks whatever 300 classes it happens to hit. The released code grows R already when more than 75 % of
the points are inside: `inside=0.75`. Rejected moves and growths count as steps and every query counts, so a point stuck
at the boundary cannot ask forever; a hard `budget` ends the case before a step would exceed it. Every step asks
points + 1 queries: while searching all are fresh draws, while walking the last one tries the move.
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
    best: Float[Array, " d"]  # center of the largest sphere that was inside
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
    inside: Scalar = 1.0,
    patience: int = 1000,
    budget: int = 100_000,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: label access.
      prior: vector latents, with the box in its projection (the paper's is [-1.5, 1.5] for a GAN).
      steps: most steps, search included.
      points: N, on the sphere.
      radius: R at the start, in latent units.
      growth: factor on R.
      inside: share of the points that must be inside for R to grow; 1 is the paper, 0.75 (exceeded) the released code.
      patience: steps without growth after which the case ends.
      budget: most queries per case.

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

        enough = jnp.where(inside >= 1.0, jnp.all(hit), jnp.mean(hit) > inside)
        direction = jnp.mean(jnp.where(hit[:, None], 0.0, -unit), axis=0)
        moved = prior.project(state.z + jnp.minimum(state.radius / 3.0, 3.0) * direction)
        last = jnp.where(state.found, moved, fresh[points])
        last_hit = says(again, last[None], label)[0]

        hits = jnp.append(hit, last_hit)
        start = fresh[jnp.argmax(hits)]
        walked = jnp.where(~enough & last_hit, moved, state.z)
        grown = state.found & enough
        found = state.found | jnp.any(hits)
        z = jnp.where(state.found, walked, jnp.where(found, start, state.z))
        new = State(
            z=z,
            best=jnp.where(grown, state.z, jnp.where(state.found, state.best, z)),
            radius=jnp.where(grown, jnp.minimum(state.radius * growth, LARGEST), state.radius),
            found=found,
            idle=jnp.where(grown | ~state.found, 0, state.idle + 1),
            queries=state.queries + each,
        )
        done = (new.idle >= patience) | (new.queries + each > budget)
        return new, info(-new.radius, queries=new.queries, done=done, failed=~found)

    return Attack(lambda fitted: Process(init, step, lambda state: prior.decode(state.best), steps))
