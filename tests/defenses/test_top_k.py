"""The largest scores stay, the rest goes or is spread, and no label moves."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.adapters.function import from_function
from jaxmia.composing import compose
from jaxmia.defenses.rounding import rounding
from jaxmia.defenses.top_k import top_k
from jaxmia.oracle import Access

KEY = jax.random.key(0)
CLASSES = 7
POINTS = np.random.default_rng(0).dirichlet(np.full(CLASSES, 0.4), 500).astype(np.float32)
TIES = np.array(
    [[1, 1, 1, 1, 1, 1, 1], [0, 2, 2, 2, 0, 0, 1], [1, 0, 0, 0, 0, 0, 1], [0, 0, 3, 3, 1, 0, 0]],
    np.float32,
)
TIES = TIES / TIES.sum(1, keepdims=True)
ALL = np.concatenate([POINTS, TIES])


def _served(defense, scores=ALL):
    return np.asarray(defense.answer(KEY, jnp.asarray(scores)))


def _reference(scores, k, rest):
    """One row after the other, by a sort that keeps the order of equals."""
    out = np.zeros_like(scores, np.float64)
    for row, made in zip(scores, out):
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))
        others = order[k:]
        made[order[:k]] = row[order[:k]]
        if rest == "spread" and others:
            made[others] = row[others].astype(np.float64).sum() / len(others)
    return out


@pytest.mark.parametrize("rest", ["zero", "spread"])
@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_served_is_what_a_sort_says(k, rest):
    served = _served(top_k(k=k, rest=rest))
    np.testing.assert_allclose(served, _reference(ALL, k, rest), atol=1e-6)
    if rest == "spread":
        np.testing.assert_allclose(served.sum(-1), ALL.sum(-1), atol=1e-6)
    else:
        assert ((served == 0) | (served == ALL)).all()


@pytest.mark.parametrize("rest", ["zero", "spread"])
@pytest.mark.parametrize("k", [1, 3])
def test_no_label_moves_also_where_scores_are_equal(k, rest):
    equal = np.repeat(np.random.default_rng(1).random((200, 1), np.float32), CLASSES, axis=1)
    for scores in (ALL, equal):
        served = _served(top_k(k=k, rest=rest), scores)
        assert (served.argmax(-1) == scores.argmax(-1)).all()


def test_as_many_as_there_are_classes_or_more_change_no_bit():
    for k in (CLASSES, CLASSES + 1):
        for rest in ("zero", "spread"):
            assert (_served(top_k(k=k, rest=rest)) == ALL).all()


def test_answers_after_rounding_are_served_too():
    both = compose({"rounding": rounding(level=0.25), "top_k": top_k(k=1, rest="spread")})
    served = np.asarray(both.answer(KEY, jnp.array([0.62, 0.2, 0.18])))
    np.testing.assert_allclose(served, [0.5, 0.25, 0.25], atol=1e-6)
    assert not both.keeps_label


def test_labels_are_those_of_the_undefended_model_and_weights_are_untouched():
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(5, CLASSES)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(3).random((200, 5)), jnp.float32)

    def asked(defense, access):
        target = from_function(lambda w, x: x @ w, weights, classes=CLASSES, defense=defense)
        return np.asarray(jax.jit(jax.vmap(target.view(access).answer, (None, 0)))(KEY, x))

    for access in (Access.LABELS, Access.WEIGHTS):
        assert (asked(top_k(), access) == asked(None, access)).all()
    assert ((asked(top_k(), Access.SCORES) > 0).sum(-1) == 1).all()


def test_illegal_arguments_are_named():
    with pytest.raises(ValueError, match="k: 0; legal is 1 or more"):
        top_k(k=0)
    with pytest.raises(ValueError, match="rest: 'drop'; legal is 'zero' or 'spread'"):
        inspect.unwrap(top_k)(rest="drop")  # without the type checks of the tests
