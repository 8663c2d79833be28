"""The closed form is that of a convex solver, tables hold means, answers move by their budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import entr, rel_entr

from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.rounding import rounding
from jaxmia.defenses.stealthy_shield import nearest_within, stealthy_shield
from jaxmia.engine import fit
from jaxmia.plan import Plan

KEY = jax.random.key(0)
CLASSES = 5
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(CLASSES, 0.6), 40).astype(np.float32)
Q = RNG.dirichlet(np.full(CLASSES, 0.8), 40).astype(np.float32) + np.float32(1e-3)
Q = Q / Q.sum(1, keepdims=True)
BUDGETS = RNG.uniform(0.02, 1.0, 40).astype(np.float32)


def _solved(p, q, budget):
    """p' = p + up - down by a general solver, in float64."""
    p, q = p.astype(np.float64) / p.sum(dtype=np.float64), q.astype(np.float64)

    def at(z):
        return np.maximum(p + z[:CLASSES] - z[CLASSES:], 1e-12)

    def slope(z):
        each = np.log(at(z) / q) + 1
        return np.concatenate([each, -each])

    within = {"type": "ineq", "fun": lambda z: budget - z.sum()}
    positive = {"type": "ineq", "fun": lambda z: p + z[:CLASSES] - z[CLASSES:]}
    balanced = {"type": "eq", "fun": lambda z: z[:CLASSES].sum() - z[CLASSES:].sum()}
    found = minimize(
        lambda z: rel_entr(at(z), q).sum(), np.full(2 * CLASSES, budget / 40),
        jac=slope, method="SLSQP",
        bounds=[(0, 2)] * 2 * CLASSES, constraints=[within, positive, balanced],
        options={"maxiter": 500, "ftol": 1e-12},
    )  # fmt: skip
    assert found.success
    return at(found.x)


def _nearest(p, q, budget):
    return np.asarray(jax.jit(nearest_within)(jnp.asarray(p), jnp.asarray(q), jnp.asarray(budget)))


def test_the_closed_form_is_what_a_convex_solver_finds():
    got = _nearest(P, Q, BUDGETS)
    wanted = np.stack([_solved(*row) for row in zip(P, Q, BUDGETS)])
    np.testing.assert_allclose(got, wanted, atol=2e-4)
    assert (rel_entr(got, Q).sum(1) <= rel_entr(wanted, Q).sum(1) + 1e-5).all()
    inside = np.abs(P - Q).sum(1) <= BUDGETS
    assert 0 < inside.sum() < len(P) and (got[inside] == Q[inside]).all()
    spent = np.abs(got - P).sum(1)[~inside]
    np.testing.assert_allclose(spent, BUDGETS[~inside], atol=1e-5)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)


def test_extreme_answers_stay_finite_and_distributions():
    p = np.eye(CLASSES, dtype=np.float32)
    q = np.full((CLASSES, CLASSES), 1e-8, np.float32) + np.eye(CLASSES, k=1, dtype=np.float32)
    q[-1, 0] = 1
    for budget in (1e-4, 0.5, 1.9):
        got = _nearest(p, q, np.full(CLASSES, budget, np.float32))
        np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)
        assert (got >= 0).all()
        np.testing.assert_allclose(np.abs(got - p).sum(1), budget, atol=1e-5)
    assert (_nearest(P, Q, np.zeros(40, np.float32)) == P).all()


def _scores(key, x):
    del key
    return jax.nn.softmax(4 * x)


ROWS = RNG.random((8, 16, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES - 1, (8, 16)).astype(np.int32)  # the last class is never seen


def _batch(step):
    return {"x": ROWS[step], "y": LABELS[step]}


def _fitted(batches=_batch):
    process = stealthy_shield(steps=8).guard.fit(_scores)
    return fit(process, KEY, batches, plan=Plan(progress=False))


def test_the_guard_reads_out_mean_answers_of_classes_and_leaves_out_padding():
    table, history = _fitted()
    answers = np.exp(4.0 * ROWS.reshape(-1, CLASSES))
    answers /= answers.sum(1, keepdims=True)
    wanted = np.eye(CLASSES)
    for c in range(CLASSES - 1):
        wanted[c] = answers[LABELS.reshape(-1) == c].mean(0)
    np.testing.assert_allclose(table, wanted, atol=1e-6)
    assert np.min(table) > 0 and (history.loss > 0).all()

    def padded(step):
        junk = {"x": np.ones((4, CLASSES), np.float32), "y": np.zeros(4, np.int32)}
        whole = {k: np.concatenate([v, junk[k]]) for k, v in _batch(step).items()}
        return {**whole, "mask": np.repeat(np.float32([1, 0]), [16, 4])}

    same, padded_history = _fitted(padded)
    np.testing.assert_allclose(same, table, atol=1e-7)
    np.testing.assert_allclose(padded_history.loss, history.loss, atol=1e-6)


def test_answers_move_by_a_share_of_their_entropy_towards_the_drawn_class():
    table = jnp.asarray(Q[:CLASSES])
    p = np.repeat(np.float32([[0.5, 0.4, 0.1, 0, 0]]), 4000, axis=0)
    served = np.asarray(jax.jit(stealthy_shield().guard.answer(table))(KEY, jnp.asarray(p)))
    moved = np.abs(served - p).sum(1)
    np.testing.assert_allclose(moved, 0.5 * entr(p[0]).sum(), atol=1e-5)
    towards = [_nearest(p[:1], Q[c : c + 1], moved[:1])[0] for c in range(2)]
    shares = [np.isclose(served, t, atol=1e-4).all(1).mean() for t in towards]
    drawn = np.exp(p[0] / 0.1) / np.exp(p[0] / 0.1).sum()
    np.testing.assert_allclose(shares, drawn[:2], atol=0.03)


def test_budget_zero_changes_no_bit_and_may_be_traced():
    def shielded(epsilon):
        answer = stealthy_shield(epsilon=epsilon).guard.answer(jnp.asarray(Q[:CLASSES]))
        return answer(KEY, jnp.asarray(P))

    off, on = jax.jit(jax.vmap(shielded))(jnp.array([0.0, 0.5]))
    assert (off == P).all() and np.abs(on - P).max() > 0.01


def test_it_is_fitted_to_what_earlier_defenses_answer():
    both = compose({"rounding": rounding(level=0.5), "shield": stealthy_shield(steps=8)})
    table, _ = fit(both.guard.fit(_scores), KEY, _batch, plan=Plan(progress=False))
    plain, _ = _fitted()
    assert np.abs(table - plain).max() > 0.05 and not both.keeps_label
    assert both.guarded(table).guard is None
    assert both.guarded(table).answer is not Defense().answer


def test_illegal_arguments_are_named():
    with pytest.raises(ValueError, match="epsilon: -1.0; legal is finite and 0 or more"):
        stealthy_shield(epsilon=-1.0)
    with pytest.raises(ValueError, match="temperature: 0.0; legal is finite and above 0"):
        stealthy_shield(temperature=0.0)
    with pytest.raises(ValueError, match="steps: 0; legal is 1 or more"):
        stealthy_shield(steps=0)
