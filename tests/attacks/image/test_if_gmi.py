"""IF-GMI: its projection against optimizers of SciPy; each stage moves what it should, no farther than it may."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from jaxmia import Access, from_function
from jaxmia.attacks.image.if_gmi import if_gmi, to_l1_ball
from jaxmia.objectives import poincare
from jaxmia.priors import Feature, chain, cut, eigen
from tests.models.compiled import compiled

KEY, CLASSES, SHAPE = jax.random.key(2), 4, (6, 6, 1)
RNG = np.random.default_rng(3)
MATRIX = RNG.normal(size=(36, CLASSES)).astype(np.float32)
TARGET = from_function(lambda m, x: x.reshape(-1, 36) @ m, jnp.asarray(MATRIX), classes=CLASSES)
FIRST, SECOND, SIDE, LAST = (
    jnp.asarray(RNG.normal(size=shape) / 3, jnp.float32) for shape in ((3, 8), (8, 10), (8, 36), (13, 36))
)
GENERATOR = chain(  # every block reads w, and what the second one paints goes around the third
    lambda key: jax.random.normal(key, (3,)),
    (
        lambda feature, w: Feature(jnp.tanh(w @ FIRST)),
        lambda feature, w: Feature(jnp.tanh(feature.map @ SECOND) + w[0], feature.map @ SIDE),
        lambda feature, w: (jnp.concatenate([feature.map, w]) @ LAST + feature.rest).reshape(SHAPE),
    ),
)
LABEL = jnp.asarray(2, jnp.int32)
WHOLE = {"crop": (1.0, 1.0), "pool": 1, "mirror": False}


def attack(generator=GENERATOR, **options):
    return if_gmi(TARGET.view(Access.WEIGHTS), generator, **{**WHOLE, **options}).solve(())


def runs(process, steps):
    """The one run's state after each number of steps, and the losses."""
    state, step, out, losses = compiled(process.init)(KEY, LABEL), compiled(process.step), [], []
    out.append(jax.tree.map(lambda leaf: leaf[0], jax.device_get(state.runs)))
    for t in range(steps):
        state, told = step(jax.random.fold_in(KEY, t), state, LABEL)
        out.append(jax.tree.map(lambda leaf: leaf[0], jax.device_get(state.runs)))
        losses.append(float(told.loss))
    return out, losses


