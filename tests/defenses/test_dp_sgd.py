"""DP-SGD against clipping by hand, statistics of its noise and sampling, and closed forms of its account."""

import math
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats

from jaxmia import engine, train
from jaxmia.core import Defense
from jaxmia.defenses.dp_sgd import dp_sgd, epsilon, noise_for, poisson_batches
from jaxmia.oracle import Outputs

CLIP = 1.4


def _loss(params, key, batch):
    del key
    logits = jnp.tanh(batch["x"] @ params["w"]) @ params["v"]
    return train.mean_cross_entropy(Outputs(logits, {}), batch), {}


def _problem(rows=12):
    rng = np.random.default_rng(0)
    params = {
        "w": rng.normal(size=(5, 4)).astype(np.float32),
        "v": rng.normal(size=(4, 3)).astype(np.float32),
    }
    batch = {
        "x": 3 * rng.normal(size=(rows, 5)).astype(np.float32),
        "y": rng.integers(0, 3, rows).astype(np.int32),
    }
    return params, batch


def _by_hand(params, batch, clip):
    """Sum of clipped gradients, one row at a time in a loop."""
    total = jax.tree.map(np.zeros_like, params)
    norms = []
    for x, y in zip(batch["x"], batch["y"]):
        one = {"x": x[None], "y": y[None]}
        gradient = jax.grad(lambda p, one=one: _loss(p, None, one)[0])(params)
        norm = math.sqrt(sum(float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in jax.tree.leaves(gradient)))
        norms.append(norm)
        total = jax.tree.map(lambda t, g, s=min(1.0, clip / norm): t + s * np.asarray(g), total, gradient)
    return total, np.array(norms)


def _close(actual, expected, atol=2e-6):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=atol), actual, expected)


@pytest.mark.nightly
@pytest.mark.parametrize("backend, microbatch", [("cpu", None), ("gpu", None), ("cpu", 5), ("cpu", 12), ("cpu", 50)])
def test_gradient_is_the_clipped_sum_over_the_expected_size(backend, microbatch, monkeypatch):
    params, batch = _problem()
    total, norms = _by_hand(params, batch, CLIP)
    assert (norms > CLIP).any() and (norms < CLIP).any()  # else nothing is tested
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: backend)  # which decides what None means
        defense = dp_sgd(8.0, clip_norm=CLIP, noise_multiplier=0.0, microbatch=microbatch)
    (value, aux), gradient = jax.jit(defense.grads(_loss))(params, jax.random.key(0), batch)
    _close(gradient, jax.tree.map(lambda t: t / 8.0, total))
    np.testing.assert_allclose(value, _loss(params, None, batch)[0], rtol=1e-5)
    assert aux == {}


