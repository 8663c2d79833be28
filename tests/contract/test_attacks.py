"""What every attack must satisfy, by discovery (architecture: the nine contracts)."""

import copy
import doctest
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, Process, ThreatModelError, attacks, fit, solve
from jaxmia.core import Card
from tests.contract.benches import Bench, bench

# The text, graph and tabular attacks have analytic targets in their own tests; their benches are still to be written.
METHODS = [attacks.get(name) for name in attacks.names() if name.startswith("image/")]
CAP = 400  # most steps of any process here
ONE = Plan(devices=tuple(jax.devices()[:1]), chunk=8, progress=False)
KEY = jax.random.key(7)
GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
_fitted: dict = {}


@pytest.fixture(params=METHODS, ids=[m.name for m in METHODS])
def method(request):
    return request.param


def make(method, on: Bench, oracle, **hyperparameters):
    inputs = {name: on.inputs[name] for name in method.inputs if name != "oracle"}
    return method.factory(oracle, **inputs, **hyperparameters)


def process_of(method, on: Bench, target) -> Process:
    """The attack's solve process with its stages trained, once per target."""
    attack = make(method, on, target.view(method.card.access, method.name))
    if (method.name, target.digest) not in _fitted:
        fitted = ()
        for stage in attack.train:
            process = stage(fitted)
            output, _ = fit(process, KEY, on.public, plan=ONE)
            fitted += (output,)
        _fitted[method.name, target.digest] = fitted
    return attack.solve(_fitted[method.name, target.digest])


def attack_all(method, on: Bench, target, plan=ONE, **options):
    process = process_of(method, on, target)
    steps = options.pop("steps", min(process.steps, CAP))
    return solve(process, KEY, on.cases(target, method.card), steps=steps, plan=plan, **options)


def first_case(on: Bench, method):
    return jax.tree.map(lambda a: jnp.asarray(a[0]), on.cases(on.target, method.card))


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def test_card_and_documentation(method):
    card = method.card
    assert isinstance(card, Card) and isinstance(card.access, Access)
    for field in ("title", "paper", "url", "recovers", "knows", "observes"):
        assert getattr(card, field), field
    assert card.url.startswith("https://") and 1990 < card.year < 2100
    assert method.name.split("/")[0] == card.modality
    assert method.factory.__doc__ and "Args:" in method.factory.__doc__
    module = importlib.import_module(f"jaxmia.attacks.{method.name.replace('/', '.')}")
    assert card.url.split("//")[1] in module.__doc__
    assert doctest.testmod(module).failed == 0
    assert method.inputs[0] == "oracle"


def test_state_is_stable_and_starts_without_nan(method):
    on = bench(method)
    process = process_of(method, on, on.target)
    state = process.init(KEY, first_case(on, method))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    if process.steps:
        after, told = jax.eval_shape(process.step, KEY, state, first_case(on, method))
        before = jax.eval_shape(lambda s: s, state)
        assert jax.tree.structure(before) == jax.tree.structure(after)
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
            assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
        assert all(leaf.shape == () for leaf in jax.tree.leaves(told))


def test_eager_jit_and_vmap_agree_and_trace_once(method):
    on = bench(method)
    process = process_of(method, on, on.target)
    case = first_case(on, method)
    state = process.init(KEY, case)
    if process.steps == 0:
        close(process.read(state), jax.jit(lambda c: process.read(process.init(KEY, c)))(case))
        return
    with jax.disable_jit():
        eager = process.step(KEY, state, case)[0]
    jitted = jax.jit(process.step)(KEY, state, case)[0]
    batch = jax.tree.map(lambda a: jnp.stack([a, a]), (state, case))
    vmapped = jax.vmap(process.step, in_axes=(None, 0, 0))(KEY, *batch)[0]
    close(eager, jitted, 1e-4)
    close(jitted, jax.tree.map(lambda a: a[1], vmapped), 1e-4)

    traces = []
    counted = process._replace(step=lambda *a: (traces.append(1), process.step(*a))[1])
    solve(counted, KEY, on.cases(on.target, method.card), steps=20, plan=ONE._replace(block=5))
    assert len(traces) == 1


def test_result_does_not_depend_on_batch_chunk_or_devices(method):
    on = bench(method)
    cases = on.cases(on.target, method.card)
    n = len(jax.tree.leaves(cases)[0])
    steps = min(process_of(method, on, on.target).steps, 60)
    whole = attack_all(method, on, on.target, steps=steps)
    process = process_of(method, on, on.target)
    last = jax.tree.map(lambda a: a[n - 1 :], cases)
    alone = solve(process, KEY, last, steps=steps, ids=[n - 1], plan=ONE)
    close(jax.tree.map(lambda a: a[0], alone.output), jax.tree.map(lambda a: a[-1], whole.output), 0)  # bitwise
    for plan in (
        ONE._replace(chunk=2, block=7),
        ONE._replace(devices=tuple(jax.devices()[:4]), chunk=8),
        ONE._replace(devices=tuple(jax.devices()[:2]), chunk=8, mapper="pmap"),
        ONE._replace(loop="scan"),
    ):
        close(attack_all(method, on, on.target, plan=plan, steps=steps).output, whole.output, 1e-5)


