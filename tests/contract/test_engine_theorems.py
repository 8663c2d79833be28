"""What the engine promises of any process, on six archetypes always and on every attack nightly.

That a result does not depend on how the work is cut is a theorem about the engine for processes that are pure functions of
one case (`test_structure.py` shows this of every attack), so a few processes of each kind carry it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, engine, solve
from jaxmia.defenses.rounding import rounding
from jaxmia.testing.trial import FOUR, KEY, ONE, SHORT, Trial
from tests.contract.methods import METHODS, compiled_for

ARCHETYPES = {
    "image/optimize": "descends on a candidate",
    "image/decode": "trains on public data, then decodes",
    "image/search": "searches with queries",
    "image/choose": "scores, without a step",
    "image/brep_mi": "queries for labels, and its cases end at different times",
    "text/secret_sharer": "holds integers alone",
}
CHAOTIC = {"image/kkt": 3}
"""Methods that multiply rounding, and the steps after which they are compared: their matrices are of all cases together,
and XLA sums another number of cases in another order."""
EAGER = 200  # operations of a step that is also taken one by one, which is slow where they are many


def test_archetypes_exist():
    assert set(ARCHETYPES) <= {method.name for method in METHODS}


def marked(method):
    marks = [] if method.name in ARCHETYPES else [pytest.mark.nightly]
    return pytest.param(method, id=method.name, marks=marks)


@pytest.fixture(params=[marked(method) for method in METHODS], scope="module")
def trial(request):
    with compiled_for(request.param):
        yield Trial(request.param)


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def test_the_engine_does_what_its_rule_says(trial):
    """The engine's slots, blocks and refills against the rule in its shortest form (`Trial.meanings`)."""
    steps = CHAOTIC.get(trial.method.name, SHORT)
    close(trial.run(most=steps).output, trial.rule(steps), 1e-4)
    if trial.method.name in ARCHETYPES:  # a training, too; those of GANs multiply rounding
        close(trial.run(most=SHORT).output, trial.meanings["leaks"].short, 1e-4)


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
    steps, exact = CHAOTIC.get(trial.method.name, SHORT), trial.method.name not in CHAOTIC
    whole, cases = trial.run(most=steps), trial.cases()
    last = len(whole.status) - 1
    alone = solve(
        trial.process(), KEY, jax.tree.map(lambda a: a[last:], cases), ids=[last], plan=ONE,
        steps=min(trial.process().steps, steps),
    )  # fmt: skip
    first, second = jax.tree.map(lambda a: a[0], alone), jax.tree.map(lambda a: a[last], whole)
    close(first, second, 0 if exact else 1e-4)  # bitwise
    close(trial.run(plan=FOUR, most=steps), whole, 1e-5 if exact else 1e-4)


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