@pytest.mark.nightly
@pytest.mark.parametrize("microbatch", [None, 5])
def test_padding_contributes_nothing_whatever_it_holds(microbatch):
    params, batch = _problem()
    defense = dp_sgd(8.0, clip_norm=CLIP, noise_multiplier=0.0, microbatch=microbatch)
    mask = np.array([1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0], np.float32)
    poisoned = {
        **batch,
        "x": np.where(mask[:, None] == 1, batch["x"], np.nan).astype(np.float32),
        "mask": mask,
    }
    (value, _), gradient = defense.grads(_loss)(params, jax.random.key(0), poisoned)
    drawn = {name: array[mask == 1] for name, array in batch.items()}
    _close(gradient, jax.tree.map(lambda t: t / 8.0, _by_hand(params, drawn, CLIP)[0]))
    np.testing.assert_allclose(value, _loss(params, None, drawn)[0], rtol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("microbatch", [None, 5])
def test_an_empty_minibatch_is_noise_alone(microbatch):
    params, batch = _problem()
    batch["mask"] = np.zeros(12, np.float32)
    (value, _), gradient = dp_sgd(8.0, noise_multiplier=0.0, microbatch=microbatch).grads(_loss)(
        params, jax.random.key(0), batch
    )
    assert float(value) == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
    _, gradient = dp_sgd(8.0, noise_multiplier=1.0, microbatch=microbatch).grads(_loss)(
        params, jax.random.key(0), batch
    )
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.nightly
def test_one_example_moves_the_sum_by_at_most_the_clip_norm():
    params, batch = _problem()
    batch["x"] = batch["x"] * 100
    grads = jax.jit(dp_sgd(1.0, clip_norm=CLIP, noise_multiplier=0.0).grads(_loss))
    mask = np.ones(12, np.float32)
    whole = grads(params, jax.random.key(0), {**batch, "mask": mask})[1]
    moves = []
    for row in range(12):
        without = grads(params, jax.random.key(0), {**batch, "mask": np.where(np.arange(12) == row, 0, mask)})[1]
        moves.append(float(optax.tree.norm(jax.tree.map(jnp.subtract, whole, without))))
    assert max(moves) <= CLIP * (1 + 1e-5) and max(moves) > 0.99 * CLIP


def _noise(key, noise_multiplier=1.5, clip=0.5, expected=20.0, size=200_000):
    """What is left of a gradient that is zero."""
    params = {"a": jnp.zeros(size), "b": jnp.zeros((3, 100))}
    flat = lambda p, k, b: (0.0 * (jnp.sum(p["a"]) + jnp.sum(p["b"]) + jnp.sum(b["x"])), {})  # noqa: E731
    defense = dp_sgd(expected, clip_norm=clip, noise_multiplier=noise_multiplier)
    return defense.grads(flat)(params, key, {"x": jnp.ones((2, 1))})[1]


def _scale_fits(sample, scale):
    """Two-sided chi-square test of the variance at level 1e-4."""
    statistic = float(np.sum((np.asarray(sample, np.float64) / scale) ** 2))
    return 5e-5 < scipy.stats.chi2.sf(statistic, sample.size) < 1 - 5e-5


@pytest.mark.nightly
def test_noise_is_gaussian_of_the_stated_scale_and_of_no_other():
    noise = np.asarray(_noise(jax.random.key(3))["a"])
    right = 1.5 * 0.5 / 20.0
    assert _scale_fits(noise, right)
    assert not _scale_fits(noise, 0.98 * right) and not _scale_fits(noise, 1.02 * right)
    assert not _scale_fits(np.asarray(_noise(jax.random.key(3), noise_multiplier=1.5 / 1.02)["a"]), right)
    assert not _scale_fits(np.asarray(_noise(jax.random.key(3), noise_multiplier=1.5 * 1.02)["a"]), right)
    assert scipy.stats.kstest(noise[:20_000] / right, "norm").pvalue > 1e-3
    assert scipy.stats.kstest(noise[:20_000] / right, "logistic", (0, math.sqrt(3) / math.pi)).pvalue < 1e-3


def test_noise_differs_between_steps_and_between_parameters():
    one, two, again = (_noise(jax.random.fold_in(jax.random.key(0), step), size=300) for step in (1, 2, 1))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(again)))
    vectors = [np.asarray(v).ravel() for v in (one["a"], one["b"], two["a"], two["b"])]
    correlation = np.corrcoef(vectors)[np.triu_indices(4, 1)]
    assert np.abs(correlation).max() < 0.25  # 4.3 standard errors


@pytest.mark.nightly
def test_dropout_differs_between_examples_and_not_with_the_microbatch():
    params = {"w": jnp.ones(6)}

    def loss(params, key, batch):
        kept = jax.random.bernoulli(key, 0.5, (6,))
        return jnp.mean(batch["x"]) * jnp.sum(kept * params["w"]), {}

    batch = {"x": jnp.ones((30, 1))}
    sums = [
        dp_sgd(1.0, clip_norm=100.0, noise_multiplier=0.0, microbatch=m).grads(loss)(params, jax.random.key(0), batch)[
            1
        ]
        for m in (None, 7)
    ]
    assert ((sums[0]["w"] > 0) & (sums[0]["w"] < 30)).all()  # one draw for all would give 0 or 30
    _close(sums[1], sums[0])


@pytest.mark.nightly
def test_hyperparameters_can_be_traced():
    params, batch = _problem()

    def size(clip, multiplier):
        defense = dp_sgd(8.0, clip_norm=clip, noise_multiplier=multiplier)
        return optax.tree.norm(defense.grads(_loss)(params, jax.random.key(0), batch)[1])

    clips, multipliers = jnp.array([0.1, 1.0, 1.0]), jnp.array([0.0, 0.0, 2.0])
    swept = jax.jit(jax.vmap(size))(clips, multipliers)
    np.testing.assert_allclose(swept, [size(float(c), float(m)) for c, m in zip(clips, multipliers)], rtol=1e-5)


