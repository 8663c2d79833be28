"""What an image audit may be told, and what its attacks are given: all put together once before anything is trained."""

import functools
import inspect
import pathlib
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmia import attacks, defenses, models, zoo
from jaxmia.audit import classifiers
from jaxmia.audit.classifiers import keywords, listed
from jaxmia.audit.scenes import DATA, PRIORS, Scene
from jaxmia.core import Attack, Cases, Process, Scalar
from jaxmia.data import minibatches, to_float
from jaxmia.plan import Plan, check_plan
from jaxmia.priors import Blocks, cut
from jaxmia.sections import check_numbers, within
from jaxmia.target import FirstLayers, Target, from_linen

__all__ = [
    "SCHEMA",
    "assemble",
    "attacked",
    "check",
    "family",
    "inputs",
    "plan",
    "public_batches",
    "shown",
    "untrained",
]

OBSERVED = ("label", "labels", "scores", "scores and explanation", "features", "masked images")


def _decoder(*, width: int = 32) -> int:
    """Channels before the last layer of the inversion decoder."""
    if width < 1:
        raise ValueError(f"width: {width}; legal is 1 or more")
    return width


def _networks(*, width: int = 64, surrogates: tuple[str, ...] = ("convnet", "resnet")) -> tuple[int, tuple[Any, ...]]:
    """Of attacks that train some: channels next to the image, and the architectures of what imitates the target."""
    if width < 1:
        raise ValueError(f"width: {width}; legal is 1 or more")
    unknown = ", ".join(name for name in surrogates if name not in zoo.TARGETS)
    if unknown or not surrogates:
        raise ValueError(f"surrogates: {unknown or 'none'}; legal is some of {', '.join(zoo.TARGETS)}")
    return width, tuple(zoo.TARGETS[name]() for name in surrogates)


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


