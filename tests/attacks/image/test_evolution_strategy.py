"""CMA-ES and SNES over latents: they find a known optimum, within the box and the budget."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.evolution_strategy import evolution_strategy
from jaxmia.core import Prior

KEY, CENTER = jax.random.key(5), jnp.asarray([0.7, -1.2, 0.4, 2.5])
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
CASES = np.zeros(1, np.int32)


def two(params, x):
    """Class 0 is most confident at the center, and nowhere else."""
    return jnp.stack([5.0 - 3.0 * jnp.sum((x - params) ** 2, -1), jnp.zeros(len(x))], -1)


VIEW = from_function(two, CENTER, classes=2).view(Access.SCORES)


def prior(bound):
    return Prior(
        lambda key: jax.random.normal(key, (4,)),
        lambda z: z,
        lambda z, x: jnp.zeros(()),
        lambda z: jnp.clip(z, -bound, bound),
    )


@pytest.mark.nightly
@pytest.mark.parametrize("algorithm", ["cma_es", "snes"])
def test_finds_the_optimum_of_the_box(algorithm):
    pytest.importorskip("evosax")
    attack = evolution_strategy(VIEW, prior(2.0), algorithm=algorithm, members=12, steps=120)
    result = solve(attack.solve(()), KEY, CASES, plan=ONE)
    np.testing.assert_allclose(result.output[0], jnp.clip(CENTER, -2, 2), atol=0.03)
    assert int(result.info.queries[0]) == 12 * 120


@pytest.mark.nightly
def test_budget_is_hard_and_the_best_ever_asked_is_kept():
    pytest.importorskip("evosax")
    process = evolution_strategy(VIEW, prior(3.0), budget=50).solve(())  # 4 + floor(3 ln 4) = 8 a generation
    result = solve(process, KEY, CASES, plan=ONE)
    assert int(result.steps[0]) == 6 and int(result.info.queries[0]) == 48
    asked = -np.log(np.asarray(VIEW.answer(KEY, jnp.asarray(result.output[0])))[0])
    assert asked == pytest.approx(float(result.info.loss[0]), rel=1e-4)
    label, step = jnp.asarray(0, jnp.int32), jax.jit(process.step)
    state, before = process.init(KEY, label), np.inf
    for t in range(6):
        state, told = step(jax.random.fold_in(KEY, t), state, label)
        assert float(told.loss) <= before
        before = float(told.loss)


def test_refuses(monkeypatch):
    for wrong in ({"members": 3}, {"budget": 7}, {"algorithm": "pso"}):
        with pytest.raises(Exception, match=next(iter(wrong))):
            evolution_strategy(VIEW, prior(1.0), **wrong)
    monkeypatch.setitem(sys.modules, "evosax", None)
    with pytest.raises(ImportError, match=r"jaxmia\[es\]"):
        evolution_strategy(VIEW, prior(1.0))
