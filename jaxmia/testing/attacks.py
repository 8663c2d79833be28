"""What every attack must satisfy, each as a function of a `Trial`; `check_attack` calls them all.

Structure compiles nothing: card and documentation, access, stable states, purity, traced numbers. Meaning is one compiled
program: it starts without NaN, and recovers what is there and nothing from the controls.
"""

import doctest
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia.core import Card
from jaxmia.oracle import Access, ThreatModelError
from jaxmia.testing.trial import KEY, Trial

__all__ = ["MEANING", "STRUCTURE", "couplings"]

MARGIN = 0.2  # by which the whole interval of the success must be above chance
IMPURE = {"custom_vmap_call", "io_callback", "debug_callback", "infeed", "outfeed"}
"""Primitives by which a case could meet another, or the world; so could a sum over a named axis."""


def card_and_documentation(trial: Trial) -> None:
    """The card is complete, the module names its paper, the factory documents every parameter, doctests pass."""
    method, card = trial.method, trial.method.card
    assert isinstance(card, Card) and isinstance(card.access, Access), "CARD.access must be an Access"
    for field in ("title", "paper", "url", "recovers", "knows", "observes"):
        assert getattr(card, field), f"CARD.{field} is empty"
    assert card.hook == "", "CARD.hook is of a defense"
    assert card.url.startswith("https://") and 1990 < card.year < 2100, f"CARD: {card.url}, {card.year}"
    documentation = method.factory.__doc__
    assert documentation and "Args:" in documentation, "the factory's docstring lacks its section Args:"
    module = inspect.getmodule(method.factory)
    assert module and module.__doc__ and card.url.split("//")[1] in module.__doc__, "the docstring lacks CARD.url"
    assert doctest.testmod(module).failed == 0
    assert method.inputs[0] == "oracle", "the first parameter must be the oracle"
    assert trial.attack(trial.oracle()).observes == card.observes, "Attack.observes is not what CARD.observes says"
    for name in (*method.inputs, *method.hyperparameters):
        assert f"  {name}: " in documentation, f"the factory's docstring does not describe {name}"


def state_is_stable(trial: Trial) -> None:
    """A step keeps the state's structure, shapes and strong dtypes; its info is scalars."""
    attack = trial.attack(trial.oracle())
    process, case = attack.solve(trial.blank(attack)), trial.case()
    before = jax.eval_shape(process.init, KEY, case)
    after, info = jax.eval_shape(process.step, KEY, before, case)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type), f"{old} became {new}"
        assert not old.weak_type, f"{old} is weakly typed"
    assert all(leaf.shape == () for leaf in jax.tree.leaves(info))


def a_pure_function_of_one_case(trial: Trial) -> None:
    """No case can meet another, so what the engine's tests show of a few processes holds of this one."""
    attack = trial.attack(trial.oracle())
    process, case = attack.solve(trial.blank(attack)), trial.case()
    state = jax.eval_shape(process.init, KEY, case)
    for traced in (
        jax.make_jaxpr(process.init)(KEY, case),
        jax.make_jaxpr(process.step)(KEY, state, case),
        jax.make_jaxpr(process.read)(state),
    ):
        assert not traced.effects, f"has effects: {traced.effects}"
        found = couplings(traced.jaxpr)
        assert not found, f"couples cases by {', '.join(sorted(found))}"


def couplings(jaxpr: Any) -> set[str]:
    """Names of the primitives in a traced function, and in functions within it, by which cases could meet."""
    found = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        axes = equation.params.get("axes", equation.params.get("axis_name", ()))
        named = any(isinstance(axis, str) for axis in (axes if isinstance(axes, tuple) else (axes,)))
        if name in IMPURE or named:  # a number stands for an axis of the case's own
            found.add(name)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found |= couplings(inner)
    return found


def access_is_enforced(trial: Trial) -> None:
    """It works with exactly the access of its card, is refused with less, and takes no derivative below white box."""
    method, target, needed = trial.method, trial.on.target("leaks"), trial.method.card.access
    trial.attack(target.view(needed))
    if needed == Access.NONE:
        assert not hasattr(target.view(needed), "answer")
        return
    less = Access(needed - 1)
    message = _refused(lambda: trial.attack(target.view(less, method.name)))
    assert method.name in message and less.name in message, message
    if needed < Access.WEIGHTS:
        answer = target.view(needed).answer
        gradient = jax.grad(lambda x: jnp.sum(answer(KEY, x).astype(jnp.float32)))
        assert "WEIGHTS" in _refused(lambda: gradient(trial.on.candidate))


def _refused(call: Any) -> str:
    try:
        call()
    except ThreatModelError as error:
        return str(error)
    raise AssertionError(
        "a ThreatModelError was expected; the factory must begin with `lower(oracle, CARD.access, ...)`"
    )


def numbers_can_be_traced(trial: Trial) -> None:
    """Every hyperparameter that is a float may be a tracer, so that a sweep of it is one program."""
    oracle, case = trial.oracle(), trial.case()
    fitted = trial.blank(trial.attack(oracle))
    for name, value in trial.method.hyperparameters.items():
        if not isinstance(value, float):
            continue

        def one_step(traced: Any, name: str = name) -> Any:
            attack = trial.attack(oracle, **{name: traced})
            for i, stage in enumerate(attack.train):
                process, data, _ = trial.part(stage(fitted[:i]))
                process.step(KEY, process.init(KEY, data), data)
            process = attack.solve(fitted)
            return process.read(process.step(KEY, process.init(KEY, case), case)[0])

        jax.eval_shape(one_step, jnp.float32(value))


def starts_without_nan(trial: Trial) -> None:
    """The first state of every case is finite."""
    assert np.all(trial.meanings["leaks"].started)


def recovers_the_target_and_nothing_from_the_controls(trial: Trial) -> None:
    """The whole interval of its success is above chance on the leaking target, and is not on either control."""
    chance = trial.on.chance
    found = {which: trial.on.judge(meaning.whole) for which, meaning in trial.meanings.items()}
    words = ", ".join(f"{which} {estimate}" for which, estimate in found.items()) + f"; chance is {chance:.3g}"
    assert found["leaks"].low >= chance + MARGIN, words
    for control in ("shuffled", "constant"):
        assert found[control].low <= chance, words
        assert found[control].value <= found["leaks"].value - 0.3, words


STRUCTURE = (
    card_and_documentation,
    state_is_stable,
    a_pure_function_of_one_case,
    access_is_enforced,
    numbers_can_be_traced,
)
MEANING = (starts_without_nan, recovers_the_target_and_nothing_from_the_controls)
