"""Answers follow the formula, its inverse returns the scores, and rounding is what stops that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.one_parameter_dp import inverse, one_parameter_dp
from jaxmia.defenses.rounding import rounding

KEY = jax.random.key(0)
CLASSES = 10
RNG = np.random.default_rng(0)
DRAWN = [RNG.dirichlet(np.full(CLASSES, a), 300) for a in (0.05, 0.5, 5.0)]
POINTS = np.concatenate([*DRAWN, np.eye(CLASSES)]).astype(np.float32)
TIES = np.array([[1, 1, 1, 1, 1], [0, 2, 2, 1, 2], [0, 0, 0, 1, 1]], np.float32)


def _served(defense, scores=POINTS):
    return np.asarray(jax.jit(defense.answer)(KEY, jnp.asarray(scores)))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0, 150.0])
def test_served_is_the_formula_and_the_inverse_undoes_it(epsilon):
    served = _served(one_parameter_dp(epsilon=epsilon))
    weights = np.exp(epsilon * POINTS.astype(np.float64) / 2)
    np.testing.assert_allclose(served, weights / weights.sum(1, keepdims=True), atol=1e-5)
    found = np.asarray(jax.jit(inverse)(jnp.asarray(served), epsilon))
    np.testing.assert_allclose(found, POINTS, atol=1e-4)


def test_rounding_after_it_is_what_costs_the_adversary():
    def error(defense):
        served = np.maximum(_served(defense), 1e-3)
        return np.abs(np.asarray(inverse(jnp.asarray(served), 1.0)) - POINTS).max(1).mean()

    alone, rounded = one_parameter_dp(epsilon=1.0), rounding(level=0.05)
    both = compose({"one": alone, "rounding": rounded})
    assert error(alone) < 1e-4 and error(both) > 0.1
    assert not both.keeps_label


def test_labels_stay_also_where_scores_are_equal():
    near = np.nextafter(np.float32(0.3), np.float32(1))
    close = np.float32([[0.3, near, 0.2, 0.1, 0.1], [near, 0.3, 0.2, 0.1, 0.1]])
    for scores in (POINTS, TIES / TIES.sum(1, keepdims=True), close):
        for epsilon in (0.01, 1.0, 100.0):
            served = _served(one_parameter_dp(epsilon=epsilon), scores)
            at_label = np.take_along_axis(served, scores.argmax(1)[:, None], 1)[:, 0]
            assert (at_label == served.max(1)).all()


def test_figures_of_the_documentation():
    sure = np.eye(CLASSES, dtype=np.float32)[:1]
    assert _served(one_parameter_dp(epsilon=1.0), sure)[0, 0] == pytest.approx(0.155, abs=1e-3)


def test_epsilon_may_be_traced_and_the_rest_is_the_identity():
    def served(epsilon):
        return one_parameter_dp(epsilon=epsilon).answer(KEY, jnp.asarray(POINTS))

    swept = jax.jit(jax.vmap(served))(jnp.array([0.5, 10.0]))
    np.testing.assert_allclose(swept[1], _served(one_parameter_dp()), atol=1e-6)
    assert np.ptp(swept[0]) < np.ptp(swept[1])
    assert one_parameter_dp()._replace(answer=Defense().answer, keeps_label=False) == Defense()


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_illegal_budgets_are_named(epsilon):
    with pytest.raises(ValueError, match=f"epsilon: {epsilon}; legal is finite and above 0"):
        one_parameter_dp(epsilon=epsilon)
