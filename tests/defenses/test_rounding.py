"""Rounded answers, what a score-based attack sees of them, and what they cost in labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.adapters.function import from_function
from jaxmia.core import Defense
from jaxmia.defenses.rounding import rounding
from jaxmia.oracle import Access

CLASSES, DIMENSIONS = 4, 6
WEIGHTS = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMENSIONS, CLASSES)))[0].astype(np.float32)


def _target(defense=None, scale=4.0):
    return from_function(lambda w, x: scale * x @ w, jnp.asarray(WEIGHTS), classes=CLASSES, defense=defense)


def _scores(defense, points, access=Access.SCORES):
    oracle = _target(defense).view(access)
    return jax.vmap(oracle.answer, (None, 0))(jax.random.key(0), points)


START = jnp.full(DIMENSIONS, 0.03)  # at zero every confidence is 0.25, where rounding to tenths jumps
POINTS = jax.random.normal(jax.random.key(1), (4000, DIMENSIONS))


@pytest.mark.parametrize("level", [0.001, 0.05, 0.1, 0.25])
def test_served_scores_are_the_nearest_multiples(level):
    served = np.asarray(_scores(rounding(level=level), POINTS))
    true = np.asarray(_scores(None, POINTS))
    multiples = served / level
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-4)
    assert np.abs(served - true).max() <= level / 2 * (1 + 1e-3)
    assert np.abs(served - true).max() > level / 4  # it does round


def _numeric_gradient(answer, x, label, width=1e-3):
    """Central differences of one class's confidence: all that score access allows."""
    steps = width * jnp.eye(DIMENSIONS)
    ask = jax.vmap(lambda x: answer(jax.random.key(0), x)[label])
    return (ask(x + steps) - ask(x - steps)) / (2 * width)


def _attack(oracle, label, steps=200, rate=0.5):
    """Black-box gradient ascent on a class's confidence; the same code against every target."""

    def step(_, x):
        return x + rate * _numeric_gradient(oracle.answer, x, label)

    return jax.lax.fori_loop(0, steps, step, START)


def test_numeric_gradients_vanish_almost_everywhere():
    def seen(defense):
        answer = _target(defense).view(Access.SCORES).answer
        return np.asarray(jax.vmap(lambda x: _numeric_gradient(answer, x, 1))(POINTS))

    plain, defended = seen(None), seen(rounding())
    assert (np.linalg.norm(plain, axis=1) > 1e-3).mean() > 0.8
    zero = np.linalg.norm(defended, axis=1) == 0
    assert 0.9 < zero.mean() < 1  # a step of the staircase is met now and then


def test_a_score_attack_that_works_gets_nowhere():
    def found(defense):
        image = _attack(_target(defense).view(Access.SCORES), 2)
        return float(_scores(None, image[None])[0, 2]), image

    confidence, _ = found(None)
    assert confidence > 0.9
    stuck, image = found(rounding())
    assert stuck < 0.3 and (image == START).all()
    fine, _ = found(rounding(level=1e-5))
    assert fine > 0.9  # a level far below the differences the attack uses defends nothing


def test_white_box_access_is_untouched():
    plain, defended = (_scores(d, POINTS, Access.WEIGHTS) for d in (None, rounding()))
    assert (plain == defended).all()


def test_label_access_serves_the_label_of_the_rounded_scores():
    labels, plain = (np.asarray(_scores(d, POINTS, Access.LABELS)) for d in (rounding(), None))
    served, true = np.asarray(_scores(rounding(), POINTS)), np.asarray(_scores(None, POINTS))
    assert (labels == served.argmax(1)).all()
    two_best = np.sort(true, 1)[:, -2:]
    assert (labels == plain)[two_best[:, 1] - two_best[:, 0] > 0.1].all()
    assert 0.9 < (labels == plain).mean() < 1


def test_ties_go_to_the_lower_class():
    def label(level):
        x = jnp.asarray(WEIGHTS[:, 3] * 0.05)  # class 3 leads by little
        return int(_target(rounding(level=level)).view(Access.LABELS).answer(jax.random.key(0), x))

    assert label(0.01) == 3 and label(1.0) == 0


def test_level_can_be_traced_and_the_rest_is_the_identity():
    levels = jnp.array([0.1, 0.25])
    scores = jnp.array([0.62, 0.38])
    swept = jax.jit(jax.vmap(lambda level: rounding(level=level).answer(jax.random.key(0), scores)))(levels)
    np.testing.assert_allclose(swept, [[0.6, 0.4], [0.5, 0.5]], atol=1e-6)
    assert rounding()._replace(answer=Defense().answer) == Defense()


@pytest.mark.parametrize("level", [0.0, -0.1, float("nan"), float("inf")])
def test_illegal_levels_are_named(level):
    with pytest.raises(ValueError, match=f"level: {level}; legal is finite and above 0"):
        rounding(level=level)
