"""Both forms of smoothing agree, the schedule has its values, the sign has its effect."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.bido import bido
from jaxmia.defenses.label_smoothing import label_smoothing, smoothing_factor
from jaxmia.oracle import Outputs
from jaxmia.train import mean_cross_entropy

ROWS, CLASSES = 8, 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(ROWS, CLASSES)).astype(np.float32) * 3
BATCH = {"x": RNG.random((ROWS, 4)).astype(np.float32), "y": RNG.integers(0, CLASSES, ROWS).astype(np.int32)}


def _value(defense, logits=LOGITS, batch=BATCH):
    return float(defense.loss(mean_cross_entropy)(Outputs(jnp.asarray(logits), {}), batch))


def _smoothed(alpha, logits=LOGITS, labels=BATCH["y"]):
    """Cross entropy with smoothed labels, in numpy float64: the form of the paper."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = (1 - alpha) * np.eye(CLASSES)[labels] + alpha / CLASSES
    return -(targets * log_p).sum(-1).mean()


@pytest.mark.parametrize("alpha", [-0.2, -0.05, 0.3, 1.0])
def test_the_added_term_is_cross_entropy_with_smoothed_labels(alpha):
    assert _value(label_smoothing(alpha=alpha, schedule="none")) == pytest.approx(_smoothed(alpha), abs=1e-5)


def test_further_label_axes_are_averaged():
    logits = RNG.normal(size=(ROWS, 3, CLASSES)).astype(np.float32)
    labels = RNG.integers(0, CLASSES, (ROWS, 3)).astype(np.int32)
    got = _value(label_smoothing(schedule="none"), logits, {"x": BATCH["x"], "y": labels})
    assert got == pytest.approx(_smoothed(-0.05, logits, labels), abs=1e-5)


def test_factors_of_each_schedule():
    times = [0.0, 0.49, 0.5, 0.6, 0.7499, 0.75, 0.9, 1.0]
    released, linear = ([float(smoothing_factor(-0.1, s, t)) for t in times] for s in ("released", "linear"))
    np.testing.assert_allclose(released, [0, 0, 0, -0.02, -0.04998, -0.1, -0.1, -0.1], atol=1e-6)
    np.testing.assert_allclose(linear, [0, 0, 0, -0.04, -0.09996, -0.1, -0.1, -0.1], atol=1e-6)
    at_the_end = _value(label_smoothing(), batch={**BATCH, "progress": 0.8})
    assert at_the_end == pytest.approx(_smoothed(-0.05), abs=1e-5)
    assert _value(label_smoothing(), batch={**BATCH, "progress": 0.3}) == _value(Defense())


def test_padding_rows_count_nowhere():
    more = {
        "x": np.concatenate([BATCH["x"], np.zeros((3, 4), np.float32)]),
        "y": np.concatenate([BATCH["y"], np.zeros(3, np.int32)]),
        "mask": np.array([1.0] * ROWS + [0.0] * 3, np.float32),
    }
    logits = np.concatenate([LOGITS, 50 * np.ones((3, CLASSES), np.float32)])
    defense = label_smoothing(schedule="none")
    assert _value(defense, logits, more) == pytest.approx(_value(defense), abs=1e-6)
    loss = defense.loss(mean_cross_entropy)
    gradient = jax.jit(jax.grad(lambda z: loss(Outputs(z, {}), more)))(jnp.asarray(logits))
    assert (gradient[ROWS:] == 0).all() and np.abs(gradient[:ROWS]).max() > 0
    assert _value(defense, logits, {**more, "mask": np.zeros(ROWS + 3, np.float32)}) == 0


def test_a_negative_factor_has_no_lower_bound_and_a_positive_one_has():
    labels = BATCH["y"]
    gaps = [_value(label_smoothing(schedule="none"), gap * np.eye(CLASSES)[labels]) for gap in (10, 100, 1000)]
    np.testing.assert_allclose(gaps, [-0.4, -4, -40], rtol=1e-3)
    controls = [
        _value(label_smoothing(alpha=0.1, schedule="none"), gap * np.eye(CLASSES)[labels]) for gap in (3, 10, 100)
    ]
    assert min(controls) > 0 and controls[2] > controls[1] > controls[0]


def test_descent_moves_logits_as_the_sign_says_and_zero_is_no_defense():
    def descended(defense):
        loss = defense.loss(mean_cross_entropy)
        slope = jax.grad(lambda z: loss(Outputs(z, {}), BATCH))
        return jax.jit(lambda z: jax.lax.fori_loop(0, 200, lambda _, z: z - slope(z), z))(jnp.asarray(LOGITS))

    plain, none, negative, control = (
        descended(d) for d in (Defense(), *(label_smoothing(alpha=a, schedule="none") for a in (0.0, -0.2, 0.2)))
    )
    assert (plain == none).all()
    assert float(jnp.std(negative)) > 1.3 * float(jnp.std(plain)) > 1.5 * float(jnp.std(control))


def test_terms_of_two_defenses_add_up_in_either_order():
    outputs = Outputs(jnp.asarray(LOGITS), {"z": RNG.normal(size=(ROWS, 3)).astype(np.float32)})
    parts = {"smoothing": label_smoothing(schedule="none"), "bido": bido(lambda_x=0.3, lambda_y=0.1)}

    def total(names):
        return float(compose({n: parts[n] for n in names}).loss(mean_cross_entropy)(outputs, BATCH))

    both = total(["smoothing", "bido"])
    assert both == pytest.approx(total(["bido", "smoothing"]), abs=1e-5)
    assert both - total(["bido"]) == pytest.approx(total(["smoothing"]) - total([]), abs=1e-5)


def test_a_traced_factor_gives_the_same_value():
    swept = jax.jit(
        jax.vmap(lambda a: label_smoothing(alpha=a).loss(mean_cross_entropy)(
            Outputs(jnp.asarray(LOGITS), {}), {**BATCH, "progress": 1.0}
        ))
    )(jnp.array([-0.1, 0.2]))  # fmt: skip
    np.testing.assert_allclose(swept, [_smoothed(-0.1), _smoothed(0.2)], atol=1e-5)


def test_illegal_arguments_are_named():
    for alpha in (1.5, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match=f"alpha: {alpha}; legal is finite and at most 1"):
            label_smoothing(alpha=alpha)
    with pytest.raises(ValueError, match="schedule: 'cosine'; legal is 'released', 'linear' or 'none'"):
        inspect.unwrap(label_smoothing)(schedule="cosine")  # without the type checks of the tests
