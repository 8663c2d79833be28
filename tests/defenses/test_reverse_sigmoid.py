"""Served scores are the formula in float64, labels can move, and no strength is no change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.label_only import label_only
from jaxmia.defenses.reverse_sigmoid import reverse_sigmoid

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
DRAWN = [RNG.dirichlet(np.full(8, a), 300) for a in (0.05, 0.5, 5.0)]
POINTS = np.concatenate([*DRAWN, np.eye(8), np.full((1, 8), 1 / 8)]).astype(np.float32)


def _served(defense, scores=POINTS):
    return np.asarray(jax.jit(defense.answer)(KEY, jnp.asarray(scores)))


def _reference(scores, beta, gamma):
    p = scores.astype(np.float64)
    bounded = np.clip(p, 1e-9, 1 - 1e-9)
    curve = 1 / (1 + np.exp(-gamma * np.log(bounded / (1 - bounded)))) - 0.5
    left = np.clip(p - beta * curve, 0, 1)
    return left / left.sum(1, keepdims=True)


@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 0.1), (0.5, 0.1), (1.0, 0.5), (3.0, 1.0)])
def test_served_is_the_formula(beta, gamma):
    served = _served(reverse_sigmoid(beta=beta, gamma=gamma))
    np.testing.assert_allclose(served, _reference(POINTS, beta, gamma), atol=1e-5)
    np.testing.assert_allclose(served.sum(1), 1, atol=1e-5)


def test_figures_of_the_documentation():
    p = np.zeros((4, 1000), np.float32)
    p[0, 0] = 1
    assert _served(reverse_sigmoid(), p)[0, 0] == pytest.approx(0.0016, abs=5e-5)
    for top, kept in ((0.38, True), (0.37, False)):
        row = np.float32([[top, 0.25, 0.25, 0.5 - top, 0]])
        assert (_served(reverse_sigmoid(), row).argmax() == 0) == kept


def test_a_promise_of_labels_is_not_given_and_composition_loses_it():
    both = compose({"reverse": reverse_sigmoid(), "label": label_only()})
    assert not reverse_sigmoid().keeps_label and not both.keeps_label
    served = np.asarray(both.answer(KEY, jnp.array([0.3, 0.25, 0.25, 0.2, 0.0])))
    assert served.tolist() == [0, 0, 0, 0, 1]


def test_beta_zero_changes_no_bit_and_numbers_may_be_traced():
    def served(beta):
        return reverse_sigmoid(beta=beta).answer(KEY, jnp.asarray(POINTS))

    off, on = jax.jit(jax.vmap(served))(jnp.array([0.0, 1.0]))
    assert (off == POINTS).all()
    np.testing.assert_allclose(on, _reference(POINTS, 1.0, 0.1), atol=1e-5)
    assert reverse_sigmoid()._replace(answer=Defense().answer) == Defense()


def test_illegal_arguments_are_named():
    for beta in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"beta: {beta}; legal is finite and 0 or more"):
            reverse_sigmoid(beta=beta)
    with pytest.raises(ValueError, match="gamma: 0.0; legal is finite and above 0"):
        reverse_sigmoid(gamma=0.0)
