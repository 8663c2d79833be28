"""A finished result is reused for the same program and inputs alone, and always for these."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxmia import Access, Attack, Plan, Process, Scenario, checkpoint, fit, from_callable, identity, info, run, solve
from jaxmia.attacks.image.mi_face import mi_face
from jaxmia.data import minibatches

KEY = jax.random.key(3)
CASES = np.linspace(0, 1, 6, dtype=np.float32)
QUIET = Plan(devices=tuple(jax.devices()[:1]), save_seconds=0.0, progress=False)
SQUARE = jnp.arange(9.0).reshape(3, 3)


def bent(slope):
    """A function whose own derivative is `slope`."""

    @jax.custom_jvp
    def bend(x):
        return jnp.sin(x)

    bend.defjvp(lambda primals, tangents: (bend(*primals), slope * tangents[0]))
    return bend


def body(scale):
    @jax.custom_jvp
    def scaled(x):
        return scale * x

    scaled.defjvp(lambda primals, tangents: (scaled(*primals), tangents[0]))
    return scaled


def weighed(weights):
    return lambda x: x @ jnp.asarray(weights)


PROGRAMS = {
    "permutation": [lambda x: x.transpose(1, 0) * 1.0, lambda x: x.transpose(0, 1) * 1.0],
    "axis": [lambda x: jnp.cumsum(x, 0), lambda x: jnp.cumsum(x, 1)],
    "sum's axis": [lambda x: x - x.sum(0, keepdims=True).T, lambda x: x - x.sum(1, keepdims=True)],
    "clip bound": [lambda x: jnp.clip(x, 0, 1), lambda x: jnp.clip(x, 0, 2)],
    "shape": [lambda x, n=n: jnp.resize(jnp.ravel(x)[:n], x.shape) for n in (4, 5)],
    "literal": [lambda x: x * 1.5, lambda x: x * 1.25],
    "array": [lambda x: x + SQUARE, lambda x: x + SQUARE.T],
    "operation": [jnp.sin, jnp.cos],
    "order": [lambda x: x - SQUARE, lambda x: SQUARE - x],
    "derivative": [jax.vmap(jax.vmap(jax.grad(bent(2.0)))), jax.vmap(jax.vmap(jax.grad(bent(3.0))))],
    "custom_jvp body": [body(2.0), body(3.0)],
    "loop length": [lambda x, n=n: jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, length=n)[0] for n in (2, 3)],
    "loop direction": [lambda x, r=r: jax.lax.scan(lambda c, y: (c + y, c), x[0], x, reverse=r)[1] for r in (True, False)],
    "branch": [lambda x, f=f: jax.lax.cond(x[0, 0] > 0, f, lambda x: x, x) for f in (jnp.sin, jnp.cos)],
    "random shape": [lambda x, n=n: x + jax.random.normal(jax.random.key(0), (n, 3))[:3] for n in (3, 4)],
    "random seed": [lambda x, n=n: x + jax.random.normal(jax.random.key(n), (3, 3)) for n in (0, 1)],
    "dtype": [lambda x, d=d: x.astype(d).astype(x.dtype) for d in (jnp.float16, jnp.bfloat16)],
    "precision": [lambda x, p=p: jnp.dot(x, x, precision=p) for p in ("highest", "default")],
    "window": [lambda x, w=w: jax.lax.reduce_window(x, 0.0, jax.lax.add, w, (1, 1), "SAME") for w in ((1, 2), (2, 1))],
    "gather mode": [lambda x, m=m: x.at[jnp.array([5])].get(mode=m) + x for m in ("clip", "fill")],
    "jitted": [lambda x, s=s: jax.jit(lambda x: x * s)(x) for s in (2.0, 3.0)],
}  # fmt: skip


def of(fn):
    return identity.identify([jax.make_jaxpr(fn)(jnp.ones((3, 3)))])["program"]


@pytest.mark.parametrize("what", PROGRAMS)
def test_programs_that_compute_otherwise_have_other_identities(what):
    one, other = PROGRAMS[what]
    assert of(one) != of(other)
    assert of(one) == of(lambda x: one(x)), "traced again it is the same"


def test_equal_constants_are_the_same_however_often_they_are_made():
    once = np.ones((3, 3), np.float32)
    assert of(lambda x: weighed(once)(weighed(once)(x))) == of(lambda x: weighed(once.copy())(weighed(once.copy())(x)))


def test_what_a_program_is_called_from_does_not_count():
    assert of(lambda x: PROGRAMS["literal"][0](x)) == of(PROGRAMS["literal"][0])
    assert not re.search("0x", json.dumps(identity.identify([jax.make_jaxpr(body(2.0))(1.0)])))


def walk(kind="step", scale=0.5):
    """A process in which one of init, step and read depends on `scale`."""
    at = {name: scale if name == kind else 1.0 for name in ("init", "step", "read")}

    def init(key, case):
        return at["init"] * jax.random.normal(key, (3,)) + case

    def step(key, x, case):
        return jnp.sin(at["step"] * x), info(jnp.sum(x))

    return Process(init, step, lambda x: at["read"] * x, 4)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["init", "step", "read"])
def test_init_step_and_read_all_decide_a_solve_and_a_training(kind, tmp_path):
    solve(walk(kind), KEY, CASES, folder=tmp_path / "solve", plan=QUIET)
    with pytest.raises(ValueError, match=r"holds another run \(another program\)"):
        solve(walk(kind, 0.25), KEY, CASES, folder=tmp_path / "solve", plan=QUIET)
    batches = lambda step: CASES  # noqa: E731
    learner = walk(kind)._replace(init=lambda key, batch: walk(kind).init(key, batch[0]))
    other = walk(kind, 0.25)._replace(init=lambda key, batch: walk(kind, 0.25).init(key, batch[0]))
    fit(learner, KEY, batches, folder=tmp_path / "fit", plan=QUIET)
    with pytest.raises(ValueError, match=r"holds another run \(another program\)"):
        fit(other, KEY, batches, folder=tmp_path / "fit", plan=QUIET)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"key": jax.random.key(4)}, "key"), ({"cases": CASES + 1}, "cases"), ({"ids": np.arange(6) + 1}, "cases"),
     ({"steps": 3}, "number of steps")],
)  # fmt: skip
def test_the_refusal_names_what_differs(changed, named, tmp_path):
    given = {"key": KEY, "cases": CASES, "steps": 4}
    solve(walk(), **given, folder=tmp_path, plan=QUIET)
    with pytest.raises(ValueError, match=rf"holds another run \(another {named}\)"):
        solve(walk(), **given | changed, folder=tmp_path, plan=QUIET)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "changed",
    [{"chunk": 2}, {"chunk": 4, "microbatch": 2}, {"block": 2}, {"mapper": "pmap"}, {"loop": "host"},
     {"devices": tuple(jax.devices()[:2])}],
)  # fmt: skip
def test_a_plan_does_not_count(changed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_part", full)
        with pytest.raises(OSError, match="no space"):
            solve(walk(), KEY, CASES, folder=tmp_path, plan=QUIET._replace(block=2))
    assert checkpoint.saved_steps(tmp_path)
    plan = QUIET._replace(**changed)
    resumed = solve(walk(), KEY, CASES, folder=tmp_path, plan=plan)
    np.testing.assert_allclose(resumed.output, solve(walk(), KEY, CASES, plan=plan).output, atol=1e-6)


def test_other_versions_are_refused_and_named(tmp_path, monkeypatch):
    solve(walk(), KEY, CASES, folder=tmp_path, plan=QUIET)
    monkeypatch.setattr(identity, "versions", lambda: {"jax": "99.1"})
    with pytest.raises(ValueError, match=r"holds another run \(made with jaxmia .*, jax .*, where this is jax 99.1\)"):
        solve(walk(), KEY, CASES, folder=tmp_path, plan=QUIET)


ATTACK = """
import sys, json, numpy as np, jax, jaxmia
from jaxmia import attacks, models, priors, identity
from jaxmia.slots import build
module = models.MLP(3, width=4)
shape = (8, 6, 1)
variables = module.init(jax.random.key(0), np.zeros((1, *shape)))
target = jaxmia.from_linen(module, variables, classes=3)
prior = priors.eigen(np.random.default_rng(0).random((9, *shape), np.float32), 3)
found = {}
for name in ("image/gmi", "image/mi_face", "image/brep_mi"):
    method = attacks.get(name)
    inputs = {"prior": prior, "shape": shape}
    oracle = target.view(method.card.access)
    for chunk in map(int, sys.argv[1:]):
        given = {name: inputs[name] for name in method.inputs if name in inputs}
        process = method.factory(oracle, **given).solve(())
        plan = jaxmia.Plan(progress=False)
        devices = tuple(jax.devices()[:1])
        programs = build(process, jax.random.key(1), np.arange(3), np.arange(3), 2, devices, chunk, plan)
        found.setdefault(name, set()).add(json.dumps(identity.identify(programs.traced)))
