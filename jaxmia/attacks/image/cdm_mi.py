"""CDM-MI: a diffusion model of public images under the labels that the target gives them, guided to a class.

Liu, Wang, Ren, Wang, Guo, Qin, Liu, "Unstoppable Attack: Label-Only Model Inversion via Conditional Diffusion Model",
IEEE TIFS 2024 (https://arxiv.org/abs/2307.08424). (1) The target T labels every public image. (2) A denoiser eps learns
images x in [-1, 1] under these labels y (Ho et al., NeurIPS 2020, eq. 14), with no label in a share `drop` of examples:

    min E |n - eps(x_t, t, y)|^2,    x_t = sqrt(a_t) x + sqrt(1 - a_t) n,    n ~ N(0, I).

(3) From noise, several candidates of the wanted class are denoised with classifier-free guidance (Ho & Salimans, 2022),

    e = (1 + w) eps(x_t, t, y) - w eps(x_t, t, none),    x' = (x_t - sqrt(1 - a_t) e) / sqrt(a_t) clipped to [-1, 1],

to the next lower level s (Song et al., ICLR 2021, eq. 12): x_s = sqrt(a_s) x' + sqrt(1 - a_s - v^2) e' + v n, where e' is
the noise that belongs to x' and v = eta sqrt((1 - a_s) / (1 - a_t)) sqrt(1 - a_t / a_s). With eta = 1 and a step for every
level this is ancestral sampling. (4) One candidate is selected by what T says.

What differs. The selection is our own: T is asked about the estimates x' of all steps, and the candidate that was called y
most often, weighted by a_s, is read out, so that every step asks `candidates` queries. Network, schedule and rates are
those of Ho et al.; weights are averaged over steps as there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.oracle import Access, Labels, Oracle, lower
from jaxmia.priors.unit import check_images
from jaxmia.recipes import drawn, sliced

__all__ = ["CARD", "cdm_mi"]

CARD = Card(
    title="CDM-MI",
    paper="Liu, Wang, Ren, Wang, Guo, Qin, Liu. Unstoppable Attack: Label-Only Model Inversion. IEEE TIFS 2024",
    url="https://arxiv.org/abs/2307.08424",
    year=2024,
    modality="image",
    access=Access.LABELS,
    recovers="a face of a class, as a diffusion model of that class draws it",
    knows="public images of other people",
)


class State(NamedTuple):
    x: Float[Array, "candidates h w c"]  # noisy, in units of [-1, 1]
    guess: Float[Array, "candidates h w c"]  # x'
    score: Float[Array, " candidates"]
    left: Int[Array, ""]  # steps
    queries: Int[Array, ""]


def cdm_mi(
    oracle: Oracle,
    gallery: Float[Array, "n h w c"],
    classes: int,
    denoiser: Any,
    *,
    steps: int = 1000,
    candidates: int = 8,
    guidance: Scalar = 2.0,
    eta: Scalar = 1.0,
    levels: int = 1000,
    slowest: Scalar = 1e-4,
    fastest: Scalar = 0.02,
    train_steps: int = 100_000,
    train_batch: int = 128,
    train_rate: Scalar = 2e-4,
    drop: Scalar = 0.1,
    average: Scalar = 0.9999,
    budget: int = 10_000,
) -> Attack:
    """The attack; a case is a class index, the output an image.

    Args:
      oracle: label access.
      gallery: public images in [0, 1]; each is asked about once, for all classes together.
      classes: of the target.
      denoiser: Linen module `(x [n, h, w, c], level [n] in [0, 1], labels [n], train) -> noise`; label `classes` is none.
      steps: of sampling, at most `levels`.
      candidates: images of a case, side by side.
      guidance: w.
      eta: noise added while sampling, 0 for none.
      levels: of noise in training.
      slowest: 1 - a_1, the variance added at the first level.
      fastest: variance added at the last level; linear between.
      train_steps: minibatches for the denoiser.
      train_batch: examples of one.
      train_rate: Adam's learning rate there.
      drop: share of examples without a label.
      average: decay of the running average of weights, less at the beginning.
      budget: most queries per case.

    Raises:
      ThreatModelError: without label access.
      ValueError: for a gallery outside of [0, 1]; for steps that are not 1 to levels, no candidates, or more queries
        than the budget.
    """
    view: Labels = lower(oracle, CARD.access, "image/cdm_mi")
    check_images("gallery", gallery)
    if not 1 <= steps <= levels or candidates < 1:
        raise ValueError(f"steps, candidates: {steps}, {candidates}; legal is 1 to levels, {levels}, and 1 or more")
    if (asked := steps * candidates) > budget:
        raise ValueError(f"budget: {budget}; {steps} steps of {candidates} candidates ask {asked}")
    n, shape = len(gallery), gallery.shape[1:]
    a = jnp.cumprod(1.0 - jnp.linspace(slowest, fastest, levels))
    levels_kept = jnp.arange(1, steps + 1) * levels // steps  # of sampling, the last one all noise
    a_kept = jnp.concatenate([jnp.ones(1), a[levels_kept - 1]])
    adam = optax.adam(train_rate)

    def label(_: Any) -> Process:
        """A step asks about `many` images of the gallery; reads out their labels."""
        many = max(size for size in range(1, 257) if n % size == 0)  # none is asked about twice

        def step(key: Any, state: Any, _: Any) -> Any:
            said, row = state
            part = jax.lax.dynamic_slice_in_dim(jnp.asarray(gallery), row, many)
            told = sliced(view.answer, jax.random.split(key, many), part)
            return (jax.lax.dynamic_update_slice(said, told, (row,)), row + many), info(0.0, queries=row + many)

        blank = (jnp.zeros(n, jnp.int32), jnp.zeros((), jnp.int32))
        return Process(lambda key, batch: blank, step, lambda state: state[0], n // many)

    def diffusion(fitted: Any) -> Process:
        def init(key: Any, rows: Any) -> Any:
            x = jnp.asarray(gallery)[rows]
            params = denoiser.init(key, x, jnp.zeros(len(rows)), jnp.zeros_like(rows), train=True)["params"]
            return params, params, adam.init(params), jnp.zeros((), jnp.int32)

        def step(key: Any, state: Any, rows: Any) -> Any:
            params, mean, optimizer, count = state
            when, noise, drop_key = jax.random.split(key, 3)
            x = 2.0 * jnp.asarray(gallery)[rows] - 1.0
            t = jax.random.randint(when, rows.shape, 0, levels)
            noise, share = jax.random.normal(noise, x.shape), a[t][:, None, None, None]
            y = jnp.where(jax.random.bernoulli(drop_key, drop, rows.shape), classes, jnp.asarray(fitted[0])[rows])

            def error(params: Any) -> Any:
                noisy = jnp.sqrt(share) * x + jnp.sqrt(1.0 - share) * noise
                return jnp.mean(
                    (denoiser.apply({"params": params}, noisy, (t + 1) / levels, y, train=True) - noise) ** 2
                )

            loss, gradient = jax.value_and_grad(error)(params)
            updates, optimizer = adam.update(gradient, optimizer)
            params = optax.apply_updates(params, updates)
            keep = jnp.minimum(average, (1.0 + count) / (10.0 + count))
            mean = optax.incremental_update(params, mean, 1.0 - keep)
            return (params, mean, optimizer, count + 1), info(loss)

        inner = Process(init, step, lambda state: {"params": state[1]}, train_steps)
        return drawn(inner, lambda key: jax.random.randint(key, (train_batch,), 0, n))

    def solve(fitted: Any) -> Process:
        def init(key: Any, _: Any) -> State:
            x, zero = jax.random.normal(key, (candidates, *shape)), jnp.zeros((), jnp.int32)
            return State(x, jnp.zeros_like(x), jnp.zeros(candidates), zero + steps, zero)

        def step(key: Any, state: State, wanted: Any) -> tuple[State, Any]:
            ask, fresh = jax.random.split(key)
            x, at = state.x, jnp.maximum(state.left, 1)
            before, after = a_kept[at], a_kept[at - 1]
            level = jnp.full(2 * candidates, levels_kept[at - 1] / levels)
            y = jnp.repeat(jnp.stack([wanted, jnp.full_like(wanted, classes)]), candidates)
            guided, free = jnp.split(denoiser.apply(fitted[1], jnp.concatenate([x, x]), level, y, train=False), 2)
            e = (1.0 + guidance) * guided - guidance * free
            guess = jnp.clip((x - jnp.sqrt(1.0 - before) * e) / jnp.sqrt(before), -1.0, 1.0)
            e = (x - jnp.sqrt(before) * guess) / jnp.sqrt(1.0 - before)
            v = eta * jnp.sqrt((1.0 - after) / (1.0 - before) * (1.0 - before / after))
            rest = jnp.sqrt(jnp.maximum(1.0 - after - v**2, 0.0))
            x = jnp.sqrt(after) * guess + rest * e + v * jax.random.normal(fresh, x.shape)
            said = sliced(view.answer, jax.random.split(ask, candidates), (guess + 1.0) / 2.0)
            score, queries = state.score + after * (said == wanted), state.queries + candidates
            told = info(-jnp.max(score), queries=queries, done=at == 1, called=jnp.mean(said == wanted))
            return State(x, guess, score, at - 1, queries), told

        return Process(init, step, lambda state: (state.guess[jnp.argmax(state.score)] + 1.0) / 2.0, steps)

    return Attack(solve, (label, diffusion), observes=CARD.observes)
