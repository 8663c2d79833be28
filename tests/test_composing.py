"""Several defenses as one: order, keys, conflicts, and a guard among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, compose, from_function
from jaxmia.core import Guard, Process, info
from jaxmia.defenses.bido import bido
from jaxmia.defenses.dp_sgd import dp_sgd
from jaxmia.defenses.rounding import rounding
from jaxmia.engine import fit
from jaxmia.oracle import Outputs

KEY = jax.random.key(0)
HALF = Defense(answer=lambda key, served: served / 2, send=lambda key, feature: feature / 2)
MORE = Defense(answer=lambda key, served: served + 1, send=lambda key, feature: feature + 1)
NOISE = Defense(answer=lambda key, served: served + jax.random.normal(key, served.shape))


def test_the_first_acts_first():
    assert compose({"half": HALF, "more": MORE}).answer(KEY, 4.0) == 3.0
    assert compose({"more": MORE, "half": HALF}).answer(KEY, 4.0) == 2.5
    assert compose({"more": MORE, "half": HALF}).send(KEY, 4.0) == 2.5


def test_each_draws_by_itself_and_one_alone_as_without_company():
    served = jnp.zeros(1000)
    twice = compose({"one": NOISE, "other": NOISE}).answer(KEY, served)
    assert 1.2 < np.std(twice) < 1.6  # of two independent draws; of equal ones 2
    np.testing.assert_array_equal(compose({"one": NOISE}).answer(KEY, served), NOISE.answer(KEY, served))


def test_nothing_composed_is_no_defense():
    nothing = compose({})
    plain = Defense()
    assert nothing.answer is plain.answer and nothing.guard is None and not nothing.couples and not nothing.keeps_label
    assert nothing.model("module") == "module" and nothing.send is plain.send


def test_losses_add_up_in_any_order():
    def term(weight):
        return Defense(loss=lambda plain: lambda outputs, batch: plain(outputs, batch) + weight * outputs.logits.sum())

    outputs, plain = Outputs(jnp.array([[1.0, 2.0]]), {}), lambda outputs, batch: jnp.float32(0.25)
    one = compose({"a": term(1.0), "b": term(0.1)}).loss(plain)(outputs, {})
    np.testing.assert_allclose(one, compose({"b": term(0.1), "a": term(1.0)}).loss(plain)(outputs, {}), rtol=1e-6)
    np.testing.assert_allclose(one, 0.25 + 3.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (lambda: {"dp_sgd": dp_sgd(8.0), "dp_sgd-2": dp_sgd(8.0)}, "dp_sgd and dp_sgd-2 both set grads"),
        (lambda: {"bido": bido(), "dp_sgd": dp_sgd(8.0)}, "dp_sgd takes gradients example by example, and bido ties"),
        (lambda: {"a": HALF._replace(guard=_shift()), "b": Defense(guard=_shift())}, "a and b both set guard"),
        (lambda: {"a": Defense(trainer=lambda p: p), "b": Defense(trainer=lambda p: p)}, "a and b both set trainer"),
    ],
)
def test_conflicts_name_both(parts, told):
    with pytest.raises(ValueError, match=told):
        compose(parts())


def _shift():
    """Adds to every answer the mean of what is served on validation data."""

    def make(scores):
        def init(key, batch):
            return jnp.mean(jax.vmap(scores, (None, 0))(key, batch["x"]))

        return Process(init, lambda key, state, batch: (state, info(0.0)), lambda state: state, 1)

    return Guard(make, lambda mean: lambda key, served: served + mean)


def test_a_guard_sees_what_comes_before_it_and_is_seen_by_what_comes_after():
    defense = compose({"half": HALF, "shift": Defense(guard=_shift()), "rounding": rounding(level=1.0)})
    assert defense.guard is not None
    served = lambda key, x: x * jnp.ones(2)  # noqa: E731
    mean, _ = fit(defense.guard.fit(served), KEY, lambda step: {"x": np.full(4, 6.0, np.float32)})
    assert mean == 3.0  # of halves
    fitted = defense.guarded(mean)
    assert fitted.guard is None
    np.testing.assert_array_equal(fitted.answer(KEY, jnp.array([1.0, 3.0])), [4.0, 4.0])  # round(3.5) and round(4.5)


def test_a_target_refuses_an_answer_that_is_not_fitted():
    with pytest.raises(ValueError, match="defense: its answer is not fitted yet"):
        from_function(lambda w, x: x @ w, jnp.eye(3), classes=3, defense=Defense(guard=_shift()))


def test_labels_are_those_of_clean_scores_where_that_is_promised():
    flat = Defense(answer=lambda key, served: jnp.zeros_like(served))
    x = jnp.array([0.0, 0.0, 1.0])
    for promised, label in ((False, 0), (True, 2)):
        target = from_function(lambda w, x: x @ w, jnp.eye(3), classes=3, defense=flat._replace(keeps_label=promised))
        assert int(target.view(Access.LABELS).answer(KEY, x)) == label
    both = compose({"flat": flat._replace(keeps_label=True), "rounding": rounding()})
    assert not both.keeps_label and compose({"flat": flat._replace(keeps_label=True), "bido": bido()}).keeps_label
