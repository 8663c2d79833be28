"""The walk is that of a linear inverse's closed gradient, keeps budget and label, and misleads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.core import Defense
from jaxmia.defenses.adversarial_answers import Inverse, adversarial_answers, misled

KEY = jax.random.key(0)
CLASSES, SHAPE = 5, (3, 4, 1)
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(CLASSES, 0.7), 200).astype(np.float32)
TIES = np.array([[1, 1, 1, 1, 1], [0, 2, 2, 1, 0], [0, 0, 0, 1, 1], [0, 1, 0, 0, 0]], np.float32)
ALL = np.concatenate([P, TIES / TIES.sum(1, keepdims=True)])
MATRIX = RNG.normal(size=(CLASSES, 12)).astype(np.float32)


def _linear(scores):
    return scores @ MATRIX


def _misled(scores, budget, moves=10, inverse=_linear):
    def run(scores, budget):
        return misled(inverse, KEY, scores, budget, moves=moves)

    return np.asarray(jax.jit(run)(jnp.asarray(scores), budget))


def _softmax(logs):
    raised = np.exp(logs - logs.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@pytest.mark.parametrize("budget", [0.3, 100.0])
def test_a_linear_inverse_has_a_closed_gradient(budget):
    p = P[:50]
    first = np.log(np.maximum(p.astype(np.float64), 1e-30))
    logs = first + 0.01 * np.asarray(jax.random.normal(KEY, p.shape), np.float64)
    for _ in range(3):
        now = _softmax(logs)
        by_score = 2 * (now - p) @ MATRIX @ MATRIX.T
        logs += 0.5 * np.sign(now * (by_score - (now * by_score).sum(1, keepdims=True)))
    label = p.argmax(1)[:, None]
    np.put_along_axis(logs, label, logs.max(1, keepdims=True), 1)
    change = logs - first
    size = np.abs(change).sum(1, keepdims=True)
    wanted = _softmax(first + change * np.minimum(1, budget / size))
    got = _misled(p, budget, moves=3)
    # A sign of a gradient that is almost zero may differ between the precisions.
    assert (np.abs(got - wanted).max(1) < 1e-4).mean() >= 0.96
    assert (size > 0.3).all() and np.abs(got - p).max() > 0.01


@pytest.mark.parametrize("budget", [0.1, 1.0, 50.0])
def test_the_label_keeps_the_largest_score_and_the_budget_holds(budget):
    got = _misled(ALL, budget)
    at_label = np.take_along_axis(got, ALL.argmax(1)[:, None], 1)[:, 0]
    assert (at_label == got.max(1)).all()
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)
    change = np.log(got[:200].astype(np.float64)) - np.log(P.astype(np.float64))
    change -= np.median(change, 1, keepdims=True)  # softmax leaves a constant open
    assert (np.abs(change).sum(1) <= budget + 1e-3).all() and np.abs(change).max() > budget / 20


def test_budget_zero_changes_no_bit_and_may_be_traced():
    def run(budget):
        return misled(_linear, KEY, jnp.asarray(ALL), budget)

    off, on = jax.jit(jax.vmap(run))(jnp.array([0.0, 1.0]))
    assert (off == ALL).all()
    np.testing.assert_allclose(on, _misled(ALL, 1.0), atol=1e-4)


BASIS = RNG.random((CLASSES, 12)).astype(np.float32)
IMAGES = (P @ BASIS).reshape(-1, *SHAPE)


def _scores(key, x):
    """From an image back to its shares of the basis, so that scores tell all of it."""
    del key
    return jax.nn.softmax(jnp.asarray(np.linalg.pinv(BASIS.T)) @ x.reshape(-1) * 6)


def test_the_guard_trains_an_inverse_that_served_answers_mislead():
    defense = adversarial_answers(budget=2.0, steps=300, learning_rate=3e-3, width=32)

    process = defense.guard.fit(_scores)
    rows = np.random.default_rng(1).integers(0, len(IMAGES), (process.steps, 32))

    def whole(key):
        def step(state, each):
            return process.step(each[0], state, {"x": jnp.asarray(IMAGES)[each[1]]})

        start = process.init(key, {"x": IMAGES})
        state, told = jax.lax.scan(step, start, (jax.random.split(key, process.steps), rows))
        return process.read(state), told

    variables, history = jax.jit(whole)(KEY)  # one program: most of the time here is compiling
    assert history.loss[-20:].mean() < 0.1 * history.loss[:5].mean()
    clean = jax.jit(jax.vmap(_scores, (None, 0)))(KEY, jnp.asarray(IMAGES))
    served = jax.jit(defense.guarded(variables).answer)(KEY, clean)
    show = jax.jit(lambda scores: Inverse(12, 32).apply(variables, scores))

    def error(scores):
        return float(jnp.mean((show(scores) - IMAGES.reshape(-1, 12)) ** 2))

    assert error(served) > 3 * error(clean)
    assert (served.argmax(1) == clean.argmax(1)).all()  # where the budget binds, none is shared


def test_padding_rows_count_nowhere():
    process = adversarial_answers(width=8).guard.fit(_scores)

    def stepped(key, batch):
        return process.step(key, process.init(key, batch), batch)

    once = jax.jit(stepped)

    def run(padding, counted):
        x = np.concatenate([IMAGES[:16], np.full((8, *SHAPE), padding, np.float32)])
        mask = np.repeat(np.float32([1, counted]), [16, 8])
        return jax.tree.leaves(once(KEY, {"x": x, "y": np.zeros(24, np.int32), "mask": mask}))

    assert all((a == b).all() for a, b in zip(run(0.5, 0), run(0.9, 0)))
    assert not all((a == b).all() for a, b in zip(run(0.5, 1), run(0.9, 1)))


def test_it_sets_its_guard_alone():
    assert adversarial_answers()._replace(guard=None, keeps_label=False) == Defense()


def test_illegal_arguments_are_named():
    for name, value, legal in [
        ("budget", -1.0, "finite and 0 or more"),
        ("rate", 0.0, "finite and above 0"),
        ("learning_rate", float("inf"), "finite and above 0"),
        ("moves", 0, "1 or more"),
        ("width", 0, "1 or more"),
        ("steps", 0, "1 or more"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: {value}; legal is {legal}"):
            adversarial_answers(**{name: value})
