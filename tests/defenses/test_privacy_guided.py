"""The proximal step against its minimum, and a network that stops to look at an attribute."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from jaxmia import engine, models, train
from jaxmia.core import Defense
from jaxmia.defenses.privacy_guided import privacy_guided, shrunk

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 2.0, 50.0])
def test_the_step_is_the_minimum_of_distance_and_length(shrinkage):
    """argmin_v |v - w|^2 / 2 + shrinkage * |v| of each block, found by a general optimizer."""
    kernel = RNG.normal(size=(6, 3)).astype(np.float32)
    attributes = ((0, 4), (2,))
    got = np.asarray(shrunk(jnp.asarray(kernel), attributes, shrinkage))
    for rows in attributes:
        block = kernel[list(rows)].astype(np.float64).ravel()
        cost = lambda v, w=block: ((v - w) ** 2).sum() / 2 + shrinkage * np.linalg.norm(v)  # noqa: E731
        least = scipy.optimize.minimize(cost, 0.5 * block, method="Nelder-Mead", options={"maxiter": 20_000})
        np.testing.assert_allclose(got[list(rows)].ravel(), least.x, atol=1e-2 if shrinkage < 50 else 1e-6 + 1e-2)
        assert cost(got[list(rows)].ravel()) <= least.fun + 1e-6
    assert np.array_equal(got[[1, 3, 5]], kernel[[1, 3, 5]])


def test_the_optimizer_goes_first_and_the_rest_of_the_network_moves_as_before():
    params = models.MLP(3, width=4).init(KEY, jnp.zeros((1, 5)))["params"]
    gradient = jax.tree.map(jnp.cos, params)
    plain = optax.adam(0.1)
    guided = privacy_guided(attributes=((1, 2),), shrinkage=0.2).optim(plain)
    expected, _ = plain.update(gradient, plain.init(params), params)
    got, _ = jax.jit(guided.update)(gradient, guided.init(params), params)
    moved, before = (np.asarray(u["Dense_0"]["kernel"]) for u in (got, expected))
    np.testing.assert_allclose(np.delete(moved, [1, 2], 0), np.delete(before, [1, 2], 0), atol=1e-6)
    weights = np.asarray(params["Dense_0"]["kernel"])
    block = (weights + before)[[1, 2]]
    wanted = block * (1 - 0.2 / np.linalg.norm(block))
    np.testing.assert_allclose((weights + moved)[[1, 2]], wanted, atol=1e-6)
    np.testing.assert_allclose(got["Dense_1"]["kernel"], expected["Dense_1"]["kernel"], atol=1e-7)


def _trained(defense, steps=300):
    """The label is that of inputs 0 to 2 (one-hot); input 3 copies half of it, others are noise."""

    def batches(step):
        rng = np.random.default_rng(step)
        y = rng.integers(0, 3, 64).astype(np.int32)
        x = np.concatenate([np.eye(3)[y], np.eye(3)[y], rng.normal(size=(64, 2))], 1)
        return {"x": x.astype(np.float32), "y": y}

    process = train.supervised(models.MLP(3, width=8), optax.adam(0.02), steps=steps, defense=defense)
    variables, _ = engine.fit(process, KEY, batches, plan=engine.Plan(progress=False))
    test = batches(10_000)
    right = (train.predict(models.MLP(3, width=8), variables, test["x"]).argmax(1) == test["y"]).mean()
    return right, np.asarray(variables["params"]["Dense_0"]["kernel"]), variables


def test_a_sensitive_attribute_that_another_can_replace_ends_with_weight_zero_and_accuracy_stays():
    right, kernel, _ = _trained(privacy_guided(attributes=((0, 1, 2),), shrinkage=0.05))
    assert (kernel[:3] == 0).all() and np.abs(kernel[3:6]).max() > 0.5
    assert right > 0.95


def test_no_shrinkage_is_undefended_but_for_rounding_and_strengths_can_be_traced():
    *_, plain = _trained(Defense(), steps=20)
    *_, none = _trained(privacy_guided(shrinkage=0.0), steps=20)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, none)
    kernel = jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32)
    lengths = jax.vmap(lambda s: jnp.linalg.norm(shrunk(kernel, ((0, 1),), s)[:2]))(jnp.array([0.0, 0.5, 1.0, 99.0]))
    np.testing.assert_allclose(lengths[0] - lengths[:3], [0, 0.5, 1.0], atol=1e-5)
    assert lengths[3] == 0


def test_layers_inputs_and_numbers_that_do_not_fit_are_named():
    params = models.CenteredInput(models.MLP(3, width=4)).init(KEY, jnp.zeros((1, 5)))["params"]

    def step(defense):
        transform = defense.optim(optax.sgd(0.1))
        transform.update(params, transform.init(params), params)

    step(privacy_guided())
    step(privacy_guided(layer="inner/Dense_0", attributes=((4,),)))
    with pytest.raises(ValueError, match="attributes: 5; legal is 0 to 4, the inputs of 'Dense_0'"):
        step(privacy_guided(attributes=((1,), (5,))))
    with pytest.raises(ValueError, match="layer: 'Dense_7'; legal is .*: inner/Dense_0, inner/Dense_1"):
        step(privacy_guided(layer="Dense_7"))
    for attributes in ((), ((0,), ()), ((0, -1),), ((0, 1), (1,))):
        with pytest.raises(ValueError, match="attributes: .*; legal are tuples of inputs from 0 on"):
            privacy_guided(attributes=attributes)
    with pytest.raises(ValueError, match="shrinkage: -1.0; legal is finite and 0 or more"):
        privacy_guided(shrinkage=-1.0)
