"""What every attack must satisfy, by discovery (architecture: the nine contracts). `-k image/gmi` takes one of them."""

import contextlib
import doctest
import inspect
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, ThreatModelError, attacks, discovery, engine, solve
from jaxmia.core import Card, Cases
from jaxmia.defenses.rounding import rounding
from tests.compiling import as_users_do
from tests.contract.trial import FOUR, KEY, ONE, SHORT, Trial

SKELETONS = "tests.contract.skeletons.attacks"
METHODS = [attacks.get(name) for name in attacks.names()]
METHODS += [discovery.get(SKELETONS, name) for name in discovery.names(SKELETONS)]
EAGER = 200  # operations of a step that is also taken one by one, which is slow where they are many
CHAOTIC = {  # what their golden numbers and bounds were recorded of shows how a compiler rounds
    f"image/{name}" for name in ("cdm_mi", "fsha", "kkt", "ppdg_mi", "secret_gen", "updates_leak")
}
LONG = {"image/rlb_mi"}  # every step trains an agent: hasty code takes longer than the compiling that it saves
MARGIN = 0.2  # by which the whole interval of the success must be above chance
GOLDEN = pathlib.Path(__file__).parent.parent / "golden"


@pytest.fixture(params=METHODS, ids=[m.name for m in METHODS], scope="module")
def trial(request):
    with as_users_do() if request.param.name in CHAOTIC | LONG else contextlib.nullcontext():
        yield Trial(request.param)


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def test_card_and_documentation(trial):
    method, card = trial.method, trial.method.card
    assert isinstance(card, Card) and isinstance(card.access, Access)
    for field in ("title", "paper", "url", "recovers", "knows", "observes"):
        assert getattr(card, field), field
    assert card.hook == ""
    assert card.url.startswith("https://") and 1990 < card.year < 2100
    assert method.name.split("/")[0] == card.modality
    assert method.factory.__doc__ and "Args:" in method.factory.__doc__
    module = inspect.getmodule(method.factory)
    assert module and module.__doc__ and card.url.split("//")[1] in module.__doc__
    assert doctest.testmod(module).failed == 0
    assert method.inputs[0] == "oracle"
    for name in (*method.inputs, *method.hyperparameters):
        assert f"  {name}: " in method.factory.__doc__, name


def test_state_is_stable_and_starts_without_nan(trial):
    process, case = trial.process(), trial.case()
    state = jax.jit(process.init)(KEY, case)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    after, told = jax.eval_shape(process.step, KEY, state, case)
    before = jax.eval_shape(process.init, KEY, case)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
        assert not old.weak_type
    assert all(leaf.shape == () for leaf in jax.tree.leaves(told))


def test_eager_jit_and_vmap_agree(trial):
    process, case = trial.process(), trial.case()
    state = jax.jit(process.init)(KEY, case)

    def one(state, case):
        return process.step(KEY, state, case) if process.steps else process.read(process.init(KEY, case))

    jitted = jax.jit(one)(state, case)
    if str(jax.make_jaxpr(one)(state, case)).count(" = ") <= EAGER:
        with jax.disable_jit():
            close(one(state, case), jitted, 1e-4)
    two = jax.tree.map(lambda a: jnp.stack([a, a]), (state, case))
    vmapped = jax.jit(jax.vmap(one))(*two)
    close(jitted, jax.tree.map(lambda a: a[1], vmapped), 1e-4)


def test_step_is_traced_once(trial):
    steps = min(trial.process().steps, SHORT)
    trial.run(most=SHORT)
    assert trial.traces["leaks", ONE, steps] == min(steps, 1)


def test_result_does_not_depend_on_batch_chunk_or_devices(trial):
    whole, cases = trial.run(most=SHORT), trial.cases()
    last = len(whole.status) - 1
    alone = solve(
        trial.process(), KEY, jax.tree.map(lambda a: a[last:], cases), ids=[last], plan=ONE,
        steps=min(trial.process().steps, SHORT),
    )  # fmt: skip
    close(jax.tree.map(lambda a: a[0], alone), jax.tree.map(lambda a: a[last], whole), 0)  # bitwise
    close(trial.run(plan=FOUR, most=SHORT), whole)


