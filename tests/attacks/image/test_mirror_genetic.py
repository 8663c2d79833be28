"""MIRROR's genetic algorithm: what the contracts do not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.mirror_genetic import State, cross, mirror_genetic
from jaxmia.core import Prior

KEY, CLASSES, D = jax.random.key(3), 3, 4
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
TARGET = from_function(lambda params, x: x @ params, jnp.eye(D)[:, :CLASSES] * 2.0, classes=CLASSES)
PRIOR = Prior(lambda key: jax.random.normal(key, (D,)), lambda z: z, lambda z, x: jnp.zeros(()), lambda z: z)
SMALL = {"members": 20, "pool_steps": 4, "pool_draws": 25, "slope": 1.0}


def attack(**options):
    return mirror_genetic(TARGET.view(Access.SCORES), PRIOR, CLASSES, **{**SMALL, **options})


def pool(one):
    stage = one.train[0](())
    state, step = stage.init(KEY, None), jax.jit(stage.step)
    for t in range(stage.steps):
        state, told = step(jax.random.fold_in(KEY, t), state, None)
    return state, told


POOL = pool(attack())


def test_pool_keeps_the_best_of_all_draws_for_every_class():
    state, told = POOL
    assert int(told.queries) == 100
    logits = np.asarray(state.latents)[:, :CLASSES] * 2.0
    confidence = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for c in range(CLASSES):
        best = np.argsort(-confidence[:, c])[:20]
        np.testing.assert_allclose(state.fitness[c], confidence[best, c], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(state.rows[c], best)


@pytest.mark.parametrize("slope", [1.0, 5.0])
def test_children_stay_in_the_box_of_p_space_and_the_elite_is_never_lost(slope):
    one = attack(slope=slope, mutation=1.0, coefficient=3.0, bound=0.5)
    state, _ = POOL
    process, label = one.solve((state,)), jnp.asarray(1, jnp.int32)
    population = process.init(KEY, label)
    p = np.where(np.asarray(state.latents) >= 0, state.latents, slope * state.latents)
    low, high = p.mean(0) - 0.5 * p.std(0), p.mean(0) + 0.5 * p.std(0)
    before = population.fitness[0]
    step = jax.jit(process.step)
    for t in range(5):
        population, _ = step(jax.random.fold_in(KEY, t), population, label)
        assert population.fitness[0] >= before
        before = population.fitness[0]
    members = np.asarray(population.population)[1:]  # all but the elite, which may come from the pool
    members = np.where(members >= 0, members, slope * members)
    assert np.all(members >= low - 1e-4) and np.all(members <= high + 1e-4)
    edge = np.isclose(members, low, atol=1e-4) | np.isclose(members, high, atol=1e-4)
    assert edge.any()  # the moves were large enough for the clipping to matter


def test_genes_come_from_the_first_parent_in_the_stated_share():
    ones = cross(KEY, jnp.ones(10_000), jnp.zeros(10_000), 0.8)
    assert abs(float(ones.mean()) - 0.8) < 4 * 0.004  # four standard errors


def test_the_better_parent_gives_more_genes_unless_as_released():
    """A population of a good and a poor kind, without mutation, drifts to the good one; the log share favors the poor."""

    def share(crossover):
        one = attack(crossover=crossover, mutation=0.0, bound=100.0, members=2000, pool_steps=1, pool_draws=2000)
        kinds = jnp.where(jnp.arange(2000)[:, None] % 2 == 0, jnp.ones(D), -jnp.ones(D))
        fitness = jnp.where(jnp.arange(2000) % 2 == 0, jnp.log(0.6), jnp.log(0.3))
        process = one.solve((POOL[0],))
        start = State(kinds, fitness, jnp.zeros((), jnp.int32))
        after, _ = jax.jit(process.step)(KEY, start, jnp.asarray(0, jnp.int32))
        return float((after.population[1:] > 0).mean())

    # Parents are good with probability 2/3; mixed pairs, 4/9 of all, give good genes in 2/3 of the cases as the paper
    # says, and in log(.6) / (log(.6) + log(.3)) = 0.298 of them as released.
    assert share("probability") == pytest.approx(4 / 9 + 4 / 9 * 2 / 3, abs=0.03)
    assert share("log") == pytest.approx(4 / 9 + 4 / 9 * 0.298, abs=0.03)


@pytest.mark.nightly
def test_budget_is_hard_and_confidence_ends_a_case():
    cases = np.arange(CLASSES, dtype=np.int32)
    bounded = solve(attack(confident=1.0, budget=50, steps=30).solve(POOL), KEY, cases, plan=ONE)
    assert np.all(bounded.info.queries == 38) and np.all(bounded.steps == 2)  # a third generation would be 57
    stopped = solve(attack(confident=0.5, steps=30).solve(POOL), KEY, cases, plan=ONE)
    assert np.all(stopped.steps < 30) and np.all(np.exp(-stopped.info.loss) >= 0.5)


@pytest.mark.parametrize("wrong", [{"members": 1}, {"members": 101}, {"budget": 18}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) if "members" not in wrong else "members|population"):
        attack(**wrong)
