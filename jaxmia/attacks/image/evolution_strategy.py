"""Evolution strategy: adapt a Gaussian over latents to the confidence that a target serves, the modern black-box baseline.

Not an attack of one paper but the search that a black-box attack has to beat. Hansen, "The CMA Evolution Strategy: A
Tutorial", 2016 (https://arxiv.org/abs/1604.00772), equations 38-58: sample z_k ~ N(m, sigma^2 C), rank them by
L_id = -log p_y(G(z_k)), move m to the better half, adapt C and the step size sigma. `algorithm="snes"` keeps the diagonal
of the covariance alone (Wierstra et al., JMLR 2014), for latents of many hundred dimensions. Both are those of evosax
(Lange, 2022), which is needed only here: `pip install "jaxmia[es]"`.

The mean starts at a draw of the prior. A draw outside the prior's set is asked at its projection and ranked with its
squared distance from there added, without which the search gets lost where the projection makes everything equal. The
best candidate ever asked is the result.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmia.core import WORST, Attack, Card, Prior, Process, Scalar, info
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.packages import require
from jaxmia.recipes import sliced

__all__ = ["CARD", "evolution_strategy"]

CARD = Card(
    title="CMA-ES",
    paper="Hansen. The CMA Evolution Strategy: A Tutorial. 2016",
    url="https://arxiv.org/abs/1604.00772",
    year=2016,
    modality="image",
    access=Access.SCORES,
    recovers="a face of a class, as the prior can draw it",
    knows="public images of other people",
)


class State(NamedTuple):
    strategy: Any  # of evosax
    best: Float[Array, " d"]
    loss: Float[Array, ""]  # of the best
    queries: Int[Array, ""]


def evolution_strategy(
    oracle: Oracle,
    prior: Prior,
    *,
    algorithm: Literal["cma_es", "snes"] = "cma_es",
    steps: int = 1000,
    members: int | None = None,
    spread: Scalar = 1.0,
    budget: int = 100_000,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: score access.
      prior: vector latents.
      algorithm: "cma_es", or "snes" with a diagonal covariance.
      steps: generations.
      members: draws of one generation, 4 or more; None is 4 + floor(3 ln d), as the tutorial says.
      spread: standard deviation of the first generation, in latent units.
      budget: most queries per case.

    Raises:
      ThreatModelError: without score access.
      ImportError: without evosax.
      ValueError: for an unknown algorithm, fewer than four members, a budget below one generation.
    """
    view: Scores = lower(oracle, CARD.access, "image/evolution_strategy")
    if algorithm not in ("cma_es", "snes"):
        raise ValueError(f"algorithm: {algorithm!r}; legal is cma_es or snes")
    require("evosax")
    from evosax.algorithms import CMA_ES, SNES

    (dimensions,) = jax.eval_shape(prior.init, jax.random.key(0)).shape
    each = 4 + int(3 * math.log(dimensions)) if members is None else members
    if each < 4:
        raise ValueError(f"members: {members}; legal is 4 or more")
    if budget < each:
        raise ValueError(f"budget: {budget}; legal is at least one generation, {each} queries")
    strategy = {"cma_es": CMA_ES, "snes": SNES}[algorithm](each, jnp.zeros(dimensions))

    def settings() -> Any:
        return strategy.default_params.replace(std_init=jnp.asarray(spread, jnp.float32))

    def strong(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), tree)

    def init(key: Any, label: Any) -> State:
        del label
        draw, begin = jax.random.split(key)
        start, worst = prior.project(prior.init(draw)), jnp.asarray(WORST, jnp.float32)
        # evosax marks "none yet" by nan and infinity, which the engine would take for a failed case.
        state = strategy.init(begin, start, settings()).replace(best_solution=start, best_fitness=worst)
        return State(strong(state), start, worst, jnp.zeros((), jnp.int32))

    def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
        draw, ask, learn = jax.random.split(key, 3)
        drawn, asked = strategy.ask(draw, state.strategy, settings())
        legal = jax.vmap(prior.project)(drawn)
        scores = sliced(lambda k, z: view.answer(k, prior.decode(z))[label], jax.random.split(ask, each), legal)
        losses = -jnp.log(jnp.maximum(scores, 1e-30))
        told, _ = strategy.tell(learn, drawn, losses + jnp.sum((drawn - legal) ** 2, 1), asked, settings())
        first = jnp.argmin(losses)
        better = losses[first] < state.loss
        new = State(
            strong(told),
            jnp.where(better, legal[first], state.best),
            jnp.where(better, losses[first], state.loss),
            state.queries + each,
        )
        return new, info(new.loss, queries=new.queries, done=new.queries + each > budget)

    return Attack(
        lambda fitted: Process(init, step, lambda state: prior.decode(state.best), steps),
        observes=CARD.observes,
    )