def test_resume_is_bitwise(trial, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    saves = []

    def then_die(save):
        def saved(*arguments, **options):
            save(*arguments, **options)
            saves.append(1)
            if len(saves) == 2:
                raise Killed

        return saved

    options = {"steps": min(trial.process().steps, SHORT), "plan": FOUR, "folder": tmp_path}
    with monkeypatch.context() as patch:
        for name in ("save", "save_part"):
            patch.setattr(engine.checkpoint, name, then_die(getattr(engine.checkpoint, name)))
        with pytest.raises(Killed):
            solve(trial.process(), KEY, trial.cases(), **options)
    again = solve(trial.process(), KEY, trial.cases(), **options)
    close(again, trial.run(plan=FOUR, most=SHORT), 0)


def test_access_is_enforced(trial):
    method, target, needed = trial.method, trial.on.target("leaks"), trial.method.card.access
    trial.attack(target.view(needed))
    if needed == Access.NONE:
        assert not hasattr(target.view(needed), "answer")
        return
    less = Access(needed - 1)
    with pytest.raises(ThreatModelError, match=f"{method.name}.*{less.name}"):
        trial.attack(target.view(less, method.name))
    if needed < Access.WEIGHTS:
        with pytest.raises(ThreatModelError, match="WEIGHTS"):
            jax.grad(lambda x: jnp.sum(target.view(needed).answer(KEY, x).astype(jnp.float32)))(trial.on.candidate)


def test_queries_are_what_a_rounding_target_served(trial):
    """An attack below white-box access meets an output defense unchanged, and counts what it asks."""
    if trial.method.card.access in (Access.NONE, Access.WEIGHTS):
        assert np.all(trial.run(most=SHORT).info.queries == 0)  # it asks nothing, or evaluates its own copy
        return
    level, served = 0.1, []

    def answer(key, scores):
        rounded = rounding(level=level).answer(key, scores)
        jax.debug.callback(lambda seen: served.append(np.asarray(seen)), rounded)  # once per candidate, under vmap too
        return rounded

    attack, case = trial.attack(trial.oracle(defense=Defense(answer=answer))), trial.case()
    process = attack.solve(trial.fitted())
    state = jax.jit(process.init)(KEY, case)
    claimed, step = getattr(process.read(state), "queries", 0), jax.jit(process.step)
    for t in range(3 if process.steps else 0):
        state, told = step(jax.random.fold_in(KEY, t), state, case)
        claimed = told.queries
    jax.effects_barrier()
    assert int(claimed) == len(served)
    for stage, past in zip(attack.train, range(len(attack.train))):
        trained, batch = stage(trial.fitted()[:past]), jax.tree.map(jnp.asarray, trial.batches()(0))
        jax.jit(lambda batch, trained=trained: trained.step(KEY, trained.init(KEY, batch), batch))(batch)
    jax.effects_barrier()
    assert served
    np.testing.assert_allclose(np.stack(served) / level, np.round(np.stack(served) / level), atol=1e-3)


def test_float_hyperparameters_can_be_traced(trial):
    case, oracle, fitted = trial.case(), trial.oracle(), trial.fitted()  # trained before anything is traced
    for name, value in trial.method.hyperparameters.items():
        if not isinstance(value, float):
            continue

        def one_step(traced, name=name):
            attack = trial.attack(oracle, **{name: traced})
            for stage, past in zip(attack.train, range(len(attack.train))):
                process, batch = stage(fitted[:past]), jax.tree.map(jnp.asarray, trial.batches()(0))
                if isinstance(process, Cases):
                    process, batch = process.process, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), process.cases)
                process.step(KEY, process.init(KEY, batch), batch)
            process = attack.solve(fitted)
            return process.read(process.step(KEY, process.init(KEY, case), case)[0])

        jax.eval_shape(one_step, jnp.float32(value))


def test_recovers_the_analytic_target_and_nothing_from_the_controls(trial):
    chance = trial.on.chance
    found = {which: trial.on.judge(trial.run(which).output) for which in ("leaks", "shuffled", "constant")}
    told = ", ".join(f"{which} {estimate}" for which, estimate in found.items())
    assert found["leaks"].low >= chance + MARGIN, f"{told}; chance is {chance:.3g}"
    for control in ("shuffled", "constant"):
        assert found[control].low <= chance, f"{told}; chance is {chance:.3g}"
        assert found[control].value <= found["leaks"].value - 0.3, told


def test_golden_digest(trial, request):
    output = trial.run(most=SHORT).output
    digest = {
        jax.tree_util.keystr(path) or "output": [float(np.mean(leaf)), float(np.std(leaf)), float(np.ravel(leaf)[0])]
        for path, leaf in jax.tree_util.tree_leaves_with_path(output)
    }
    file = GOLDEN / f"{trial.method.name.replace('/', '-')}.json"
    if request.config.getoption("--record-golden"):
        file.write_text(json.dumps(digest, indent=1) + "\n")
    golden = json.loads(file.read_text())
    assert golden.keys() == digest.keys()
    for name, values in digest.items():
        np.testing.assert_allclose(values, golden[name], rtol=2e-3, atol=2e-4, err_msg=name)
