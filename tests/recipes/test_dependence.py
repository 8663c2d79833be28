"""The measures of dependence against numpy, on tables of five rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.recipes.dependence import BINS, MEASURES, cka, dp, hsic, kde, kde_of_columns, kl, mse

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(5, 5)), RNG.normal(size=(5, 5))
WIDE = RNG.normal(size=(5, 3))


def value(measure, a, b):
    return float(measure(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)))


def hsic_by_hand(a, b):
    center = np.eye(5) - np.ones((5, 5)) / 5
    return np.trace(a @ a.T @ center @ b @ b.T @ center)


def information_by_hand(one, other):
    """2 I / (H_1 + H_2) of shares `[m, p]` and `[m, q]`, by loops."""
    joint = np.zeros((one.shape[1], other.shape[1]))
    for row_a, row_b in zip(one, other):
        joint += np.outer(row_a, row_b)

    def entropy(p):
        p = p / p.sum()
        return -sum(x * np.log2(x) for x in p.ravel() if x > 0)

    alone = entropy(one.sum(0)) + entropy(other.sum(0))
    return 2 * (alone - entropy(joint)) / alone


def shares_of_entries(table):
    centers = np.linspace(table.min(), table.max(), BINS)
    kernels = np.exp(-0.5 * ((table.reshape(-1, 1) - centers) / (centers[1] - centers[0])) ** 2)
    return kernels / kernels.sum(1, keepdims=True)


def shares_of_columns(table):
    return np.array([[np.exp(-0.5 * ((x - j * 5 / 4) / 0.32) ** 2) for j, x in enumerate(row)] for row in table])


def softmax(table):
    return np.exp(table) / np.exp(table).sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("measure", "wanted"),
    [
        (mse, ((A - B) ** 2).mean()),
        (kl, (softmax(A) * np.log(softmax(A) / softmax(B))).sum() / 5),
        (hsic, hsic_by_hand(A, B)),
        (cka, hsic_by_hand(A, B) / np.sqrt(hsic_by_hand(A, A) * hsic_by_hand(B, B))),
        (dp, np.sqrt(((B.T @ A) ** 2).sum())),
        (kde, information_by_hand(shares_of_entries(A), shares_of_entries(B))),
        (kde_of_columns, information_by_hand(shares_of_columns(A), shares_of_columns(B))),
    ],
)
def test_a_measure_is_what_numpy_says(measure, wanted):
    assert value(measure, A, B) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("measure", [hsic, cka, dp])
def test_tables_need_only_have_as_many_rows(measure):
    assert value(measure, A, WIDE) == pytest.approx(value(measure, WIDE, A), rel=1e-5)


@pytest.mark.parametrize("name", MEASURES)
def test_a_table_tells_most_of_itself(name):
    same, other = (value(MEASURES[name].of, A, b) for b in (A, B))
    assert same > other if MEASURES[name].grows else same == pytest.approx(0, abs=1e-6) and other > 0.1


def test_cka_and_kde_are_shares():
    for measure in (cka, kde):
        assert -1e-5 <= value(measure, A, B) < value(measure, A, A) <= 1 + 1e-5
    assert value(cka, A, 3 * A + 2) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", MEASURES)
def test_constant_tables_have_finite_values_and_slopes(name):
    measure = MEASURES[name].of
    for a, b in ((np.zeros((5, 5)), A), (A, np.zeros((5, 5))), (np.zeros((5, 5)), np.zeros((5, 5)))):
        found, slope = jax.value_and_grad(measure, argnums=1)(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
        assert np.isfinite(found) and np.all(np.isfinite(slope))
    if MEASURES[name].grows:
        assert value(measure, np.ones((5, 5)), A) == pytest.approx(0, abs=1e-4) or name == "dp"


def test_slopes_are_finite_differences():
    for name, (measure, _) in MEASURES.items():
        bump = np.zeros((5, 5))
        bump[1, 2] = 1e-2
        slope = jax.grad(measure, argnums=1)(jnp.asarray(A, jnp.float32), jnp.asarray(B, jnp.float32))[1, 2]
        rise = (value(measure, A, B + bump) - value(measure, A, B - bump)) / 2e-2
        assert float(slope) == pytest.approx(rise, rel=0.02, abs=2e-3), name


def test_the_released_kde_sees_the_first_columns_alone():
    """A matrix of 20 nodes with entries in [0, 1]: no entry comes near the value of its column from the third on."""
    a, b = (np.random.default_rng(seed).uniform(size=(20, 20)) for seed in (1, 2))
    slope = jax.grad(kde_of_columns, argnums=1)(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    size = np.abs(slope).max(0)
    assert size[:3].max() > 1e-3 and np.all(size[5:] <= 1e-6 * size.max())