@pytest.mark.nightly
def test_supervised_learns_under_it_and_reproduces_itself():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 600).astype(np.int32)
    x = (np.eye(3)[y] + 0.3 * rng.normal(size=(600, 3))).astype(np.float32)
    batches = poisson_batches({"x": x, "y": y}, 0.1, seed=0)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(nn.relu(nn.Dense(16)(x)))

    def accuracy(multiplier):
        defense = dp_sgd(60.0, clip_norm=1.0, noise_multiplier=multiplier)
        process = train.supervised(Net(), optax.sgd(0.5), steps=120, defense=defense)
        variables, _ = engine.fit(process, jax.random.key(0), batches, plan=engine.Plan(progress=False))
        return float(np.mean(train.predict(Net(), variables, x).argmax(1) == y)), variables

    (private, one), (again, two) = accuracy(1.1), accuracy(1.1)
    assert private > 0.9 and private == again
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two)))
    assert accuracy(300.0)[0] < 0.8  # so much noise leaves little to learn


@pytest.mark.nightly
def test_batch_statistics_are_refused():
    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(x))

    _, batch = _problem()
    for defense, refused in ((dp_sgd(8.0), True), (Defense(), False)):
        process = train.supervised(Normalized(), optax.sgd(0.1), steps=1, defense=defense)
        state = process.init(jax.random.key(0), batch)
        if refused:
            with pytest.raises(ValueError, match=r"dp_sgd.*batch_stats.*GroupNorm"):
                process.step(jax.random.key(1), state, batch)
        else:
            process.step(jax.random.key(1), state, batch)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"expected_batch_size": 0.0}, "expected_batch_size: 0.0; legal is finite and above 0"),
        ({"clip_norm": 0.0}, "clip_norm: 0.0; legal is finite and above 0"),
        ({"clip_norm": float("nan")}, "clip_norm: nan"),
        ({"clip_norm": float("inf")}, "clip_norm: inf"),
        ({"noise_multiplier": -1.0}, "noise_multiplier: -1.0; legal is finite and 0 or more"),
        ({"microbatch": 0}, "microbatch: 0; legal is None or 1 or more"),
    ],
)
def test_illegal_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        dp_sgd(**{"expected_batch_size": 8.0, **arguments})


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax_privacy", None)
    with pytest.raises(ImportError, match=r"jaxmia\[dp\]"):
        dp_sgd(8.0)
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match=r"jaxmia\[dp\]"):
        epsilon(noise_multiplier=1.0, rate=0.1, steps=1, delta=1e-5)


# ---- Poisson sampling


def _draws(rows=200, rate=0.15, steps=3000, seed=5):
    batch = poisson_batches({"x": np.arange(1, rows + 1)}, rate, seed=seed)
    taken = np.zeros((steps, rows), bool)
    for step in range(steps):
        one = batch(step)
        drawn = one["x"][one["mask"] == 1]
        taken[step, drawn - 1] = True
        assert len(set(drawn)) == len(drawn) and (one["x"][one["mask"] == 0] == 0).all()
    return taken


def test_every_row_is_drawn_independently_at_the_rate():
    rate, rows, steps = 0.15, 200, 3000
    taken = _draws(rows, rate, steps)
    per_row = taken.sum(0)
    chi_square = np.sum((per_row - steps * rate) ** 2) / (steps * rate * (1 - rate))
    assert 1e-4 < scipy.stats.chi2.sf(chi_square, rows) < 1 - 1e-4
    sizes = taken.sum(1)
    spread = np.sum((sizes - rows * rate) ** 2) / (rows * rate * (1 - rate))
    # A fixed size would give 0 here, and rows drawn in pairs twice as much.
    assert 1e-4 < scipy.stats.chi2.sf(spread, steps) < 1 - 1e-4
    neighbors = np.mean(taken[:, :-1] & taken[:, 1:])
    assert abs(neighbors - rate**2) < 5 * math.sqrt(rate**2 / (steps * (rows - 1)))
    again = np.mean(taken[:-1] & taken[1:])
    assert abs(again - rate**2) < 5 * math.sqrt(rate**2 / (rows * (steps - 1)))


def test_sampling_is_a_pure_function_of_step_and_seed():
    arrays = {"x": np.random.default_rng(0).normal(size=(50, 2, 3)).astype(np.float32), "y": np.arange(50)}
    batch = poisson_batches(arrays, 0.3, seed=1)
    late, early = batch(7), batch(2)
    again = poisson_batches(arrays, 0.3, seed=1)
    assert all((again(7)[name] == late[name]).all() for name in late)
    assert late["x"].shape[1:] == (2, 3) and late["x"].dtype == np.float32 and late["mask"].dtype == np.float32
    other = poisson_batches(arrays, 0.3, seed=2)(7)
    assert not np.array_equal(other["y"], late["y"]) and not np.array_equal(early["y"], late["y"])
    drawn = late["mask"] == 1
    assert (arrays["x"][late["y"][drawn]] == late["x"][drawn]).all()


