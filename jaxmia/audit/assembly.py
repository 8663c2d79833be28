"""Putting a configuration together: once on zeros before anything is trained, then with what is trained."""

import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import attacks, defenses
from jaxmia.audit import claims, modality_of, plan, targets
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted, Modality, Training
from jaxmia.audit.roles import keywords, listed
from jaxmia.core import Attack, Cases, Process, Scalar
from jaxmia.oracle import Access, ThreatModelError
from jaxmia.sections import check_numbers, within

__all__ = ["asked", "assemble", "blank", "check", "family", "is_divided_by_seed", "load", "settings_of", "untrained"]


def load(config: dict[str, Any]) -> Any:
    """The data of a configuration."""
    section = config["data"]
    seeded = {"seed": config["seed"]} if is_divided_by_seed(config) else {}
    return modality_of(config).data[section["name"]](**seeded, **keywords(section))


def is_divided_by_seed(config: dict[str, Any]) -> bool:
    """Whether the data are others for another seed of the configuration."""
    factory = modality_of(config).data[config["data"]["name"]]
    return "seed" in inspect.signature(factory).parameters


def family(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the numbers that its attacks take traced: runs of one family share their programs."""

    def blanked(section: dict[str, Any]) -> dict[str, Any]:
        parameters = inspect.signature(attacks.get(section["name"]).factory).parameters
        return {
            key: None if key != "name" and parameters[key].annotation == Scalar else value
            for key, value in section.items()
        }

    return {**config, "attacks": [blanked(section) for section in listed(config["attacks"])]}


def asked(config: dict[str, Any]) -> set[str]:
    """Names of the inputs that the attacks of a configuration ask for, and what they build on."""
    names: set[str] = set()
    for section in listed(config["attacks"]):
        while section:
            names |= set(attacks.get(section["name"]).inputs)
            section = section.get("base")
    return names


def settings_of(section: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """The keywords of an attack's section, those that follow from the data or the target put right."""
    return {key: inputs[key] if key in inputs.modality.forced else value for key, value in keywords(section).items()}


def assemble(section: dict[str, Any], inputs: Inputs) -> tuple[Attack, Access]:
    """The attack of a section on the target of `inputs`, and the access that it takes.

    The card says the least access; settings that want more get more, as far as the target grants it.
    """
    method = attacks.get(section["name"])
    shown = inputs.modality.shown(inputs.fitted, method.card, inputs.config)
    make, access = _factory(section, inputs), Access(method.card.access)
    while True:
        try:
            return make(shown.view(access, method.name)), access
        except ThreatModelError:
            if access >= shown.granted:
                raise
            access = Access(access + 1)


def _factory(section: dict[str, Any], inputs: Inputs) -> Callable[..., Attack]:
    """`oracle -> Attack`, all else bound; what a combinator builds on is made likewise."""
    method, settings, base = attacks.get(section["name"]), settings_of(section, inputs), {}
    if "base" in settings:
        base = {"base": _factory(settings.pop("base"), inputs)}
    names = [name for name in method.inputs if name not in ("oracle", *base)]
    lacking = ", ".join(name for name in names if name not in inputs)
    if lacking:
        raise ValueError(f"{method.name}: needs {lacking}; this audit supplies {', '.join(inputs)}")
    names += [name for name in method.hyperparameters if name in inputs.modality.forced and name not in settings]
    return functools.partial(method.factory, **base, **{name: inputs[name] for name in names}, **settings)


def check(config: dict[str, Any]) -> Any:
    """Load the data and put everything together, on zeros wherever something will be trained.

    Nothing is trained and nothing is written: what a factory refuses, or what does not fit together, is told here and
    not after an hour.

    Returns:
      The data.

    Raises:
      ValueError: for what contradicts itself or is out of range, naming section and field.
    """
    modality = modality_of(config)
    _check_attacks(config, modality)
    _check_defenses(config)
    plan(**config["plan"])
    check_numbers("", {"seed": config["seed"]}, least=0)
    check_numbers("data.", config["data"], least=0)
    for section in listed(config["targets"]):
        check_numbers(f"targets ({section['name']}): ", section, least=1)
    claims.check(config)
    jobs = targets.jobs(config, modality.controls)
    data = load(config)
    inputs = Inputs(modality, config, data, lambda process, batches, name: blank(process, None, batches)[0])
    modality.check(inputs)
    fitted: list[Fitted] = []
    for job in jobs:
        with within(f"defenses ({job.name.split('+')[-1]})" if job.defense else f"targets ({job.section['name']})"):
            recipe = modality.targets[job.section["name"]](**keywords(job.section))
            how = Training(blank, pathlib.Path(), config["seed"], "", job.defense, job.control, real=False)
            fitted.append(modality.fit(recipe, data, how))
    for target in _distinct(fitted):
        for section in listed(config["attacks"]):
            with within(f"attacks ({section['name']})"):
                (attack, _), outputs = assemble(section, inputs.of(target)), ()
                for stage in attack.train:
                    outputs += (untrained(stage(outputs), inputs["batches"]),)
                steps = attack.solve(outputs).steps
                if steps < 0:
                    raise ValueError(f"steps: {steps}; legal is 0 or more")
    return data


def _distinct(fitted: list[Fitted]) -> list[Fitted]:
    """One target for each access that is granted."""
    return list({target.target.granted: target for target in reversed(fitted)}.values())[::-1]


def _check_attacks(config: dict[str, Any], modality: Modality) -> None:
    name = config["modality"]
    for section in listed(config["attacks"]):
        card = attacks.get(section["name"]).card
        if card.modality != name:
            raise ValueError(f"attacks: {section['name']} is for {card.modality}; legal are attacks on {name}")
        if card.observes not in modality.observe:
            raise ValueError(
                f"attacks: {section['name']} observes {card.observes}, which an audit of modality {name} does not show; "
                f"it shows {', '.join(modality.observe)}. Attacks are also run from Python"
            )


def _check_defenses(config: dict[str, Any]) -> None:
    for section in [part for one in listed(config["defenses"]) for part in listed(one)]:
        card = defenses.get(section["name"]).card
        if card.modality not in ("any", config["modality"]):
            raise ValueError(
                f"defenses: {section['name']} is for {card.modality}; legal are defenses of {config['modality']}, or of any"
            )


def untrained(stage: Process | Cases, batches: Callable[[int], Any]) -> Any:
    """Zeros in place of what a training stage of an attack reads out; those of a stage of many parts take no room."""
    if not isinstance(stage, Cases):
        return blank(stage, None, batches)[0]
    first = jax.tree.map(lambda leaf: leaf[0], stage.cases)
    whole, n = blank(stage.process, None, lambda step: first)[0], len(jax.tree.leaves(stage.cases)[0])
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (n, *leaf.shape)), whole)


def blank(process: Process, key: Any, batches: Callable[[int], Any], **where: Any) -> tuple[Any, None]:
    """In place of `engine.fit`: one step is traced for its complaints, and what would be trained is zeros."""
    del key, where
    if process.steps < 1:
        raise ValueError(f"steps: {process.steps}; legal is 1 or more")

    def once(key: Any, batch: Any) -> Any:
        state, _ = process.step(key, process.init(key, batch), batch)
        return process.read(state)

    shapes = jax.eval_shape(once, jax.random.key(0), batches(0))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), None