SCHEMA: dict[str, Any] = {
    "modality": (Literal["image"], "image"),
    "data": DATA,
    "seed": (int, 0),
    "targets": zoo.TARGETS,
    "evaluators": zoo.EVALUATORS,
    "defenses": (defenses, None),
    "prior": PRIORS,
    "decoder": _decoder,
    "networks": _networks,
    "split": (str, "block1"),
    "attacks": attacks,
    "candidates": (int, 1),
    "attacked_classes": (int, 0),
    "public_batch": (int, 32),
    "controls": (tuple[str, ...], ()),
    "plan": plan,
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


def inputs(config: dict[str, Any], scene: Scene, fit: Callable[[Process, Any, str], Any]) -> dict[str, Any]:
    """What attacks may ask for, by parameter name; `fit(process, batches, name)` trains a prior."""
    public, classes = to_float(scene.split.public.images), len(scene.names)
    shape = public.shape[1:]
    with within("prior"):
        prior = PRIORS[config["prior"]["name"]](public, fit, **keywords(config["prior"]))
    with within("decoder"):
        decoder = models.InversionDecoder(shape, width=_decoder(**config["decoder"]))
    with within("networks"):
        width, surrogates = _networks(**config["networks"])
    height, breadth, channels = shape
    hidden = np.zeros((height, breadth), bool)  # the middle half of rows and columns
    hidden[height // 4 : height - height // 4, breadth // 4 : breadth - breadth // 4] = True
    return {
        "shape": shape,
        "classes": classes,
        "prior": prior,
        "blocks": prior if isinstance(prior, Blocks) else cut(prior),
        "decoder": decoder,
        "gallery": jnp.asarray(public),
        "embedding": _eigenface_embedding(public),
        "explained_decoder": models.ExplainedDecoder(shape, decoder.width),
        "mask": jnp.asarray(hidden),
        "inpainter": models.InpaintingGenerator(width),
        "critic": models.WGANCritic(width),
        "generator": models.DCGenerator(height, channels, width),
        "discriminator": models.InversionDiscriminator(classes, width),
        "conditional_generator": models.ConditionalGenerator(classes, height, channels, width),
        "conditional_discriminator": models.ProjectionDiscriminator(classes, width),
        "classifying_discriminator": models.ClassifyingDiscriminator(classes, width),
        "denoiser": models.Denoiser(classes, width),
        "surrogate": surrogates[0].module(classes, shape),
        "surrogates": tuple(recipe.module(classes, shape) for recipe in surrogates),
    }


def _eigenface_embedding(public: Any, components: int = 50) -> Callable[[Any], Float[Array, " d"]]:
    """`image -> [d]`: coordinates on the principal components of public images, in deviations (Turk & Pentland 1991).

    No evaluator's, and it knows no private person.
    """

    @functools.cache
    def components_of_some() -> tuple[np.ndarray, np.ndarray]:  # not before an attack asks
        some = public[np.random.default_rng(0).permutation(len(public))[:1000]].reshape(-1, public[0].size)
        center = some.mean(0)
        _, sizes, axes = np.linalg.svd(some - center, full_matrices=False)
        few = min(components, len(some) - 1, len(axes))
        return axes[:few] * np.sqrt(len(some)) / (sizes[:few, None] + 1e-6), center

    def embed(image: Any) -> Float[Array, " d"]:
        scaled, center = components_of_some()
        return jnp.asarray(scaled) @ (image.reshape(-1) - center)

    return embed


def assemble(
    section: dict[str, Any], config: dict[str, Any], target: Target, module: Any, supplied: dict[str, Any]
) -> Attack:
    """The attack of a section on a target, a Linen module, with those of the `inputs` that it asks for."""
    method = attacks.get(section["name"])
    shows = shown(method.card.observes, target, config["split"])
    if not {"client", "layers"}.isdisjoint(method.inputs):
        supplied = {**supplied, **_client(shows, module, config["split"], supplied)}
    return _factory(section, supplied)(shows.view(method.card.access, method.name))


def _client(shows: Target, module: Any, split: str, supplied: dict[str, Any]) -> dict[str, Any]:
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


def _factory(section: dict[str, Any], supplied: dict[str, Any]) -> Callable[..., Attack]:
    """`(oracle, ...) -> Attack`, all else bound; what a combinator builds on is made likewise."""
    method, settings = attacks.get(section["name"]), keywords(section)
    if "base" in settings:
        supplied = {**supplied, "base": _factory(settings.pop("base"), supplied)}
    wanted = {name: supplied.get(name) for name in method.inputs if name != "oracle"}
    lacking = ", ".join(wanted.keys() - supplied.keys())
    if lacking:
        raise ValueError(f"{method.name}: needs {lacking}; an image audit supplies {', '.join(supplied)}")
    return functools.partial(method.factory, **wanted, **settings)


def shown(observes: str, target: Target, split: str) -> Target:
    """What an attack is shown of a target: its first layers alone, where it observes their features, or explanations."""
    if observes == "scores and explanation":
        return target.explained()
    return target.until(split) if observes == "features" else target


def attacked(config: dict[str, Any], scene: Scene) -> Int[np.ndarray, " n"]:
    """The classes that are attacked."""
    return np.arange(config["attacked_classes"] or len(scene.names), dtype=np.int32)


def public_batches(config: dict[str, Any], scene: Scene) -> Callable[[int], Any]:
    """Minibatches of public images, for the training stages of attacks."""
    public = to_float(scene.split.public.images)
    return minibatches({"x": public}, min(config["public_batch"], len(public)), config["seed"])


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
    supplied = inputs(config, scene, lambda process, batches, name: _blank(process, jax.random.key(0), batches)[0])
    module, variables = known[0]
    target, batches = from_linen(module, variables, classes=len(scene.names)), public_batches(config, scene)
    for section in listed(config["attacks"]):
        with within(f"attacks ({section['name']})"):
            attack, fitted = assemble(section, config, target, module, supplied), ()
            for stage in attack.train:
                fitted += (untrained(stage(fitted), batches),)
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