@pytest.mark.parametrize("rows, rate", [(10, 0.3), (600, 0.1), (60_000, 0.01), (5, 1.0), (1, 0.5)])
def test_capacity_is_the_fewest_rows_that_practically_never_overflow(rows, rate):
    batch = poisson_batches({"x": np.zeros(rows, np.int8)}, rate, seed=0)
    capacity = len(batch(0)["mask"])
    tail = scipy.stats.binom(rows, rate).sf
    assert tail(capacity) < 1e-9 <= tail(capacity - 1)
    assert len(poisson_batches({"x": np.zeros(rows)}, rate, seed=0, capacity=capacity + 3)(0)["mask"]) == capacity + 3
    if capacity > 1:
        with pytest.raises(ValueError, match=f"legal is {capacity} or more"):
            poisson_batches({"x": np.zeros(rows)}, rate, seed=0, capacity=capacity - 1)


def test_overflow_raises_and_drops_nothing(monkeypatch):
    import jaxmia.defenses.dp_sgd as module

    monkeypatch.setattr(module, "_fewest_rows", lambda rows, rate: 20)
    batch = poisson_batches({"x": np.zeros(100)}, 0.2, seed=0)
    sizes = [np.random.default_rng((0, step)).random(100) < 0.2 for step in range(20)]
    for step, drawn in enumerate(sizes):
        if drawn.sum() > 20:
            with pytest.raises(OverflowError, match=f"step {step} drew {drawn.sum()} rows"):
                batch(step)
        else:
            assert batch(step)["mask"].sum() == drawn.sum()


@pytest.mark.parametrize(
    "arrays, rate, seed, words",
    [
        ({"x": np.zeros(4), "y": np.zeros(5)}, 0.5, 0, "arrays: lengths"),
        ({"x": np.zeros(0)}, 0.5, 0, "arrays: lengths"),
        ({}, 0.5, 0, "arrays: lengths"),
        ({"x": np.zeros(4), "mask": np.zeros(4)}, 0.5, 0, "mask"),
        ({"x": np.zeros(4)}, 0.0, 0, "rate: 0.0"),
        ({"x": np.zeros(4)}, 1.5, 0, "rate: 1.5"),
        ({"x": np.zeros(4)}, 0.5, -1, "seed: -1"),
    ],
)
def test_illegal_sampling_is_named(arrays, rate, seed, words):
    with pytest.raises(ValueError, match=words):
        poisson_batches(arrays, rate, seed=seed)


# ---- accounting


def test_epsilon_of_the_reference_setting():
    setting = {"noise_multiplier": 1.1, "rate": 0.01, "steps": 1000, "delta": 1e-5}
    assert epsilon(**setting) == pytest.approx(1.515, abs=0.01)
    assert epsilon(**setting, accountant="rdp") == pytest.approx(1.712, abs=0.01)


@pytest.mark.parametrize("sigma, steps", [(1.0, 1), (3.0, 5), (8.0, 100)])
def test_epsilon_without_sampling_is_that_of_the_gaussian_mechanism(sigma, steps):
    """Balle and Wang 2018, theorem 8; k steps are one of sigma / sqrt(k)."""
    one, delta = sigma / math.sqrt(steps), 1e-5
    cdf = scipy.stats.norm.cdf

    def excess(eps):
        return cdf(0.5 / one - eps * one) - math.exp(eps) * cdf(-0.5 / one - eps * one) - delta

    exact = scipy.optimize.brentq(excess, 0.0, 50.0)
    found = epsilon(noise_multiplier=sigma, rate=1.0, steps=steps, delta=delta)
    assert exact * (1 - 1e-6) <= found <= exact * 1.005 + 1e-3  # never below: it is a guarantee
    assert epsilon(noise_multiplier=sigma, rate=1.0, steps=steps, delta=delta, accountant="rdp") > exact


