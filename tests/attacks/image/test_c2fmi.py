"""C2FMI: what the mapping network is told, where the coarse stage lands, what the fine stage keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, from_function
from jaxmia.attacks.image.c2fmi import Mapping, blend, c2fmi, shape_scores
from jaxmia.core import Prior
from tests.models.compiled import compiled

KEY, CLASSES, D = jax.random.key(2), 3, 4
VIEW = from_function(lambda params, x: x @ params, 2.0 * jnp.eye(D)[:, :CLASSES], classes=CLASSES).view(Access.SCORES)
PRIOR = Prior(
    lambda key: jax.random.normal(key, (D,)), lambda z: z, lambda z, x: jnp.zeros(()), lambda z: jnp.clip(z, -3, 3)
)
SMALL = {"width": 8, "draws": 50, "starts": 6, "kept": 4, "members": 10, "steps": 20}
WANTED = jnp.asarray([0.5, -1.0, 0.3, 2.0])


def attack(**options):
    return c2fmi(VIEW, PRIOR, lambda x: x, CLASSES, **{**SMALL, **options})


def mapped():
    """Variables of a mapping network that tells WANTED whatever it is shown."""
    variables = Mapping(8, D).init(KEY, jnp.zeros((1, CLASSES)))
    blank = jax.tree.map(jnp.zeros_like, variables)
    blank["params"]["Dense_2"]["bias"] = WANTED
    return blank


def test_scores_are_shaped_as_described():
    scores = np.array([0.7, 0.25, 0.05])
    logs = np.log(scores) + 50
    shaped = shape_scores(jnp.asarray(scores, jnp.float32), 2)
    expected = np.array([logs[0], logs[1], 0.0])
    np.testing.assert_allclose(shaped, expected / np.linalg.norm(expected), rtol=1e-5)


def test_blends_are_convex_combinations_of_the_kept():
    kept = jnp.eye(D)[:3]
    members = np.asarray(blend(KEY, kept, 40, 0.0))
    np.testing.assert_array_equal(members[:3], kept)
    np.testing.assert_allclose(members.sum(1), 1.0, rtol=1e-6)
    assert set(np.unique(members[3:])) <= {0.0, 0.25, 0.5, 0.75, 1.0} and len(np.unique(members[3:], axis=0)) > 5
    noisy = np.asarray(blend(KEY, kept, 4000, 0.3))[3:]
    assert abs(noisy[:, 3].std() - 0.3) < 0.02  # nothing but noise in a coordinate that no kept one has


def test_coarse_stage_finds_the_wanted_embedding_without_asking_the_target():
    process = attack(coarse_steps=200, coarse_rate=0.05, noise=0.0).solve((mapped(),))
    state = compiled(process.init)(KEY, jnp.asarray(0, jnp.int32))
    np.testing.assert_allclose(state.population, jnp.broadcast_to(WANTED, (10, D)), atol=0.05)
    assert int(state.queries) == 10  # the population alone was asked
    unmoved = attack(coarse_steps=0, noise=0.0).solve((mapped(),))
    without = compiled(unmoved.init)(KEY, jnp.asarray(0, jnp.int32))
    draws = jax.vmap(PRIOR.init)(jax.random.split(KEY, 500))
    typical = np.median(np.sum((np.asarray(draws) - WANTED) ** 2, 1))
    assert np.sum((np.asarray(without.population[0]) - WANTED) ** 2) < typical / 2  # chosen among 50


def test_fine_stage_never_loses_a_member_and_stops_at_the_budget():
    label = jnp.asarray(1, jnp.int32)
    process = attack(budget=45).solve((mapped(),))
    state, step = compiled(process.init)(KEY, label), compiled(process.step)
    for t in range(3):
        before = state.loss
        state, told = step(jax.random.fold_in(KEY, t), state, label)
        assert np.all(state.loss <= before) and int(told.queries) == 10 * (t + 2)
        assert bool(told.done) == (t == 2)  # another ten would be 50
    scores = jax.vmap(VIEW.answer, (None, 0))(KEY, state.population)[:, 1]
    np.testing.assert_allclose(state.loss, -np.log(scores), rtol=1e-4)  # losses belong to their latents
    np.testing.assert_array_equal(process.read(state), state.population[int(np.argmin(state.loss))])


@pytest.mark.parametrize("wrong", [{"kept": 7}, {"starts": 51}, {"members": 3}, {"budget": 19}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        attack(**wrong)
