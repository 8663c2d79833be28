"""Sign steps against a numpy loop, the gradient at their end, and a training that gets robust."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import engine, train
from jaxmia.core import Defense
from jaxmia.defenses.adversarial_training import adversarial_training, worst_near

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.random((6, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 6).astype(np.int32)
W = RNG.normal(size=(5, 3)).astype(np.float32)


def _loss(params, key, batch):
    del key
    losses = optax.softmax_cross_entropy_with_integer_labels(batch["x"] @ params, batch["y"])
    mask = batch.get("mask", jnp.ones(len(losses)))
    return jnp.sum(mask * losses) / jnp.sum(mask), {"rows": batch["x"]}


def _numpy_worst(radius, step, steps):
    """Logistic regression, whose gradient is known."""
    now = X.astype(np.float64)
    for _ in range(steps):
        logits = now @ W
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        slope = (p - np.eye(3)[Y]) @ W.T
        now = np.clip(np.clip(now + step * np.sign(slope), X - radius, X + radius), 0, 1)
    return now


@pytest.mark.parametrize("radius, step, steps", [(8 / 255, 2 / 255, 5), (0.1, 0.07, 3), (0.3, 0.2, 4)])
def test_steps_stay_in_the_ball_and_the_gradient_is_that_at_their_end(radius, step, steps):
    grads = adversarial_training(radius=radius, step=step, steps=steps).grads(_loss)
    batch = {"x": jnp.asarray(X), "y": Y}
    (value, aux), slope = jax.jit(grads)(jnp.asarray(W), KEY, batch)
    worst = _numpy_worst(radius, step, steps)
    np.testing.assert_allclose(aux["rows"], worst, atol=1e-6)
    expected = jax.value_and_grad(_loss, has_aux=True)(
        jnp.asarray(W), KEY, {"x": jnp.asarray(worst, jnp.float32), "y": Y}
    )
    np.testing.assert_allclose(value, expected[0][0], rtol=1e-5)
    np.testing.assert_allclose(slope, expected[1], atol=1e-5)
    assert value > _loss(jnp.asarray(W), KEY, batch)[0]


@pytest.mark.nightly
def test_radius_zero_is_ordinary_training_to_the_bit_and_radii_can_be_traced():
    batch = {"x": jnp.asarray(X), "y": Y}
    plain = jax.value_and_grad(_loss, has_aux=True)(jnp.asarray(W), KEY, batch)
    none = adversarial_training(radius=0.0).grads(_loss)(jnp.asarray(W), KEY, batch)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), plain, none)))
    values = jax.vmap(lambda r: adversarial_training(radius=r).grads(_loss)(jnp.asarray(W), KEY, batch)[0][0])(
        jnp.array([0.0, 0.02, 0.04])
    )
    assert values[0] < values[1] < values[2]


def test_padding_rows_stay_and_unbounded_data_may_leave_the_unit_interval():
    batch = {"x": jnp.asarray(X), "y": Y, "mask": jnp.array([1.0, 1, 1, 1, 0, 0])}
    (_, aux), slope = adversarial_training().grads(_loss)(jnp.asarray(W), KEY, batch)
    assert (aux["rows"][4:] == X[4:]).all() and (aux["rows"][:4] != X[:4]).all(1).all()
    other = {**batch, "x": batch["x"].at[4:].set(0.5)}
    np.testing.assert_allclose(slope, adversarial_training().grads(_loss)(jnp.asarray(W), KEY, other)[1], atol=1e-6)
    free = worst_near(lambda x: jnp.ones_like(x), jnp.ones(2), 0.2, 0.1, 5, None)
    np.testing.assert_allclose(free, 1.2, rtol=1e-6)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.2, deterministic=not train)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x))
        return nn.Dense(2)(nn.relu(x))


@pytest.mark.nightly
def test_a_trained_network_gets_robust_and_keeps_its_statistics():
    """One strong feature, and many weak ones that an adversary of this radius turns around."""

    def batches(step):
        rng = np.random.default_rng(step)
        y = rng.integers(0, 2, 64).astype(np.int32)
        x = np.clip(0.5 + np.outer(2 * y - 1, [0.3] + [0.03] * 40) + 0.05 * rng.normal(size=(64, 41)), 0, 1)
        return {"x": x.astype(np.float32), "y": y}

    def robust_loss(defense):
        process = train.supervised(Net(), optax.adam(0.03), steps=60, defense=defense)
        variables, _ = engine.fit(process, KEY, batches, plan=engine.Plan(progress=False))
        batch = jax.tree.map(jnp.asarray, batches(1000))

        def loss(params, key, batch):
            logits = Net().apply({**variables, "params": params}, batch["x"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean(), None

        (value, _), _ = adversarial_training(radius=0.1, step=0.05).grads(loss)(variables["params"], KEY, batch)
        assert "batch_stats" in variables
        return float(value)

    plain, robust = robust_loss(Defense()), robust_loss(adversarial_training(radius=0.1, step=0.05, steps=3))
    assert robust < 0.5 * plain


def test_tokens_and_illegal_arguments_are_named():
    with pytest.raises(ValueError, match="x is int32; legal is images of real numbers"):
        adversarial_training().grads(_loss)(jnp.asarray(W), KEY, {"x": jnp.arange(3), "y": Y})
    for name in ("radius", "step"):
        with pytest.raises(ValueError, match=f"{name}: -0.1; legal is finite and 0 or more"):
            adversarial_training(**{name: -0.1})
    with pytest.raises(ValueError, match="steps: 0; legal is 1 or more"):
        adversarial_training(steps=0)
    with pytest.raises(ValueError, match=r"bounds: \(1.0, 0.0\); legal is None or \(least, largest\)"):
        adversarial_training(bounds=(1.0, 0.0))
