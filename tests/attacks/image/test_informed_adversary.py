"""Informed adversary: exact where the theory is, and a reconstructor for another model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.informed_adversary import informed_adversary
from jaxmia.testing.benches import linear
from jaxmia.testing.benches.informed_adversary import CLASSES, DECAY, UNKNOWN, cases, optimum, records

KEY = jax.random.key(8)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
X, LABELS = records()


def released(decay=DECAY):
    return from_function(linear.logits, optimum(X, LABELS, decay), classes=CLASSES).view(Access.WEIGHTS)


def error(output):
    return np.abs(np.asarray(output) - X[:UNKNOWN]).max((1, 2, 3))


@pytest.mark.parametrize("decay", [0.1, 1.0, 10.0])
def test_the_gradient_condition_gives_the_record_exactly(decay):
    attack = informed_adversary(released(decay), decay=decay)
    assert np.all(error(solve(attack.solve(()), KEY, cases(None, None), plan=ONE).output) <= 0.02)


def test_the_training_must_be_known():
    """A wrong decay, or one more record that is unknown, and the equation no longer gives the record."""
    attack = informed_adversary(released(), decay=0.5 * DECAY)
    assert np.all(error(solve(attack.solve(()), KEY, cases(None, None), plan=ONE).output) >= 0.1)
    fewer = jax.tree.map(lambda leaf: leaf[:, :-1], cases(None, None))
    attack = informed_adversary(released(), decay=DECAY)
    assert np.all(error(solve(attack.solve(()), KEY, fewer, plan=ONE).output) >= 0.1)


SMALL = 4  # pixels


def descended(x, y):
    """A network with a hidden layer after 50 steps of descent from a fixed start."""
    hidden, top = jax.random.split(jax.random.key(1))
    start = {
        "hidden": 0.5 * jax.random.normal(hidden, (SMALL, 6)),
        "top": 0.5 * jax.random.normal(top, (6, 2)),
    }

    def loss(params):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(network(params, x)), y[:, None], 1))

    return jax.lax.fori_loop(
        0, 50, lambda _, params: jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params)), start
    )


def network(params, x):
    return jnp.tanh(x.reshape(len(x), -1) @ params["hidden"]) @ params["top"]


@pytest.mark.nightly
def test_a_reconstructor_reads_the_record_out_of_a_network():
    """Six released models, one for each unknown record; the control reads a model of other records."""
    rng = np.random.default_rng(3)
    known = {"x": rng.uniform(size=(5, 2, 2, 1)).astype(np.float32), "y": np.array([0, 1, 0, 1, 0], np.int32)}
    candidates = {"x": rng.uniform(size=(400, 2, 2, 1)).astype(np.float32), "y": np.ones(400, np.int32)}
    case = jax.tree.map(lambda leaf: leaf[None], known)
    errors, blind = [], []
    for _ in range(6):
        unknown = rng.uniform(size=(1, 2, 2, 1)).astype(np.float32)
        every = np.concatenate([known["x"], unknown])
        params = descended(jnp.asarray(every), jnp.append(known["y"], 1))
        view = from_function(network, params, classes=2).view(Access.WEIGHTS)
        attack = informed_adversary(
            view, train=descended, candidates=candidates, steps=400, batch=50, rate=3e-3, width=32
        )
        result = solve(attack.solve(()), KEY, case, plan=ONE)
        errors.append(np.mean((result.output[0] - unknown[0]) ** 2))
        blind.append(np.mean((candidates["x"].mean(0) - unknown[0]) ** 2))
    assert np.mean(errors) <= 0.3 * np.mean(blind)
    assert np.all(np.array(errors) < np.array(blind))


@pytest.mark.nightly
def test_the_reconstructor_is_the_released_one():
    """Sigmoid output, mean absolute plus mean squared error, batches of 32, 62,500 updates."""
    rng = np.random.default_rng(4)
    known = {"x": rng.uniform(size=(5, 2, 2, 1)).astype(np.float32), "y": np.array([0, 1, 0, 1, 0], np.int32)}
    candidates = {"x": rng.uniform(size=(40, 2, 2, 1)).astype(np.float32), "y": np.ones(40, np.int32)}
    params = descended(jnp.asarray(known["x"]), known["y"])
    view = from_function(network, params, classes=2).view(Access.WEIGHTS)
    process = informed_adversary(view, train=descended, candidates=candidates).solve(())
    assert process.steps == 62_500
    state = process.init(KEY, known)
    layers = [state.variables["params"][f"Dense_{i}"] for i in range(3)]
    assert [layer["kernel"].shape[1] for layer in layers] == [1000, 1000, 4]

    def reconstructed(parameters):
        for layer in layers[:2]:
            parameters = np.maximum(parameters @ layer["kernel"] + layer["bias"], 0)
        return 1 / (1 + np.exp(-(parameters @ layers[2]["kernel"] + layers[2]["bias"])))

    rows = np.asarray(jax.random.randint(KEY, (32,), 0, 40))
    off = reconstructed(np.asarray(state.shadows)[rows]) - candidates["x"][rows].reshape(32, 4)
    loss = process.step(KEY, state, known)[1].loss
    np.testing.assert_allclose(loss, np.abs(off).mean() + (off**2).mean(), rtol=1e-4)
    np.testing.assert_allclose(process.read(state).ravel(), reconstructed(np.asarray(state.released)), rtol=1e-4)


def test_refuses():
    view = from_function(network, descended(jnp.zeros((2, 4)), jnp.array([0, 1])), classes=2).view(Access.WEIGHTS)
    with pytest.raises(ValueError, match=r"parameters of \[2, 2\] dimensions"):
        informed_adversary(view)
    with pytest.raises(ValueError, match="train, candidates"):
        informed_adversary(view, train=descended)
