"""Image classifiers as targets and as evaluators: how a recipe is trained on private pictures."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmia import config as configuration
from jaxmia.adapters.linen import from_linen
from jaxmia.audit import networks, own
from jaxmia.audit.asking import asked
from jaxmia.audit.examination import examine
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted, Panel, Training
from jaxmia.audit.networks import Network
from jaxmia.audit.roles import keywords, listed, named
from jaxmia.compiling import jit
from jaxmia.data import faces, to_float
from jaxmia.metrics.estimate import bootstrap
from jaxmia.modalities.image import zoo
from jaxmia.modalities.image.judging import classifier_judge, embedding_judge
from jaxmia.modalities.image.scene import Scene
from jaxmia.oracle import Access, Outputs, sown_features
from jaxmia.plan import Plan
from jaxmia.target import digest

__all__ = ["accuracy", "classifier", "evaluator", "evaluators", "fit"]


def classifier(recipe: zoo.Recipe, scene: Scene, labels: np.ndarray, how: Training) -> tuple[Any, Any, Any, str]:
    """Module, variables and defense of a classifier of the private pictures, and what the defense spent."""
    images = to_float(scene.split.train.images)
    network = Network(
        recipe.module(len(scene.names), images.shape[1:]),
        recipe.optimizer, recipe.steps, recipe.batch_size, recipe.augment, recipe.pretrain,
    )  # fmt: skip
    held = scene.split.validation
    validation = {"x": to_float(held.images), "y": held.labels.astype(np.int32)} if how.defense else None
    arrays = {"x": images, "y": labels.astype(np.int32)}
    return networks.train(network, arrays, scene.contents["train"], how, validation)


def fit(recipe: zoo.Recipe | own.Own, scene: Scene, how: Training) -> Fitted:
    """A target, trained or the user's own."""
    if isinstance(recipe, own.Own):
        test = scene.split.test
        return own.fitted(recipe, len(scene.names), how, lambda target: examine(target, to_float(test.images)))
    if how.control == "permuted":  # the target itself, found where it was trained
        origin = how.folder.with_name(how.folder.name.removesuffix("-permuted"))
        whole = fit(recipe, scene, how._replace(control="", folder=origin))
        return whole._replace(target=own.permuted(whole.target, how.seed))
    labels, seed = scene.split.train.labels, how.seed
    if how.control == "shuffled":
        # From the target's own first weights, a control's first layers would stay like the target's and tell what those
        # do.
        labels, how = np.random.default_rng(seed).permutation(labels), how._replace(seed=seed + 2000)
    module, variables, defense, spent = classifier(recipe, scene, labels, how)
    # What a defense draws its noise from is the run's, like its seed, and none of the adversary's keys.
    target = from_linen(
        module, variables, classes=len(scene.names), defense=defense, secret=(seed + 3000) % 2**32,
        example=to_float(scene.split.test.images[:4]) if how.real else None,
    )  # fmt: skip
    return Fitted(target, module, spent)


def accuracy(fitted: Fitted, scene: Scene) -> dict[str, Any]:
    """Of the labels that it serves for the locked test pictures, with an interval over classes."""
    test, view = scene.split.test, fitted.target.view(Access.LABELS)
    answer = lambda x: view.answer(jax.random.key(0), x)  # noqa: E731
    told = asked(lambda images: jax.lax.map(answer, images, batch_size=256), to_float(test.images))
    right = told == test.labels
    return {**bootstrap(right.astype(float), test.labels)._asdict(), "unit": "share"}


def evaluator(
    inputs: Inputs, name: str, section: dict[str, Any], fit: Callable[..., Any], training: pathlib.Path = pathlib.Path()
) -> tuple[Any, Any]:
    """Module and variables of an evaluator, from a seed of its own."""
    scene, recipe = inputs.data, zoo.EVALUATORS[section["name"]](**keywords(section))
    # Other keywords make another network, which `evaluate` may bring later; each is trained in a place of its own.
    where = training / f"evaluator-{name}-{configuration.digest(section)[:8]}"
    how = Training(fit, where, inputs.config["seed"] + 1000, f"train {name}")
    return classifier(recipe, scene, scene.split.train.labels, how)[:2]


def evaluators(inputs: Inputs, training: pathlib.Path, fit: Callable[..., Any]) -> Panel:
    """The judges of a configuration: its evaluators, and where the data are known to be faces the pretrained embedding.

    They share nothing with the targets but the private images: another seed, and another architecture where the
    configuration is well made. Where the embedding's weights cannot be had, the others judge without it.
    """
    config, scene, judges = inputs.config, inputs.data, []
    for name, section in named(listed(config["evaluators"])):
        planned = functools.partial(fit, plan=Plan(**config["plan"]))
        module, variables = evaluator(inputs, name, section, planned, training)
        judges.append(classifier_judge(name, digest(variables), _forward(module, variables), scene))
    if not scene.faces:
        return Panel(judges)
    try:
        return Panel([*judges, embedding_judge(scene, faces.load_weights())])
    except (OSError, ValueError) as error:  # no npm, no network, no room; or not the file that was pinned
        note = (
            "the face embedding could not be had, so the trained evaluators judge alone; once it can be had, "
            f"`jaxmia evaluate` of the run folder judges by it too. Why: {error}"
        )
        return Panel(judges, ("face_embedding",), note)


def _forward(module: Any, variables: Any) -> Callable[[Any], Outputs]:
    @jit
    def forward(images: Any) -> Outputs:
        logits, sown = module.apply(variables, images, mutable=["features"])
        return Outputs(logits, sown_features(sown))

    return forward
