"""What an image audit may be told, and what its attacks are given: all put together once before anything is trained."""

import functools
import inspect
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxmia import attacks, defenses, models, zoo
from jaxmia.audit import classifiers
from jaxmia.audit.classifiers import keywords
from jaxmia.audit.inputs import INPUTS, Inputs, decoder_width, networks
from jaxmia.audit.roles import listed
from jaxmia.audit.scenes import DATA, PRIORS, Scene
from jaxmia.core import Attack, Cases, Process, Scalar
from jaxmia.plan import Plan, check_plan
from jaxmia.sections import Schema, Section, check_numbers, within
from jaxmia.target import FirstLayers, Target, from_linen

__all__ = ["SCHEMA", "asked", "assemble", "attacked", "check", "family", "plan", "shown", "untrained"]

OBSERVED = ("label", "labels", "scores", "scores and explanation", "features", "masked images")


def plan(
    *,
    chunk: int | None = None,
    microbatch: int | None = None,
    block: int = 50,
    mapper: Literal["shard_map", "pmap"] = "shard_map",
    loop: Literal["auto", "host", "scan"] = "auto",
    training: Literal["one_device", "data_parallel", "fully_sharded"] = "one_device",
) -> Plan:
    """Speed, never results (`engine.Plan`)."""
    made = Plan(chunk=chunk, microbatch=microbatch, block=block, mapper=mapper, loop=loop, training=training)
    check_plan(made)
    return made


SCHEMA: Schema = {
    "modality": Section(Literal["image"], "image"),
    "data": Section(DATA),
    "seed": Section(int, 0),
    "targets": Section(zoo.TARGETS),
    "evaluators": Section(zoo.EVALUATORS, role="judge"),
    "defenses": Section(defenses, None),
    "prior": Section(PRIORS, None, role="adversary", trained=True),
    "decoder": Section(decoder_width, role="adversary"),
    "networks": Section(networks, role="adversary"),
    "split": Section(str, "block1", trained=False),
    "attacks": Section(attacks, role="adversary"),
    "candidates": Section(int, 1, role="adversary"),
    "attacked_classes": Section(int, 0, role="adversary"),
    "public_batch": Section(int, 32, role="adversary"),
    "controls": Section(tuple[str, ...], ()),
    "plan": Section(plan, role="speed"),
}
"""Sections of an image audit. `candidates`: reconstructions per class. `attacked_classes`: so many, the first ones, are
attacked; 0 for all. `public_batch`: public images in a minibatch of attacks that train on them. `controls`: names of
targets that are trained once more on shuffled labels and attacked likewise. `split`: the layer of the targets whose
features a client would send to a server, for attacks that observe features."""


