"""What is served is the label and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia.adapters.function import from_function
from jaxmia.defenses.label_only import label_only
from jaxmia.defenses.top_k import top_k
from jaxmia.oracle import Access

KEY = jax.random.key(0)
POINTS = np.random.default_rng(0).dirichlet(np.full(6, 0.5), (40, 5)).astype(np.float32)


def test_every_answer_is_one_hot_at_the_largest_score():
    served = np.asarray(label_only().answer(KEY, jnp.asarray(POINTS)))
    assert served.dtype == POINTS.dtype
    assert (served == np.eye(6)[POINTS.argmax(-1)]).all()


def test_equal_scores_go_to_the_lower_class():
    ties = jnp.array([[0.25, 0.25, 0.25, 0.25], [0.0, 0.5, 0.0, 0.5]])
    assert np.asarray(label_only().answer(KEY, ties)).argmax(-1).tolist() == [0, 1]


def test_it_tells_less_than_the_largest_score_alone():
    one, other = jnp.array([0.7, 0.2, 0.1]), jnp.array([0.5, 0.2, 0.3])
    assert (label_only().answer(KEY, one) == label_only().answer(KEY, other)).all()
    assert (top_k().answer(KEY, one) != top_k().answer(KEY, other)).any()


def test_numeric_gradients_of_scores_are_zero_and_labels_are_as_before():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(2).random((300, 5)), jnp.float32)

    def asked(defense, access, points=x):
        target = from_function(lambda w, x: x @ w, weights, classes=4, defense=defense)
        return np.asarray(jax.jit(jax.vmap(target.view(access).answer, (None, 0)))(KEY, points))

    for access in (Access.LABELS, Access.WEIGHTS):
        assert (asked(label_only(), access) == asked(None, access)).all()
    moved = x + 1e-3

    def still(defense):
        return (asked(defense, Access.SCORES, moved) == asked(defense, Access.SCORES)).all(-1).mean()

    assert still(label_only()) > 0.98 > 0.1 > still(None)
