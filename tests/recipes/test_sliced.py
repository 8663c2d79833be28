"""Slices hold less than all at once, and give the same."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import objectives, oracle, priors
from jaxmia.attacks.image import align_mi, if_gmi, ppa, vmi
from jaxmia.core import Attack, Process, info
from jaxmia.priors.blocks import Feature, chain
from jaxmia.recipes import best_of, descend, evolve, selected, sliced
from jaxmia.recipes.sliced import _kept, _peak

MODULE = sys.modules["jaxmia.recipes.sliced"]
KEY, SIDE = jax.random.key(0), 64
MIXES = jax.random.normal(jax.random.key(1), (SIDE, SIDE)) / 8
LOOKS = jax.random.normal(jax.random.key(2), (SIDE * SIDE, 5)) / SIDE


@pytest.fixture
def small(monkeypatch):
    """Slices of 100 kB: a few images of 64 pixels squared."""
    monkeypatch.setattr(MODULE, "SLICE_BYTES", 100_000)


def decode(z):
    x = jnp.outer(z, MIXES.reshape(-1)[: SIDE * SIDE // z.shape[0]]).reshape(SIDE, SIDE)
    for _ in range(6):
        x = jnp.tanh(x @ MIXES)
    return x[..., None]


def answer(key, x):
    return jnp.tanh(x[..., 0] @ MIXES).reshape(-1) @ LOOKS


VIEW = oracle.Weights(answer, lambda params, x: oracle.Outputs(answer(None, x), {}), ())
PRIOR = priors.latent(lambda z: decode(z[0])[None], 16)
CASE = jnp.asarray(2)


def temporary(fn, *arguments):
    """Bytes that a compiled program needs beside its arguments and results."""
    return jax.jit(fn).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def loops(fn, *arguments):
    """Lengths of the loops over slices."""
    found = []

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "scan" and "sliced" in str(eqn.source_info.name_stack):
                found.append(eqn.params["length"])
            for value in eqn.params.values():
                for item in value if isinstance(value, tuple | list) else (value,):
                    inner = getattr(item, "jaxpr", item)
                    if hasattr(inner, "eqns"):
                        walk(inner)

    walk(jax.make_jaxpr(fn)(*arguments).jaxpr)
    return found


def test_slices_are_what_all_at_once_is(small):
    z = jax.random.normal(KEY, (60, 16))
    keys = jax.random.split(KEY, 60)

    def both(key, z):
        return answer(key, decode(z)), jax.random.normal(key)

    assert loops(lambda z: sliced(both, keys, z), z), "nothing was sliced"
    for a, b in zip(sliced(both, keys, z), jax.vmap(both)(keys, z)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_small_count_is_one_slice():
    assert loops(lambda z: sliced(lambda z: answer(KEY, decode(z)), z), jnp.ones((60, 16))) == []


@pytest.mark.nightly
def test_a_gradient_through_slices_is_accumulated(small):
    """By what was closed over; on the way back no more than one slice is held either."""
    keys = jax.random.split(KEY, 100)

    def loss(side_by_side):
        def total(z, keys):
            near = lambda key: z + 0.1 * jax.random.normal(key, (16,))  # noqa: E731
            return jnp.mean(side_by_side(lambda key: jnp.sum(answer(key, decode(near(key))) ** 2), keys))

        return jax.grad(total)

    z = jax.random.normal(KEY, (16,))
    cut = loss(lambda fn, keys: sliced(fn, keys, gradient=True))
    whole = loss(lambda fn, keys: jax.vmap(fn)(keys))
    np.testing.assert_allclose(cut(z, keys), whole(z, keys), rtol=1e-4, atol=1e-7)
    assert temporary(cut, z, keys) < temporary(whole, z, keys) / 5


def test_what_is_foreseen_is_about_what_the_compiler_needs():
    """Within a factor of four, forwards and backwards: it decides about slices and need not be exact."""
    z = jnp.ones((50, 16))

    def loss(z):
        return jnp.sum(answer(KEY, decode(z)) ** 2)

    forwards = jax.make_jaxpr(loss)(z[0]).jaxpr
    measured = temporary(jax.vmap(loss), z) / 50
    assert measured / 4 < _peak(forwards) < measured * 4
    backwards = temporary(jax.vmap(jax.grad(loss)), z) / 50
    assert backwards / 4 < _kept(forwards) < backwards * 4


def counter():
    return Process(
        lambda key, case: jax.random.normal(key, (16,)),
        lambda key, x, case: (x + 1.0, info(answer(key, decode(x))[case])),
        lambda x: decode(x),
        5,
    )


def doubt(x, case):
    return answer(KEY, decode(x))[case]


def attack_of(process):
    return Attack(lambda fitted: process)


def large_states():
    """A generator whose features, which the state of a run of IF-GMI holds, are larger than its images."""
    blocks = (
        lambda feature, w: Feature(jnp.outer(jnp.ones(4096), w)),
        lambda feature, w: decode(feature.map[0]),
    )
    return chain(lambda key: jax.random.normal(key, (16,)), blocks)


def aligned(base):
    return align_mi.align_mi(VIEW, base, neighbors=79).solve(())


def descent(view):
    return descend(view, objectives.cross_entropy, PRIOR, optax.sgd(0.1), steps=3)


SIDE_BY_SIDE = {
    "pool": ("init", lambda: selected(counter(), pool=80, starts=2, first=doubt, last=doubt)),
    "states of a pool": (
        "init",
        lambda: if_gmi.if_gmi(VIEW, large_states(), steps=(2, 2), radii=(9.0, 9.0), pool=80).solve(()),
    ),
    "starts": ("step", lambda: selected(counter(), pool=60, starts=60, first=doubt, last=doubt)),
    "starts at the end": ("read", lambda: selected(counter(), pool=60, starts=60, first=doubt, last=doubt)),
    "restarts": ("step", lambda: best_of(counter(), 60, rank=lambda x: x[0])),
    "members": ("init", lambda: evolve(lambda key, x, case: answer(key, x)[case], PRIOR, members=80, steps=3)),
    "views": ("read", lambda: ppa.ppa(VIEW, PRIOR, pool=2, starts=2, views=80).solve(())),
    "draws": ("step", lambda: vmi.vmi(VIEW, PRIOR, draws=80, posterior="gaussian").solve(())),
    "neighbors": ("step", lambda: aligned(lambda view: attack_of(descent(view)))),
}
"""By what is many: where it is side by side, and the process."""


@pytest.mark.nightly
@pytest.mark.parametrize("many", SIDE_BY_SIDE)
def test_a_count_of_the_attacks_own_does_not_multiply_memory(many, monkeypatch):
    """Compiled, in slices it takes a fraction of what all at once takes, and computes the same."""
    where, make = SIDE_BY_SIDE[many]
    arguments = (KEY, CASE)
    if where != "init":
        state = jax.eval_shape(make().init, KEY, CASE)
        draw = lambda leaf: jnp.asarray(np.random.default_rng(0).normal(size=leaf.shape), leaf.dtype)  # noqa: E731
        state = jax.tree.map(draw, state)
        arguments = (KEY, state, CASE) if where == "step" else (state,)
    found = []
    for most in (2**40, 200_000):
        monkeypatch.setattr(MODULE, "SLICE_BYTES", most)
        compiled = jax.jit(getattr(make(), where)).lower(*arguments).compile()
        found.append((compiled.memory_analysis().temp_size_in_bytes, compiled(*arguments)))
    (at_once, wanted), (cut, same) = found
    assert cut < at_once / 4, f"{cut} of {at_once} bytes"
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(same)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.nightly
def test_lanes_judge_a_pool_once():
    """What a base does before its steps is of the candidate itself; its neighbors are not asked."""
    asked = []

    def counted(key, x):
        asked.append(1)
        return answer(key, x)

    def base(view):
        judge = lambda state, case: view.answer(KEY, PRIOR.decode(state.latent))[case]  # noqa: E731
        return attack_of(selected(descent(view), pool=6, starts=2, first=judge, last=judge))

    process = align_mi.align_mi(VIEW._replace(answer=counted), base, neighbors=7).solve(())
    plain = base(VIEW).solve(())
    state = process.init(KEY, CASE)
    np.testing.assert_allclose(state.runs.latent, plain.init(KEY, CASE).runs.latent, rtol=1e-6)
    assert "all_gather" not in str(jax.make_jaxpr(process.init)(KEY, CASE))
    stepped, _ = process.step(KEY, state, CASE)
    assert not np.allclose(stepped.runs.latent, plain.step(KEY, state, CASE)[0].runs.latent)