print(json.dumps({name: sorted(texts) for name, texts in found.items()}))
"""


@pytest.mark.nightly
def test_the_same_attack_in_another_process_with_another_chunk_is_the_same():
    found = []
    for seed, chunks in (("1", ["3", "2"]), ("2", ["1"])):
        told = subprocess.run(
            [sys.executable, "-c", ATTACK, *chunks],
            capture_output=True, text=True, check=True, timeout=300, env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=pathlib.Path(__file__).parent.parent,
        )  # fmt: skip
        found.append(json.loads(told.stdout))
    assert found[0] == found[1]
    assert all(len(texts) == 1 for texts in found[0].values()) and len({t for (t,) in found[0].values()}) == 3


# Minibatches


def mean():
    def step(key, x, batch):
        return x + 0.1 * (batch["x"].mean(0) - x), info(jnp.sum(x))

    return Process(lambda key, batch: 0.0 * batch["x"].mean(0), step, lambda x: x, 9)


@pytest.mark.parametrize("wrapped", [False, True])
def test_other_rows_than_the_first_minibatch_are_another_training(wrapped, tmp_path):
    rows = np.random.default_rng(0).random((40, 3), np.float32)
    first = np.random.default_rng((0, 0)).permutation(40)[:4]  # what the first minibatch holds
    changed = rows + np.where(np.isin(np.arange(40), first), 0, 1)[:, None].astype(np.float32)

    def batches(rows):
        made = minibatches({"x": rows}, 4, 0)
        return (lambda step: made(step)) if wrapped else made

    np.testing.assert_array_equal(batches(rows)(0)["x"], batches(changed)(0)["x"])
    fit(mean(), KEY, batches(rows), folder=tmp_path, plan=QUIET)
    before = fit(mean(), KEY, batches(rows.copy()), folder=tmp_path, plan=QUIET)[0]
    np.testing.assert_array_equal(before, fit(mean(), KEY, batches(rows), plan=QUIET)[0])
    with pytest.raises(ValueError, match=r"holds another run \(another set of minibatches\)"):
        fit(mean(), KEY, batches(changed), folder=tmp_path, plan=QUIET)


def test_a_row_that_no_minibatch_looked_at_holds_counts_too():
    rows = np.zeros((1000, 2), np.float32)
    changed = rows.copy()
    changed[777, 1] = 1
    known = [
        minibatches({"x": x}, 10, seed).identity for x, seed in ((rows, 0), (rows.copy(), 0), (changed, 0), (rows, 1))
    ]
    assert known[0] == known[1] and len(set(known)) == 3


# Host functions


def asked(folder, slope=1.0, **options):
    calls = []

    def predict(x):
        calls.append(len(x))
        z = slope * x.reshape(len(x), -1)[:, :3]
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    target = from_callable(predict, classes=3, **options)

    def step(key, x, case):
        return x + target.view(Access.SCORES).answer(key, x)[case], info(0.0)

    process = Process(lambda key, case: jnp.ones(5), step, lambda x: x, 2)
    result = solve(process, KEY, np.arange(3), folder=folder, plan=QUIET)
    return result.output, sum(calls)


@pytest.mark.nightly
def test_a_host_function_in_a_folder_must_be_identified(tmp_path):
    with pytest.raises(ValueError, match=r"folder: .*on_host.*give `from_callable\(..., identity=...\)`"):
        asked(tmp_path / "none")
    asked(None)
    first, calls = asked(tmp_path / "run", identity="slope 1")
    again, none = asked(tmp_path / "run", identity="slope 1")
    np.testing.assert_array_equal(first, again)
    assert calls > 0 and none == 0
    with pytest.raises(ValueError, match=r"holds another run \(another program\)"):
        asked(tmp_path / "run", slope=2.0, identity="slope 2")


def test_run_refuses_a_host_target_that_nothing_identifies_before_anything_is_asked(tmp_path):
    target = from_callable(lambda x: pytest.fail("asked"), classes=3)
    with pytest.raises(ValueError, match="folder: .* identity="):
        run(Attack(lambda fitted: walk()), KEY, Scenario(target, np.arange(3)), folder=tmp_path / "run", plan=QUIET)
    assert not (tmp_path / "run").exists()


# What a folder holds


def test_a_checkpoint_keeps_every_dtype(tmp_path):
    tree = {
        "half": np.arange(4).astype(ml_dtypes.bfloat16), "yes": np.array([True, False]), "none": np.zeros((0, 3)),
        "scalar": np.int8(3), "double": np.arange(3.0),
    }  # fmt: skip
    checkpoint.save(tmp_path, 1, tree, identity={"program": "mine"})
    found = checkpoint.load_newest(tmp_path, jax.tree.map(np.asarray, tree), identity={"program": "mine"})
    assert found is not None and found[0] == 1
    for one, other in zip(jax.tree.leaves(tree), jax.tree.leaves(found[1])):
        assert np.asarray(one).dtype == other.dtype and np.array_equal(one, other)


def test_a_checkpoint_of_an_earlier_layout_is_another_run(tmp_path):
    (tmp_path / "step-3.json").write_text(json.dumps({"version": 1, "step": 3, "fingerprint": "a", "leaves": []}))
    with pytest.raises(ValueError, match="holds another run .other inputs, settings or code"):
        checkpoint.load_newest(tmp_path, {}, identity={"program": "mine"})


FAILED = """
import os, sys, pathlib, numpy as np
from jaxmia import checkpoint
folder, call = pathlib.Path(sys.argv[1]), sys.argv[2]
real = getattr(os, call)
def fails(path, *arguments, **options):
    if "step-" in str(path):
        raise FileExistsError(17, "File exists", str(path))
    return real(path, *arguments, **options)
setattr(os, call, fails)
try:
    checkpoint.save(folder, 2, {"a": np.arange(10.0)}, identity={"program": "mine"})
except OSError as error:
    print(error)
"""


@pytest.mark.nightly
@pytest.mark.parametrize("call", ["mkdir", "open", "replace"])
def test_a_failed_save_ends_and_so_does_its_process(call, tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", FAILED, str(tmp_path), call],
        capture_output=True, text=True, timeout=120, cwd=pathlib.Path(__file__).parent.parent,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert call == "mkdir" or "cannot be written (File exists)" in told.stdout


@pytest.mark.nightly
def test_mi_face_on_other_weights_is_another_run(tmp_path):
    from jaxmia import from_function

    def attacked(weights):
        target = from_function(lambda p, x: x.reshape(len(x), -1) @ p, weights, classes=4)
        attack = mi_face(target.view(Access.WEIGHTS), shape=(2, 3, 1), start=0.5, alpha=3)
        return run(attack, KEY, Scenario(target, np.arange(4)), folder=tmp_path, plan=QUIET)

    weights = np.random.default_rng(0).random((6, 4), np.float32)
    attacked(weights)
    attacked(weights.copy())
    with pytest.raises(ValueError, match="another program"):
        attacked(weights + 1)
