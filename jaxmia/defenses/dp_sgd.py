"""DP-SGD: clip every example's gradient, add Gaussian noise to their sum, and account for what was spent.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, Algorithm 1
(https://arxiv.org/abs/1607.00133):

    clip    g_i <- g_i * min(1, C / |g_i|)
    noise   g   <- (sum_i g_i + N(0, (sigma C)^2 I)) / L,   L = q N, the *expected* batch size

where each of the N examples is in a minibatch with probability q, independently of the rest and of other
steps (Poisson sampling). Dividing by the size that was drawn, or walking through shuffled minibatches of one
size, would void the account. Three parts belong together: `poisson_batches` draws minibatches, the defense
takes gradients, and `epsilon` gives the (epsilon, delta) guarantee, for neighbors that differ by the presence
of one example, of as many steps as were taken; `noise_for` gives the sigma that a wanted epsilon needs.

What differs. The paper clips the whole gradient or each layer; here the whole. It accounts by moments; here by
privacy loss distributions, which are tight (Koskela, Jalko, Honkela 2020; for sigma 1.1, q 0.01, 1000 steps
and delta 1e-5 epsilon is 1.52 instead of 1.71). Its MNIST run has C = 4 and sigma 2, 4 or 8 for epsilon 8, 2 or
0.5; the defaults here are today's common ones. Known faults of released code that are not repeated: one
backward pass per example, no accountant, an epsilon of Poisson sampling reported for shuffled minibatches.

What the guarantee does not cover: the loss history, which is not noised; hyperparameters chosen by looking at
private data; floating-point Gaussians (Mironov 2012) and generators that are not cryptographic. It protects
single examples: what all pictures of one person have in common is not hidden by it.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmia.core import Card, Defense, Scalar
from jaxmia.packages import require

__all__ = ["CARD", "dp_sgd", "epsilon", "noise_for", "poisson_batches"]

CARD = Card(
    title="DP-SGD",
    paper="Abadi, Chu, Goodfellow, McMahan et al. Deep Learning with Differential Privacy. CCS 2016",
    url="https://arxiv.org/abs/1607.00133",
    year=2016,
    modality="any",
    hook="grads, batches, spent",
)

OVERFLOW = 1e-9
"""The probability that one Poisson minibatch does not fit its capacity stays below this."""


def dp_sgd(
    expected_batch_size: Scalar,
    *,
    clip_norm: Scalar = 1.0,
    noise_multiplier: Scalar = 1.1,
    microbatch: int | None = None,
) -> Defense:
    """The defense: gradients clipped per example, summed, noised, divided by the expected batch size.

    Minibatches come from `poisson_batches`; where "mask" is zero a row is padding and adds nothing. The scalar
    beside the gradients is the plain mean loss of the drawn rows: not private, and 0 if none was drawn.

    Args:
      expected_batch_size: L = rate * number of examples.
      clip_norm: C, most L2 norm of one example's gradient.
      noise_multiplier: sigma, standard deviation of the noise in units of `clip_norm`.
      microbatch: per-example gradients held at a time; None takes 1 on CPU, where holding more is slower (19 ms
        against 350 for 128 images and a small convolution net), and the whole minibatch elsewhere.

    Raises:
      ImportError: without jax-privacy or dp-accounting, naming the extra that installs both.
      ValueError: if a number is out of range; at the first step, if the model keeps minibatch statistics
        (BatchNorm), through which examples would reach it unclipped.
    """
    _finite("expected_batch_size", expected_batch_size)
    _finite("clip_norm", clip_norm)
    _finite("noise_multiplier", noise_multiplier, zero=True)
    if microbatch is not None and microbatch < 1:
        raise ValueError(f"microbatch: {microbatch}; legal is None or 1 or more")
    require("jax_privacy", "dp_accounting")  # the latter tells what was spent, after a training
    clipped_grad = _load("jax_privacy").clipped_grad
    at_a_time = 1 if microbatch is None and jax.default_backend() == "cpu" else microbatch

    def grads(loss: Callable) -> Callable:
        summed = clipped_grad(
            loss,
            has_aux=True,
            l2_clip_norm=clip_norm,
            batch_argnums=2,
            prng_argnum=1,
            return_values=True,
            microbatch_size=at_a_time,
        )

        def value_and_grad(params: Any, key: Any, batch: Any) -> Any:
            rows = len(batch["x"])
            drawn = batch.get("mask", jnp.ones(rows)) != 0
            more = 0 if at_a_time is None else -rows % at_a_time
            batch = jax.tree.map(lambda a: jnp.pad(a, [(0, more)] + [(0, 0)] * (a.ndim - 1)), batch)
            examples, noise_key = jax.random.split(key)
            with warnings.catch_warnings():  # jax-privacy 2.0.0 calls a name that optax has renamed
                warnings.filterwarnings("ignore", "optax.global_norm", DeprecationWarning)
                total, told = summed(params, examples, batch, is_padding_example=~jnp.pad(drawn, (0, more)))
            _refuse_statistics(told.aux)
            noise = optax.tree.random_like(noise_key, total, jax.random.normal)
            scale = clip_norm * noise_multiplier
            private = jax.tree.map(lambda g, z: (g + scale * z) / expected_batch_size, total, noise)
            value = jnp.sum(jnp.where(drawn, told.values[:rows], 0.0)) / jnp.maximum(jnp.sum(drawn), 1)
            return (value, told.aux), private

        return value_and_grad

    def batches(arrays: dict[str, Any], size: int, seed: int) -> Callable[[int], Any]:
        return poisson_batches(arrays, size / len(arrays["x"]), seed=seed)

    def spent(size: int, examples: int, steps: int) -> str:
        delta = 0.1 / examples
        found = epsilon(noise_multiplier=float(noise_multiplier), rate=size / examples, steps=steps, delta=delta)
        return f"epsilon {found:.3g} for one example at delta {delta:.1g}"

    return Defense(grads=grads, batches=batches, spent=spent)


def poisson_batches(
    arrays: dict[str, np.ndarray], rate: float, *, seed: int, capacity: int | None = None
) -> Callable[[int], dict[str, np.ndarray]]:
    """`step -> minibatch` by Poisson sampling: every row with probability `rate`, independently of all else.

    Minibatches have a random number of rows, so zeros pad them to `capacity` rows, and "mask" (float32
    `[capacity]`) is 1 where a row was drawn. The same step gives the same minibatch, in any order of calls. No
    drawn row is ever dropped, which would void the account.

    Args:
      arrays: arrays by name ("x", "y") that share their first axis.
      rate: q, above 0 and at most 1; rate * rows is the expected batch size.
      seed: of the draws, at least 0; it is as secret as the data.
      capacity: rows per minibatch; None takes the fewest that one exceeds with probability < 1e-9.

    Raises:
      ValueError: if a number is out of range, lengths differ, "mask" is taken, or the capacity is exceeded more
        often than that (naming the fewest legal rows).
      OverflowError: when, against these odds, a minibatch does not fit.

    >>> batch = poisson_batches({"x": np.arange(1.0, 11.0)}, 0.3, seed=0)(0)
    >>> batch["x"].shape == batch["mask"].shape, bool((batch["x"][batch["mask"] == 0] == 0).all())
    (True, True)
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"arrays: lengths are {lengths}; legal is one length above 0 for all")
    if "mask" in arrays:
        raise ValueError('arrays: has "mask", which here says which rows were drawn; give it another name')
    _check_rate(rate)
    if seed < 0:
        raise ValueError(f"seed: {seed}; legal is 0 or more")
    rows = next(iter(lengths.values()))
    fewest = _fewest_rows(rows, rate)
    size = fewest if capacity is None else capacity
    if size < fewest:
        raise ValueError(
            f"capacity: {size} of {rows} rows at rate {rate} is exceeded with probability above {OVERFLOW:g}; "
            f"legal is {fewest} or more"
        )

    def batch(step: int) -> dict[str, np.ndarray]:
        drawn = np.flatnonzero(np.random.default_rng((seed, step)).random(rows) < rate)
        if len(drawn) > size:
            raise OverflowError(f"capacity: {size}, but step {step} drew {len(drawn)} rows; legal is more")
        padded = {}
        for name, array in arrays.items():
            padded[name] = np.zeros((size,) + array.shape[1:], array.dtype)
            padded[name][: len(drawn)] = array[drawn]
        return {**padded, "mask": (np.arange(size) < len(drawn)).astype(np.float32)}

    return batch


