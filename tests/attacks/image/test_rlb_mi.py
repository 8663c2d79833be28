"""RLB-MI: the reward against numpy, and an agent that must find the optimum of a bandit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, from_function
from jaxmia.attacks.image.rlb_mi import reward, rlb_mi
from jaxmia.core import Prior
from jaxmia.models import Perceptron

KEY = jax.random.key(11)
CENTERS = jnp.asarray([[0.6, -0.4], [-0.5, 0.7], [-0.3, -0.6]])
PRIOR = Prior(lambda key: jax.random.normal(key, (2,)), lambda z: z, lambda z, x: jnp.zeros(()), lambda z: z)
VIEW = from_function(
    lambda params, x: -6.0 * jnp.sum((x[:, None] - params) ** 2, -1), CENTERS, classes=3
).view(Access.SCORES)  # fmt: skip
SMALL = {"width": 32, "batch": 64, "rate": 5e-3}


def test_reward_is_equations_3_to_6():
    rng = np.random.default_rng(0)
    for label in range(4):
        s, a = rng.dirichlet(np.ones(4), 2)
        margin = s[label] - np.delete(s, label).max()
        expected = 2 * np.log(s[label]) + 3 * np.log(a[label]) + 8 * np.log(max(1e-7, margin))
        found = reward(jnp.asarray(s, jnp.float32), jnp.asarray(a, jnp.float32), jnp.asarray(label), (2.0, 3.0, 8.0))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def train(process, labels, steps):
    """All agents side by side: their states, and what every step told, `[cases, steps]`."""

    def agent(key, label):
        def step(state, t):
            return process.step(jax.random.fold_in(key, t), state, label)

        first = process.init(key, label)
        return first, *jax.lax.scan(step, first, jnp.arange(steps))

    return jax.jit(jax.vmap(agent))(jax.random.split(KEY, len(labels)), jnp.asarray(labels, jnp.int32))


LABELS, STEPS = np.array([0, 1, 2, 0, 1, 2]), 600
PROCESS = rlb_mi(VIEW, PRIOR, **SMALL, steps=STEPS, budget=1700).solve(())


@pytest.fixture(scope="module")
def agents():
    return train(PROCESS, LABELS, STEPS)


@pytest.mark.nightly
def test_agents_learn_the_bandit_each_its_own(agents):
    """Six agents side by side, two of each class; the reward of untrained agents is the control."""
    earned = np.asarray(agents[2].extra["reward"])
    first, last = earned[:, :64].mean(1), earned[:, -50:].mean(1)
    assert np.all(last > first + 20), (first, last)  # 8 log 1e-7 is -129: most first actions are not even top
    at_center = [VIEW.answer(KEY, center) for center in CENTERS]
    best = [float(reward(s, s, jnp.asarray(c), (2.0, 2.0, 8.0))) for c, s in enumerate(at_center)]
    assert np.all(last > np.array(best)[LABELS] - 15), (last, best)


@pytest.mark.nightly
def test_queries_budget_and_the_image_of_highest_confidence(agents):
    _, state, told = agents
    np.testing.assert_array_equal(told.queries[0], 3 * np.arange(1, STEPS + 1))
    np.testing.assert_array_equal(told.done[0], np.arange(1, STEPS + 1) >= 566)  # 567 episodes would be 1,701
    assert np.all(np.diff(told.loss, axis=1) <= 0)
    for i, c in enumerate(LABELS):
        z = PROCESS.read(jax.tree.map(lambda leaf, i=i: leaf[i], state))
        np.testing.assert_allclose(VIEW.answer(KEY, z)[c], -told.loss[i, -1], rtol=1e-4)


def trained(pair):
    return jax.tree.leaves(jax.tree.map(lambda new, old: np.any(new != old), pair[1].learned, pair[0].learned))


def twins(state):
    kernels = [leaf[0] for leaf in jax.tree.leaves(state.learned["critics"]) if leaf.ndim == 4]
    assert len(kernels) == 3
    return [np.allclose(leaf[0], leaf[1]) for leaf in kernels]


@pytest.mark.nightly
def test_everything_is_trained_and_critics_are_twins_only_as_released(agents):
    assert all(trained(agents)) and not any(twins(agents[1]))
    released = train(rlb_mi(VIEW, PRIOR, **{**SMALL, "batch": 2}, steps=6, released=True).solve(()), [0], 6)
    assert all(trained(released)) and all(twins(released[1]))


@pytest.mark.nightly
def test_networks_start_as_in_the_released_code():
    """Kernels of critics within +-1 / sqrt(outputs), the last within +-3e-3; all else within +-1 / sqrt(inputs)."""
    state = rlb_mi(VIEW, PRIOR, **SMALL, steps=3, released=True).solve(()).init(KEY, jnp.asarray(0))
    bounds = {"critics": (32**-0.5, 32**-0.5, 3e-3), "actor": (2**-0.5, 32**-0.5, 32**-0.5)}
    for name, kernels in bounds.items():
        for i, (kernel, bias) in enumerate(zip(kernels, ((4 if name == "critics" else 2) ** -0.5, 32**-0.5, 32**-0.5))):
            layer = state.learned[name]["params"][f"Dense_{i}"]
            assert 0.8 * kernel < np.abs(layer["kernel"]).max() <= kernel
            assert 0.1 * bias < np.abs(layer["bias"]).max() <= bias
    fresh = rlb_mi(VIEW, PRIOR, **SMALL, steps=3).solve(()).init(KEY, jnp.asarray(0))
    assert np.abs(fresh.learned["critics"]["params"]["Dense_2"]["kernel"]).max() > 0.1


@pytest.mark.nightly
@pytest.mark.parametrize("released", [False, True])
def test_whether_the_actor_sees_the_critic_before_or_after_its_update(released):
    """The first step of Adam follows the sign of the gradient, which the test takes with either critic."""
    process = rlb_mi(VIEW, PRIOR, width=8, batch=4, rate=0.3, steps=9, released=released).solve(())
    state, label = process.init(KEY, jnp.asarray(1)), jnp.asarray(1, jnp.int32)
    s, a = jax.random.normal(KEY, (2, 9, 2))
    memory = state.memory._replace(state=s, action=jnp.tanh(a), reward=-130 * jnp.arange(9.0), count=jnp.asarray(4))
    new, _ = process.step(KEY, state._replace(memory=memory), label)
    update = jax.random.split(jax.random.split(KEY, 3)[2], 4)[3]
    pick, _, now = jax.random.split(update, 3)
    states = new.memory.state[jax.random.randint(pick, (4,), 0, 5)]
    noise = jax.random.normal(now, () if released else (4, 2))

    def policy(params, critics):
        out = Perceptron(8, 4).apply(params, states)
        deviation = jnp.clip(out[:, 2:], -20, 2)
        action = jnp.tanh(out[:, :2] + noise * jnp.exp(deviation))
        density = -(noise**2) / 2 - deviation - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(1 - action**2 + 1e-6)
        both = jax.vmap(Perceptron(8, 1).apply, (0, None))(critics, jnp.concatenate([states, action], -1))[..., 0]
        worth = both[0] if released else both.min(0)
        return jnp.mean((density.mean(-1) if released else density.sum(-1)) - worth)

    moved = jax.tree.map(lambda end, start: np.sign(end - start), new.learned["actor"], state.learned["actor"])
    agree = {}
    for when, critics in {"before": state.learned["critics"], "after": new.learned["critics"]}.items():
        slope = jax.grad(policy)(state.learned["actor"], critics)
        signs = [(g, m) for g, m in zip(jax.tree.leaves(slope), jax.tree.leaves(moved))]
        agree[when] = all(np.all((np.abs(g) < 1e-5) | (-np.sign(g) == m)) for g, m in signs)
    assert agree == {"before": not released, "after": released}


@pytest.mark.nightly
def test_an_episode_of_two_steps_is_remembered_as_a_chain():
    process, label = rlb_mi(VIEW, PRIOR, **SMALL, steps=3, length=2, alpha=0.25).solve(()), jnp.asarray(1, jnp.int32)
    state, told = jax.jit(process.step)(KEY, process.init(KEY, label), label)
    s, a, r, last, count = state.memory
    assert int(told.queries) == 5 and int(count) == 2
    np.testing.assert_array_equal(last[:3], [0.0, 1.0, 0.0])
    np.testing.assert_allclose(s[1], 0.25 * s[0] + 0.75 * a[0], rtol=1e-5)
    expected = reward(VIEW.answer(KEY, s[1]), VIEW.answer(KEY, a[0]), label, (2.0, 2.0, 8.0))
    np.testing.assert_allclose(r[0], expected, rtol=1e-4)


@pytest.mark.parametrize("wrong", [{"length": 0}, {"width": 0}, {"batch": 0}, {"budget": 2}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        rlb_mi(VIEW, PRIOR, **wrong)
