"""What every attack must satisfy before anything is compiled: card, documentation, access, stable states, traced floats.

`-k image/gmi` takes one of them. What it makes of its targets is the matter of `test_meaning.py`, what the engine makes of
it that of `test_engine_theorems.py`.
"""

import doctest
import inspect

import jax
import jax.numpy as jnp
import pytest

from jaxmia import Access, ThreatModelError
from jaxmia.core import Card
from tests.contract.methods import METHODS
from tests.contract.trial import KEY, Trial

COUPLES = {  # primitives by which a case, or a run, could meet another
    *("psum", "pmax", "pmin", "all_gather", "all_to_all", "ppermute", "reduce_scatter", "axis_index"),
    *("custom_vmap_call", "io_callback", "debug_callback", "infeed", "outfeed"),
}


@pytest.fixture(params=METHODS, ids=[m.name for m in METHODS], scope="module")
def trial(request):
    return Trial(request.param)


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


def test_state_is_stable(trial):
    attack = trial.attack(trial.oracle())
    process, case = attack.solve(trial.blank(attack)), trial.case()
    before = jax.eval_shape(process.init, KEY, case)
    after, info = jax.eval_shape(process.step, KEY, before, case)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
        assert not old.weak_type
    assert all(leaf.shape == () for leaf in jax.tree.leaves(info))


def test_it_is_a_pure_function_of_one_case(trial):
    """With this, what holds of a batch in the engine's tests holds of this attack: no case can meet another."""
    attack = trial.attack(trial.oracle())
    process, case = attack.solve(trial.blank(attack)), trial.case()
    state = jax.eval_shape(process.init, KEY, case)
    for traced in (
        jax.make_jaxpr(process.init)(KEY, case),
        jax.make_jaxpr(process.step)(KEY, state, case),
        jax.make_jaxpr(process.read)(state),
    ):
        assert not traced.effects
        assert not COUPLES.intersection(primitives(traced.jaxpr))


def primitives(jaxpr):
    """Names of all primitives of a traced function, those of functions within it too."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found |= primitives(inner)
    return found


def test_a_coupling_is_found_inside_a_loop():
    def coupled(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: y - jax.lax.psum(y, "cases"), x)

    traced = jax.make_jaxpr(coupled, axis_env=[("cases", 2)])(1.0)
    assert COUPLES.intersection(primitives(traced.jaxpr))


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


def test_float_hyperparameters_can_be_traced(trial):
    oracle, case = trial.oracle(), trial.case()
    fitted = trial.blank(trial.attack(oracle))
    for name, value in trial.method.hyperparameters.items():
        if not isinstance(value, float):
            continue

        def one_step(traced, name=name):
            attack = trial.attack(oracle, **{name: traced})
            for stage, past in zip(attack.train, range(len(attack.train))):
                process = stage(fitted[:past])
                process.step(KEY, process.init(KEY, trial.batch()), trial.batch())
            process = attack.solve(fitted)
            return process.read(process.step(KEY, process.init(KEY, case), case)[0])

        jax.eval_shape(one_step, jnp.float32(value))