def epsilon(
    *,
    noise_multiplier: float,
    rate: float,
    steps: int,
    delta: float,
    accountant: str = "pld",
) -> float:
    """Epsilon of the (epsilon, delta) guarantee of `steps` Gaussian steps on Poisson minibatches.

    Neighbors differ by the presence of one example. It holds only for minibatches that `poisson_batches` drew.

    Args:
      noise_multiplier: sigma; 0 gives infinity.
      rate: q, the probability of each example to be in a minibatch.
      steps: taken.
      delta: between 0 and 1, well below 1 / number of examples.
      accountant: "pld" by privacy loss distributions, tight up to their discretization, or "rdp" by Renyi
        moments, the looser bound that older papers report.

    Raises:
      ImportError: without dp-accounting, naming the extra that installs it.
      ValueError: if a number or the accountant is out of range.
    """
    _finite("noise_multiplier", noise_multiplier, zero=True)
    _check_rate(rate)
    if steps < 0:
        raise ValueError(f"steps: {steps}; legal is 0 or more")
    if not 0 < delta < 1:
        raise ValueError(f"delta: {delta}; legal is above 0 and below 1")
    if accountant not in ("pld", "rdp"):
        raise ValueError(f"accountant: {accountant!r}; legal is 'pld' or 'rdp'")
    if steps == 0 or noise_multiplier == 0:
        return 0.0 if steps == 0 else float("inf")
    accounting = _load("dp_accounting")
    ledger = accounting.pld.PLDAccountant() if accountant == "pld" else accounting.rdp.RdpAccountant()
    one_step = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(noise_multiplier))
    return float(ledger.compose(one_step, steps).get_epsilon(delta))