@pytest.mark.parametrize("sigma, rate", [(1.0, 0.1), (0.8, 0.3)])
def test_epsilon_of_one_sampled_step_is_the_hockey_stick_divergence(sigma, rate):
    """Of N(0, s^2) against (1 - q) N(0, s^2) + q N(1, s^2), the worse way round, integrated by numbers."""
    delta = 1e-4
    grid = np.linspace(-12 * sigma, 12 * sigma + 1, 400_001)
    plain = scipy.stats.norm.pdf(grid, 0, sigma)
    mixed = (1 - rate) * plain + rate * scipy.stats.norm.pdf(grid, 1, sigma)

    def excess(eps):
        ways = [np.maximum(a - math.exp(eps) * b, 0) for a, b in ((plain, mixed), (mixed, plain))]
        return max(scipy.integrate.trapezoid(way, grid) for way in ways) - delta

    exact = scipy.optimize.brentq(excess, 0.0, 20.0)
    assert epsilon(noise_multiplier=sigma, rate=rate, steps=1, delta=delta) == pytest.approx(exact, abs=2e-3)


@pytest.mark.nightly
def test_epsilon_moves_as_it_must():
    base = {"noise_multiplier": 1.1, "rate": 0.05, "steps": 50, "delta": 1e-5}
    value = epsilon(**base)
    assert epsilon(**{**base, "noise_multiplier": 2.0}) < value < epsilon(**{**base, "rate": 0.1})
    assert epsilon(**{**base, "delta": 1e-3}) < value < epsilon(**{**base, "steps": 100})
    assert epsilon(**{**base, "noise_multiplier": 0.0}) == float("inf")
    assert epsilon(**{**base, "steps": 0}) == 0.0


@pytest.mark.parametrize(
    "change, words",
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier: -1.0"),
        ({"rate": 0.0}, "rate: 0.0"),
        ({"rate": 1.1}, "rate: 1.1"),
        ({"steps": -1}, "steps: -1"),
        ({"delta": 0.0}, "delta: 0.0"),
        ({"delta": 1.0}, "delta: 1.0"),
        ({"accountant": "moments"}, "accountant: 'moments'; legal is 'pld' or 'rdp'"),
    ],
)
def test_illegal_accounts_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        epsilon(**{"noise_multiplier": 1.1, "rate": 0.01, "steps": 10, "delta": 1e-5, **change})


def test_the_noise_for_an_epsilon_is_the_least_that_keeps_it():
    setting = {"rate": 0.01, "steps": 200, "delta": 1e-5, "accountant": "rdp"}
    for most in (0.4, 40.0):
        sigma = noise_for(most, **setting)
        assert epsilon(noise_multiplier=sigma, **setting) <= most
        assert epsilon(noise_multiplier=sigma * (1 - 1e-3), **setting) > most


def test_noise_for_an_epsilon_of_one_gaussian_release_is_that_of_the_closed_form():
    """Balle and Wang 2018, theorem 8, with the tight accountant."""
    sigma, cdf = noise_for(1.0, rate=1.0, steps=1, delta=1e-5), scipy.stats.norm.cdf
    exact = scipy.optimize.brentq(lambda s: cdf(0.5 / s - s) - math.e * cdf(-0.5 / s - s) - 1e-5, 0.5, 50.0)
    assert exact * (1 - 1e-6) <= sigma <= exact * 1.005


@pytest.mark.nightly
@pytest.mark.parametrize(
    "examples, steps, delta, ladder, within",
    [
        # Handed down with the older conversion from Renyi moments, which tells up to a fifth more for little noise.
        (5000, 500, 2e-5, {10.5: 0.5, 3.3: 0.7, 1.2: 1.0}, 0.1),
        (140, 300, 1 / 1400, {32.0: 1.0, 9.7: 2.0, 3.7: 4.0, 1.6: 8.0}, 0.02),
    ],
)
def test_noise_for_the_epsilons_of_two_audits(examples, steps, delta, ladder, within):
    """Digits and portraits in minibatches of 32, by Renyi moments."""
    for most, sigma in ladder.items():
        found = noise_for(most, rate=32 / examples, steps=steps, delta=delta, accountant="rdp")
        assert found == pytest.approx(sigma, rel=within)


def test_noise_for_illegal_budgets_is_refused():
    setting = {"rate": 0.01, "steps": 10, "delta": 1e-5, "accountant": "rdp"}
    for most in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"most: {most}; legal is finite and above 0"):
            noise_for(most, **setting)
    with pytest.raises(ValueError, match="steps: 0; legal is 1 or more"):
        noise_for(1.0, **{**setting, "steps": 0})
