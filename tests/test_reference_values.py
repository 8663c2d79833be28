"""Objectives and regularizers against their formulas, computed anew in numpy and double precision on random inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.attacks.image.deep_inversion import moment_distance, total_variation
from jaxmia.attacks.image.if_gmi import to_l1_ball
from jaxmia.objectives import cross_entropy, logit, margin, mmd, poincare

CLASSES, LABEL = 1000, 17


def cross_entropy_64(x):
    """-log softmax(x)_y, and softmax(x) - onehot(y)."""
    shares = np.exp(x - x.max())
    shares /= shares.sum()
    return np.log(np.exp(x - x.max()).sum()) + x.max() - x[LABEL], shares - np.eye(CLASSES)[LABEL]


def logit_64(x):
    return -x[LABEL], -np.eye(CLASSES)[LABEL]


def margin_64(x):
    second = np.where(np.arange(CLASSES) == LABEL, -np.inf, x).argmax()
    return x[second] - x[LABEL], np.eye(CLASSES)[second] - np.eye(CLASSES)[LABEL]


def poincare_64(x):
    """arccosh(1 + 2 |u - v|^2 / ((1 - |u|^2) (1 - |v|^2))), u = x / |x|_1, v = onehot less 1e-4, and its gradient."""
    size = np.abs(x).sum()
    u, v = x / size, np.clip(np.eye(CLASSES)[LABEL] - 1e-4, 0, 1)
    apart, inner, outer = ((u - v) ** 2).sum(), 1 - (u**2).sum(), 1 - (v**2).sum()
    d = 1 + 2 * apart / (inner * outer)
    by_u = (4 * (u - v) * inner + 4 * apart * u) / (inner**2 * outer) / np.sqrt(d**2 - 1)
    return np.arccosh(d), (by_u - np.sign(x) * (by_u @ u)) / size


FORMULAS = {cross_entropy: cross_entropy_64, logit: logit_64, margin: margin_64, poincare: poincare_64}


@pytest.mark.parametrize("objective", FORMULAS, ids=lambda objective: objective.__name__)
@pytest.mark.parametrize("case", ["random", "label at +50", "another at +50"])
def test_an_identity_loss_and_its_gradient(objective, case):
    found = jax.jit(jax.value_and_grad(objective))
    for seed in range(8):
        x = np.random.default_rng(seed).normal(size=CLASSES) * 3
        if case != "random":
            x[LABEL if case.startswith("label") else 5] = 50.0
        x = x.astype(np.float32)
        value, slope = found(jnp.asarray(x), jnp.asarray(LABEL))
        wanted, steep = FORMULAS[objective](x.astype(np.float64))
        # 1 - |v|^2 is 2e-4, of which single precision knows 3e-4.
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=4e-4 if objective is poincare else 1e-5)
        assert np.linalg.norm(slope - steep) <= 2e-4 * np.linalg.norm(steep) + 1e-7


def test_the_squared_mean_discrepancy_of_five_kernels():
    """E k(a, a') + E k(b, b') - 2 E k(a, b), the kernels as wide as the mean squared distance times 1/4, 1/2, 1, 2, 4."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 5)).astype(np.float32), (1.5 + 2 * rng.normal(size=(7, 5))).astype(np.float32)
    rows = np.concatenate([a, b]).astype(np.float64)
    pairs = [(i, j) for i in range(16) for j in range(16)]
    apart = {(i, j): ((rows[i] - rows[j]) ** 2).sum() for i, j in pairs}
    width = sum(apart.values()) / (16 * 15)

    def mean(first, second):
        terms = [np.exp(-apart[i, j] / (width * 2.0**k)) for i in first for j in second for k in range(-2, 3)]
        return np.sum(terms) / (len(first) * len(second))

    one, two = range(9), range(9, 16)
    wanted = mean(one, one) + mean(two, two) - 2 * mean(one, two)
    assert wanted > 0.5
    np.testing.assert_allclose(mmd(jnp.asarray(a), jnp.asarray(b)), wanted, rtol=1e-5)


def test_total_variation_of_four_directions():
    """Norms over the whole batch of the differences of a pixel to that on its right, below, and below on both sides."""
    u = np.random.default_rng(1).normal(size=(4, 16, 12, 3)).astype(np.float32)
    sums = dict.fromkeys([(0, 1), (1, 0), (1, 1), (1, -1)], 0.0)
    for down, right in sums:
        for row in range(16 - down):
            for column in range(12):
                if 0 <= column + right < 12:
                    off = u[:, row + down, column + right].astype(np.float64) - u[:, row, column]
                    sums[down, right] += (off**2).sum()
    wanted = sum(np.sqrt(value) for value in sums.values())
    np.testing.assert_allclose(total_variation(jnp.asarray(u)), wanted, rtol=1e-5)


@pytest.mark.parametrize("first", [1.0, 10.0])
def test_the_regularizer_of_batch_statistics(first):
    """|mean - m| + |var - v| summed over layers, the biased variance over images and positions."""
    rng = np.random.default_rng(2)
    maps = {"conv": rng.normal(1.0, 2.0, size=(6, 5, 4, 8)), "dense": rng.normal(size=(6, 10))}
    known = {
        name: {"mean": rng.normal(size=x.shape[-1]), "var": rng.uniform(0.5, 2, x.shape[-1])}
        for name, x in maps.items()
    }
    wanted = 0.0
    for name, x in maps.items():
        rows = [x[index] for index in np.ndindex(x.shape[:-1])]
        mean = sum(rows) / len(rows)
        variance = sum((row - mean) ** 2 for row in rows) / len(rows)
        far = np.sqrt(((mean - known[name]["mean"]) ** 2).sum()) + np.sqrt(((variance - known[name]["var"]) ** 2).sum())
        wanted += first * far if name == "conv" else far
    features = {
        "batch_norm/0000/a/conv": jnp.asarray(maps["conv"], jnp.float32),
        "batch_norm/0001/dense": jnp.asarray(maps["dense"], jnp.float32),
        "penultimate": jnp.ones((6, 3)),
    }
    statistics = jax.tree.map(jnp.float32, {"a": {"conv": known["conv"]}, "dense": known["dense"]})
    np.testing.assert_allclose(moment_distance(features, statistics, first), wanted, rtol=1e-5)


@pytest.mark.parametrize("radius", [0.5, 30.0, 400.0, 2000.0])
def test_the_projection_onto_the_l1_ball(radius):
    """All sizes shrink by s, where sum max(|x| - s, 0) = radius, found by bisection; inside the ball nothing does."""
    x = np.random.default_rng(3).normal(size=(20, 15, 3)).astype(np.float32)
    sizes, low, high = np.abs(x.astype(np.float64)), 0.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(sizes - middle, 0).sum() > radius else (low, middle)
    wanted = np.sign(x) * np.maximum(sizes - high, 0)
    assert (sizes.sum() <= radius) == (radius == 2000.0)
    np.testing.assert_allclose(to_l1_ball(jnp.asarray(x), radius), wanted, atol=2e-5)
