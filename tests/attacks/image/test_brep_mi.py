"""BREP-MI: one step of the paper's and of the released rule, patience, and a budget that the steps fit into."""

import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, from_function
from jaxmia.attacks.image.brep_mi import State, brep_mi
from jaxmia.core import Prior

PRIOR = Prior(
    lambda key: jax.random.normal(key, (2,)),
    lambda z: z,
    lambda z, x: jnp.zeros(()),
    lambda z: jnp.clip(z, -1.5, 1.5),
)
INSIDE = jnp.asarray(1, jnp.int32)


def process(boundary, distance=False, **options):
    """Class 1 is where z_0, or the distance from the middle, exceeds the boundary."""

    def logits(least, x):
        beyond = (jnp.linalg.norm(x, axis=-1) if distance else x[:, 0]) - least
        return jnp.stack([-beyond, beyond], -1)

    target = from_function(logits, boundary, classes=2)
    return brep_mi(target.view(Access.LABELS), PRIOR, **options).solve(())


def walking(radius=1.0, idle=0):
    zero, z = jnp.zeros((), jnp.int32), jnp.zeros(2)
    return State(z, z, jnp.asarray(radius), jnp.asarray(True), zero + idle, zero)


def directions(key, points):
    gauss = np.asarray(jax.random.normal(jax.random.split(key, 4)[1], (points, 2)))
    return gauss / np.linalg.norm(gauss, axis=1, keepdims=True)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("boundary", "inside", "released", "radius", "moved"),
    [
        (-0.90, 26, False, 1.0, (0.0606, 0.0033)),
        (-0.90, 26, True, 1.0, (0.0606, 0.0033)),
        (-0.97, 29, False, 1.0, (0.0311, -0.0014)),
        (-0.97, 29, True, 1.3, (0.0239, -0.0011)),
    ],
)
def test_a_step_of_the_paper_and_of_the_released_code(boundary, inside, released, radius, moved):
    """What the authors' code does with the same directions: the sum of +1 and -1 exceeds 24 from 29 of 32 on."""
    key = jax.random.key(0)
    assert (directions(key, 32)[:, 0] > boundary).sum() == inside
    state, _ = process(boundary, released=released).step(key, walking(), INSIDE)
    assert float(state.radius) == pytest.approx(radius)
    np.testing.assert_allclose(state.z, moved, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("released", [False, True])
def test_how_many_points_let_the_sphere_grow(released):
    """Of every number inside from 24 to 32: all of them, or more than seven eighths."""
    grew, key = {}, jax.random.key(3)
    reach = np.sort(directions(key, 32)[:, 0])
    for outside in range(9):
        boundary = -1.5 if outside == 0 else float(reach[outside - 1] + reach[outside]) / 2
        state, _ = process(boundary, released=released).step(key, walking(), INSIDE)
        grew[32 - outside] = float(state.radius) > 1.0
    assert grew == {n: n > (28 if released else 31) for n in range(24, 33)}


def test_what_the_released_rule_keeps():
    """Where it grew and the move holds, the moved z; where the move fails, it has grown and stands where it stood."""
    key = jax.random.key(0)
    grown, _ = process(-0.97, released=True).step(key, walking(), INSIDE)
    np.testing.assert_array_equal(grown.best, grown.z)
    stuck = walking()._replace(best=jnp.asarray([9.0, 9.0]))  # all points are inside, z itself is not
    state, _ = process(0.25, distance=True, released=True).step(key, stuck, INSIDE)
    assert float(state.radius) == pytest.approx(1.3)
    np.testing.assert_array_equal(state.z, stuck.z)
    np.testing.assert_array_equal(state.best, stuck.best)


@pytest.mark.parametrize(("released", "idle"), [(False, 6), (True, 5)])
def test_a_move_that_is_refused_counts_as_idle_but_not_in_the_released_code(released, idle):
    start = walking(radius=0.2, idle=5)  # farther from the boundary than one move leads
    state, _ = process(0.1, released=released).step(jax.random.key(1), start, INSIDE)
    np.testing.assert_array_equal(state.z, start.z)
    assert int(state.idle) == idle


def test_the_default_budget_lets_all_steps_be_taken():
    defaults = types.SimpleNamespace(**{k: v.default for k, v in inspect.signature(brep_mi).parameters.items()})
    assert defaults.budget == defaults.steps * (defaults.points + 1)


def test_refuses():
    view = from_function(lambda b, x: x, 0.0, classes=2).view(Access.LABELS)
    for wrong in ({"points": 0}, {"budget": 32}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            brep_mi(view, PRIOR, **wrong)