def family(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the numbers that its attacks take traced: runs of one family share their programs."""

    def blank(section: dict[str, Any]) -> dict[str, Any]:
        parameters = inspect.signature(attacks.get(section["name"]).factory).parameters
        return {
            key: None if key != "name" and parameters[key].annotation == Scalar else value
            for key, value in section.items()
        }

    return {**config, "attacks": [blank(section) for section in listed(config["attacks"])]}


def asked(config: dict[str, Any]) -> set[str]:
    """Names of the inputs that the attacks of a configuration ask for, and what they build on."""
    names: set[str] = set()
    for section in listed(config["attacks"]):
        while section:
            names |= set(attacks.get(section["name"]).inputs)
            section = section.get("base")
    return names


def assemble(
    section: dict[str, Any], config: dict[str, Any], target: Target, module: Any, supplied: Mapping[str, Any]
) -> Attack:
    """The attack of a section on a target, a Linen module, with those of the inputs `supplied` that
    it asks for."""
    method = attacks.get(section["name"])
    shows, more = shown(method.card.observes, target, config["split"]), {}
    if not {"client", "layers"}.isdisjoint(method.inputs):
        more = _client(shows, module, config["split"], supplied)
    if "center" in method.inputs:  # the image that the target's own mean takes to zero
        centered = isinstance(module, models.CenteredInput) or getattr(module, "centered", False)
        more["center"] = 0.5 if centered else 0.0
    return _factory(section, supplied, more)(shows.view(method.card.access, method.name))


def _client(shows: Target, module: Any, split: str, supplied: Mapping[str, Any]) -> dict[str, Any]:
    """Of the client's part: its architecture, its blocks before what is sent, and decoders that undo one each."""
    prefix, number = re.fullmatch(r"(.*?)(\d*)", split).groups()  # type: ignore[union-attr]
    image = jnp.zeros(supplied["shape"])
    features = jax.eval_shape(lambda: shows.apply(shows.params, image)).features  # type: ignore[misc]
    before = (f"{prefix}{i}" for i in range(1, int(number or 1)))  # block1, block2, ... of block3
    layers = tuple(name for name in before if name in features)
    shapes = [supplied["shape"], *(features[name].shape for name in layers)]
    inverses = [models.MapDecoder(shape, supplied["decoder"].width) for shape in shapes]
    if len(features[split].shape) != 3:  # no maps: the whole is undone at once
        layers, inverses = (), [supplied["decoder"]]
    return {"client": FirstLayers(module, split), "layers": layers, "inverses": inverses}


def _factory(section: dict[str, Any], supplied: Mapping[str, Any], more: dict[str, Any]) -> Callable[..., Attack]:
    """`(oracle, ...) -> Attack`, all else bound; what a combinator builds on is made likewise.
    `more` goes first."""
    method, settings = attacks.get(section["name"]), keywords(section)
    if "base" in settings:
        more = {**more, "base": _factory(settings.pop("base"), supplied, more)}
    names = [name for name in method.inputs if name != "oracle"]
    lacking = ", ".join(name for name in names if name not in more and name not in supplied)
    if lacking:
        raise ValueError(f"{method.name}: needs {lacking}; an image audit supplies {', '.join({**more, **INPUTS})}")
    wanted = {name: more[name] if name in more else supplied[name] for name in names}
    return functools.partial(method.factory, **wanted, **settings)


def shown(observes: str, target: Target, split: str) -> Target:
    """What an attack is shown of a target: its first layers alone, where it observes their features, or explanations."""
    if observes == "scores and explanation":
        return target.explained()
    return target.until(split) if observes == "features" else target


def attacked(config: dict[str, Any], scene: Scene) -> Int[np.ndarray, " n"]:
    """The classes that are attacked."""
    return np.arange(config["attacked_classes"] or len(scene.names), dtype=np.int32)


def check(config: dict[str, Any]) -> Scene:
    """Load the data and put everything together, on zeros wherever something will be trained.

    Nothing is trained and nothing is written: what a factory refuses, or what does not fit together, is told here and
    not after an hour.

    Raises:
      ValueError: for what contradicts itself or is out of range, naming section and field.
    """
    for name in ("candidates", "public_batch"):
        check_numbers("", {name: config[name]}, least=1)
    for section in listed(config["attacks"]):
        card = attacks.get(section["name"]).card
        if card.modality != "image":
            raise ValueError(f"attacks: {section['name']} is for {card.modality}; legal are attacks on images")
        if card.observes not in OBSERVED:
            raise ValueError(
                f"attacks: {section['name']} observes {card.observes}, which an image audit does not show; it shows "
                f"{', '.join(OBSERVED)}. Attacks are also run from Python"
            )
    plan(**config["plan"])
    check_numbers("", {"seed": config["seed"]}, least=0)
    check_numbers("data.", config["data"], least=0)
    for name in ("targets", "evaluators"):
        for section in listed(config[name]):
            check_numbers(f"{name} ({section['name']}): ", section, least=1)
    jobs = classifiers.jobs(config)
    scene = DATA[config["data"]["name"]](**keywords(config["data"]))
    if len(scene.names) < 2:
        raise ValueError(
            f"data: {', '.join(scene.names)} alone is private; legal is 2 or more, which an interval needs"
        )
    if len(np.unique(scene.split.test.labels)) < 2:  # the accuracy on them would have no interval
        raise ValueError("data: the division leaves test pictures to 1 class; legal is 2 or more")
    labels, nowhere = scene.split.train.labels, pathlib.Path()
    if not 0 <= config["attacked_classes"] <= len(scene.names):
        legal = f"legal is 1 to the {len(scene.names)} private classes, or 0 for all"
        raise ValueError(f"attacked_classes: {config['attacked_classes']}; {legal}")

    def classifier(section: dict[str, Any], recipes: Any, defended: Any) -> tuple[Any, Any]:
        recipe = recipes[section["name"]](**keywords(section))
        return classifiers.train(recipe, scene, labels, config["seed"], defended, nowhere, "", fit=_blank)[:2]

    known = []
    for job in jobs:
        with within(f"defenses ({job.defense['name']})" if job.defense else f"targets ({job.section['name']})"):
            known.append(classifier(job.section, zoo.TARGETS, job.defense))
    for section in listed(config["evaluators"]):
        with within(f"evaluators ({section['name']})"):
            classifier(section, zoo.EVALUATORS, None)
    supplied = Inputs(config, scene, lambda process, batches, name: _blank(process, jax.random.key(0), batches)[0])
    # What is written must be right, whether an attack asks for it or not.
    for name in ("decoder", "surrogates", *(["prior"] if config["prior"] else [])):
        supplied[name]
    module, variables = known[0]
    target = from_linen(module, variables, classes=len(scene.names))
    for section in listed(config["attacks"]):
        with within(f"attacks ({section['name']})"):
            attack, fitted = assemble(section, config, target, module, supplied), ()
            for stage in attack.train:
                fitted += (untrained(stage(fitted), supplied.batches),)
            steps = attack.solve(fitted).steps
            if steps < 0:
                raise ValueError(f"steps: {steps}; legal is 0 or more")
    return scene


def untrained(stage: Process | Cases, batches: Callable[[int], Any]) -> Any:
    """Zeros in place of what a training stage of an attack reads out; those of a stage of many parts take no room."""
    if not isinstance(stage, Cases):
        return _blank(stage, jax.random.key(0), batches)[0]
    first = jax.tree.map(lambda leaf: leaf[0], stage.cases)
    one, n = _blank(stage.process, jax.random.key(0), lambda step: first)[0], len(jax.tree.leaves(stage.cases)[0])
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (n, *leaf.shape)), one)


def _blank(process: Process, key: Any, batches: Callable[[int], Any], **where: Any) -> tuple[Any, None]:
    """In place of `engine.fit`: one step is traced for its complaints, and what would be trained is zeros."""
    del where
    if process.steps < 1:
        raise ValueError(f"steps: {process.steps}; legal is 1 or more")

    def once(key: Any, batch: Any) -> Any:
        state, _ = process.step(key, process.init(key, batch), batch)
        return process.read(state)

    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(once, key, batches(0))), None