def test_resume_is_bitwise(method, tmp_path):
    on = bench(method)
    process = process_of(method, on, on.target)
    steps = min(process.steps, 40)
    whole = attack_all(method, on, on.target, steps=steps)
    plan = ONE._replace(chunk=2, block=10, save_seconds=0.0)
    expected = attack_all(method, on, on.target, steps=steps, plan=plan)
    close(expected.output, whole.output, 1e-5)
    calls = []

    class Killed(Exception):
        pass

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            raise Killed

    from jaxmia import engine

    original = engine.checkpoint.save_part
    engine.checkpoint.save_part = lambda *a: (original(*a), interrupt())[1]
    try:
        solve(process, KEY, on.cases(on.target, method.card), steps=steps, plan=plan, folder=tmp_path)
    except Killed:
        pass
    finally:
        engine.checkpoint.save_part = original
    again = solve(process, KEY, on.cases(on.target, method.card), steps=steps, plan=plan, folder=tmp_path)
    close(again.output, expected.output, 0)


def test_access_is_enforced(method):
    on = bench(method)
    needed = method.card.access
    make(method, on, on.target.view(needed))
    if needed > Access.LABELS:
        with pytest.raises(ThreatModelError, match=f"{method.name}.*{needed.name}.*{Access(needed - 1).name}"):
            make(method, on, on.target.view(Access(needed - 1)))
    if needed < Access.WEIGHTS:
        case_like = first_candidate(on, method)
        if case_like is not None:
            view = on.target.view(needed)
            with pytest.raises(ThreatModelError, match="WEIGHTS"):
                jax.grad(lambda x: jnp.sum(view.answer(KEY, x).astype(jnp.float32)))(case_like)


def first_candidate(on: Bench, method):
    """A float candidate to differentiate at, where the modality has one."""
    shape = on.inputs.get("shape")
    return jnp.full(shape, 0.5) if shape is not None else None


def test_queries_are_what_a_counting_target_sees(method):
    on = bench(method)
    if method.card.access == Access.WEIGHTS:
        return  # white-box attacks evaluate their own copy
    seen = []
    scores = on.target._scores

    def count(x):
        seen.append(1)
        return np.zeros((), np.float32)

    def counted(key, x):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return scores(key, x) + jax.pure_callback(count, shape, x, vmap_method="sequential")

    watched = copy.copy(on.target)
    watched._scores = counted
    process_of(method, on, on.target)
    attack = make(method, on, watched.view(method.card.access))
    process = attack.solve(_fitted[method.name, on.target.digest])
    case = first_case(on, method)
    state, told = process.init(KEY, case), None
    for t in range(3 if process.steps else 0):
        state, told = process.step(jax.random.fold_in(KEY, t), state, case)
    jax.effects_barrier()
    if told is not None:
        assert int(told.queries) == len(seen)


def test_float_hyperparameters_can_be_traced(method):
    on = bench(method)
    process_of(method, on, on.target)
    case = first_case(on, method)
    batch = jax.tree.map(jnp.asarray, on.public(0))
    view = on.target.view(method.card.access)
    for name, value in method.hyperparameters.items():
        if not isinstance(value, float):
            continue

        def one_step(traced, name=name):
            attack = make(method, on, view, **{name: traced})
            for stage in attack.train:
                process = stage(())
                process.step(KEY, process.init(KEY, batch), batch)
            process = attack.solve(_fitted[method.name, on.target.digest])
            state = process.init(KEY, case)
            return process.step(KEY, state, case)[1].loss

        jax.eval_shape(one_step, jnp.float32(value))


def test_recovers_the_analytic_target_and_not_the_control(method):
    on = bench(method)
    leaked = on.success(attack_all(method, on, on.target).output).mean()
    control = on.success(attack_all(method, on, on.control).output).mean()
    assert leaked >= on.chance + 0.4, f"success {leaked:.2f} on the leaking target, chance is {on.chance:.2f}"
    assert control <= leaked - 0.3, f"success {control:.2f} on the control, {leaked:.2f} on the leaking target"


def test_golden_digest(method, request):
    on = bench(method)
    result = attack_all(method, on, on.target, steps=min(process_of(method, on, on.target).steps, 20))
    digest = {
        jax.tree_util.keystr(path) or "output": [float(np.mean(leaf)), float(np.std(leaf)), float(np.ravel(leaf)[0])]
        for path, leaf in jax.tree_util.tree_leaves_with_path(result.output)
    }
    file = GOLDEN / f"{method.name.replace('/', '-')}.json"
    if request.config.getoption("--record-golden"):
        file.write_text(json.dumps(digest, indent=1) + "\n")
    golden = json.loads(file.read_text())
    assert golden.keys() == digest.keys()
    for name, values in digest.items():
        np.testing.assert_allclose(values, golden[name], rtol=2e-3, atol=2e-4, err_msg=name)