def noise_for(most: float, *, rate: float, steps: int, delta: float, accountant: str = "pld") -> float:
    """The least noise multiplier whose epsilon is at most `most`, and at most 0.1 percent more than that.

    By bisection; each of some 20 halvings asks `epsilon` once, which takes seconds with "pld" and many steps. What is
    returned was accounted for itself, so that it keeps the promise.

    Args:
      most: the epsilon that may be spent, above 0.
      rate: q, as in `epsilon`.
      steps: to be taken, 1 or more.
      delta: as in `epsilon`.
      accountant: as in `epsilon`.

    Raises:
      ImportError: without dp-accounting, naming the extra that installs it.
      ValueError: if a number or the accountant is out of range, or no noise up to 1e6 is enough.
    """
    _finite("most", most)
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")

    def spends(sigma: float) -> float:
        return epsilon(noise_multiplier=sigma, rate=rate, steps=steps, delta=delta, accountant=accountant)

    high = 1.0
    while spends(high) > most:
        high *= 2
        if high > 1e6:
            raise ValueError(f"most: {most}; legal is what a noise multiplier of up to 1e6 can keep")
    low = high / 2 if high > 1 else 0.0  # without noise nothing is kept
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spends(middle) > most else (low, middle)
    return high


def _fewest_rows(rows: int, rate: float) -> int:
    """The least k of 1 or more with P[Binomial(rows, rate) > k] < OVERFLOW, by bisection."""
    from scipy.special import bdtrc

    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bdtrc(middle, rows, rate) < OVERFLOW else (middle, high)
    return high


def _refuse_statistics(aux: Any) -> None:
    found = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(aux)]
    if found:
        raise ValueError(
            f"dp_sgd: the model keeps statistics of the minibatch, {found[0]}, which no clipping bounds; "
            "legal is a model without BatchNorm (take GroupNorm or LayerNorm)"
        )


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"rate: {rate}; legal is above 0 and at most 1")


def _finite(name: str, value: Any, *, zero: bool = False) -> None:
    swept = isinstance(value, jax.Array)  # may be traced, without a number to look at
    if not swept and not (0 < value < float("inf") or (zero and value == 0)):
        raise ValueError(f"{name}: {value}; legal is finite and {'0 or more' if zero else 'above 0'}")


def _load(package: str) -> Any:
    """Import on use: both packages take seconds to load, and nothing else needs them."""
    require(package)
    return importlib.import_module(package)