@pytest.mark.parametrize("seed", range(6))
def test_projection_is_the_nearest_point_of_the_ball(seed):
    rng = np.random.default_rng(seed)
    x, radius = rng.normal(size=(3, 4)) * rng.choice([0.1, 1, 10], (3, 4)), float(rng.choice([0.5, 3, 20]))
    told = np.asarray(to_l1_ball(jnp.asarray(x, jnp.float32), radius), np.float64)
    assert np.abs(told).sum() <= radius * (1 + 1e-5)
    # As x = p - n with p, n >= 0, by sequential quadratic programming.
    parts = np.concatenate([np.maximum(x.ravel(), 0), np.maximum(-x.ravel(), 0)])
    parts *= min(1.0, radius / parts.sum())
    found = minimize(
        lambda q: np.sum((q[:12] - q[12:] - x.ravel()) ** 2),
        parts,
        jac=lambda q: 2 * np.concatenate([q[:12] - q[12:] - x.ravel(), x.ravel() - q[:12] + q[12:]]),
        bounds=[(0, None)] * 24,
        constraints={"type": "ineq", "fun": lambda q: radius - q.sum(), "jac": lambda q: -np.ones(24)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(told.ravel(), found.x[:12] - found.x[12:], atol=1e-3)
    # The first-order condition, exact: no point of the ball lies farther along x - told.
    slope = (x - told).ravel()
    most = linprog(np.concatenate([-slope, slope]), A_ub=np.ones((1, 24)), b_ub=[radius], bounds=(0, None))
    assert -most.fun <= slope @ told.ravel() + 1e-3


def test_projection_of_what_lies_inside_of_zero_and_onto_a_point():
    x = jnp.asarray([[0.5, -1.0], [0.0, 0.25]])
    np.testing.assert_array_equal(to_l1_ball(x, 1.75), x)
    np.testing.assert_array_equal(to_l1_ball(x, 0.0), 0 * x)
    np.testing.assert_array_equal(to_l1_ball(0 * x, 0.0), 0 * x)
    large = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    np.testing.assert_allclose(np.abs(to_l1_ball(jnp.asarray(large), 1000.0)).sum(dtype=np.float64), 1000, rtol=1e-4)


def test_each_stage_moves_its_latent_and_its_feature_alone():
    process = attack(steps=(3, 2, 4), radii=(50.0, 50.0, 50.0), rate=0.02)
    assert process.steps == 9
    states, _ = runs(process, 9)
    for t in range(9):
        stage = 0 if t < 3 else 1 if t < 5 else 2
        for i in range(3):
            pairs = zip(jax.tree.leaves(states[t].moves[i]), jax.tree.leaves(states[t + 1].moves[i]), strict=True)
            assert all(np.array_equal(a, b) != (i == stage) for a, b in pairs), (t, i)


@pytest.mark.nightly
def test_a_stage_starts_from_the_image_of_the_one_before_and_takes_adams_first_step():
    """At the step on which stage 1 begins: G_2 and G_3 of the moved feature, G_1 of the w before."""
    process = attack(steps=(4, 3, 1), radii=(50.0, 50.0, 50.0), rate=0.01)
    states, losses = runs(process, 5)
    before, after = states[4], states[5]
    w = jnp.asarray(before.latent + before.moves[0][0])

    def image(v, d):
        f1 = jnp.tanh(w @ FIRST) + d
        f2 = jnp.tanh(f1 @ SECOND) + (w + v)[0]
        return (jnp.concatenate([f2, w + v]) @ LAST + f1 @ SIDE).reshape(SHAPE)

    zero = (jnp.zeros(3), jnp.zeros(8))
    np.testing.assert_allclose(image(*zero), GENERATOR.decode(w), atol=1e-6)
    loss = lambda v, d: poincare(image(v, d).ravel() @ MATRIX, LABEL)  # noqa: E731
    np.testing.assert_allclose(losses[4], loss(*zero), rtol=1e-5)
    for slope, moved in zip(compiled(jax.grad(loss, (0, 1)))(*zero), after.moves[1]):
        clear = np.abs(slope) > 1e-3  # Adam's first step is the sign of the gradient
        np.testing.assert_allclose(moved[clear], -0.01 * np.sign(slope[clear]), rtol=0.01)
        assert clear.mean() > 0.5


def test_moves_stay_in_their_balls():
    radii = (0.05, 0.03, 0.07)
    states, _ = runs(attack(steps=(5, 5, 5), radii=radii, rate=0.1), 15)
    for i, radius in enumerate(radii):
        sizes = [float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(states[-1].moves[i])]
        np.testing.assert_allclose(sizes, radius, rtol=1e-3)  # Adam's steps are larger, so the bound is reached


@pytest.mark.nightly
def test_features_reach_what_no_latent_can_draw():
    def end(steps, radii):
        return runs(attack(rate=0.02, steps=steps, radii=radii), 100)[1][-1]

    assert end((50, 50), (1e3, 1e3)) < end((50, 50), (1e3, 0.0)) - 0.05


def test_any_prior_can_be_cut_in_two():
    prior = eigen(np.random.default_rng(0).uniform(size=(20, *SHAPE)), 5)
    halves, z = cut(prior), jnp.linspace(-1, 1, 5)
    np.testing.assert_allclose(halves.decode(z), prior.decode(z), atol=1e-6)
    states, _ = runs(attack(halves, steps=(3, 3), radii=(9.0, 0.5), rate=0.02), 6)
    assert states[-1].moves[1][1].shape == SHAPE and 0 < np.abs(states[-1].moves[1][1]).sum() <= 0.5001


def test_refuses():
    for options, message in (
        ({"steps": (5, 5), "radii": (1.0,)}, "each of 1 radii"),
        ({"steps": (5, 5, 5, 5), "radii": (1.0,) * 4}, "generator's 3 blocks"),
        ({"steps": (5, -1), "radii": (1.0, 1.0)}, "from 0 on"),
        ({"steps": (5,), "radii": (1.0,), "starts": 2}, "starts: 2"),
    ):
        with pytest.raises(ValueError, match=message):
            attack(**options)
    with pytest.raises(ValueError, match="generator's 0 blocks"):
        attack(eigen(np.random.default_rng(0).uniform(size=(20, *SHAPE)), 5), steps=(5,), radii=(1.0,))
