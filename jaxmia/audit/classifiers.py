"""The classifiers of an image audit: targets, their defended and shuffled versions, and evaluators."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import config as configuration
from jaxmia import defenses, zoo
from jaxmia.audit import folder as files
from jaxmia.audit.judge import Judge, classifier_judge, embedding_judge
from jaxmia.audit.roles import listed, named
from jaxmia.audit.scenes import Scene
from jaxmia.compiling import jit
from jaxmia.core import Defense
from jaxmia.data import faces, minibatches, to_float
from jaxmia.defenses.dp_sgd import epsilon, poisson_batches
from jaxmia.engine import fit as train_on
from jaxmia.identity import digest as content_digest
from jaxmia.metrics.estimate import bootstrap
from jaxmia.oracle import Outputs, sown_features
from jaxmia.plan import Plan
from jaxmia.target import Target, digest, from_linen
from jaxmia.train import predict, supervised

__all__ = [
    "Job",
    "Minibatches",
    "Trained",
    "check_roles",
    "evaluators",
    "jobs",
    "keywords",
    "targets",
    "train",
]


class Minibatches(NamedTuple):
    """Minibatches that carry the identity of what they are of (`engine.fit`)."""

    batch: Callable[[int], Any]
    identity: str

    def __call__(self, step: int) -> Any:
        return self.batch(step)


class Job(NamedTuple):
    """One target to train.

    Attributes:
      name: of the target, its defense and its role.
      section: of the target.
      defense: section of the defense, None for none.
      control: on shuffled labels, from another start.
    """

    name: str
    section: dict[str, Any]
    defense: dict[str, Any] | None
    control: bool


class Trained(NamedTuple):
    """A target with its record for the report.

    Attributes:
      name: of the target, its defense and its role, as in "softmax+bido" or "softmax-shuffled".
      target: what attacks get a view of.
      module: its architecture.
      record: its entry in targets.json.
      control: trained on shuffled labels from another start, so that there is nothing to recover.
    """

    name: str
    target: Target
    module: Any
    record: dict[str, Any]
    control: bool


def keywords(section: dict[str, Any]) -> dict[str, Any]:
    """A section without its name."""
    return {key: value for key, value in section.items() if key != "name"}


def train(
    recipe: zoo.Recipe,
    scene: Scene,
    labels: np.ndarray,
    seed: int,
    defended: dict[str, Any] | None,
    where: pathlib.Path,
    title: str,
    fit: Callable[..., tuple[Any, Any]] = train_on,
) -> tuple[Any, Any, Defense]:
    """Module, variables and defense of one classifier of the private training images.

    It is found in `where` when trained before. A defense that wants an expected batch size accounts for Poisson
    sampling, and gets it.

    Raises:
      ValueError: for a defense that wants what an image audit does not have, or that a pre-training would void.
    """
    images = to_float(scene.split.train.images)
    arrays, size = {"x": images, "y": labels.astype(np.int32)}, min(recipe.batch_size, len(images))
    batches, defense = minibatches(arrays, size, seed), Defense()
    if defended:
        method, supplied = defenses.get(defended["name"]), {"expected_batch_size": float(size)}
        lacking = ", ".join(name for name in method.inputs if name not in supplied)
        if lacking:
            raise ValueError(f"{method.name}: needs {lacking}; an image audit supplies {', '.join(supplied)}")
        defense = method.factory(**{name: supplied[name] for name in method.inputs}, **keywords(defended))
        if method.inputs and recipe.pretrain:
            raise ValueError(f"{method.name}: guards no pre-training; legal are targets without one")
        if method.inputs:
            batches = poisson_batches(arrays, size / len(images), seed=seed)
    drawn = "one by one" if defended and method.inputs else "in epochs", size, seed
    batches = Minibatches(batches, content_digest([scene.contents["train"], arrays["y"], drawn]))
    module = recipe.module(len(scene.names), images.shape[1:])
    key, start = jax.random.key(seed), None
    for i, stage in enumerate(recipe.pretrain):
        part = f"pretrain-{i + 1}"
        start, _ = fit(stage(module, start), key, batches, folder=where / part, title=f"{title}: {part}")

    def augmented(key: Any, batch: Any) -> Any:
        keys = jax.random.split(key, batch["x"].shape[0] + 1)
        x = jax.vmap(recipe.augment)(keys[1:], batch["x"]) if recipe.augment else batch["x"]
        return defense.data(keys[0], {**batch, "x": x})

    hooks = defense._replace(data=augmented)
    process = supervised(module, recipe.optimizer, steps=recipe.steps, defense=hooks, start=start)
    variables, _ = fit(process, key, batches, folder=where, title=title)
    return defense.model(module), variables, defense


def jobs(config: dict[str, Any]) -> list[Job]:
    """The targets of a configuration: undefended, under each defense, and on shuffled labels.

    Raises:
      ValueError: if a control is not among the targets.
    """
    plain = named(listed(config["targets"]))
    unknown = sorted(set(config["controls"]) - {name for name, _ in plain})
    if unknown:
        legal = ", ".join(name for name, _ in plain)
        raise ValueError(f"controls: {', '.join(unknown)}: not among the targets; legal is {legal}")
    return [
        *(Job(name, section, None, False) for name, section in plain),
        *(
            Job(f"{name}+{how}", section, defense, False)
            for how, defense in named(listed(config["defenses"]))
            for name, section in plain
        ),
        *(Job(f"{name}-shuffled", section, None, True) for name, section in plain if name in config["controls"]),
    ]


def targets(config: dict[str, Any], training: pathlib.Path, scene: Scene) -> list[Trained]:
    """All targets of a configuration, trained or found in the folder `training`."""
    return [_target(config, training, scene, job) for job in jobs(config)]


def _target(config: dict[str, Any], training: pathlib.Path, scene: Scene, job: Job) -> Trained:
    name, section, defended, control = job
    private, test, started = scene.split.train, scene.split.test, time.monotonic()
    labels = np.random.default_rng(config["seed"]).permutation(private.labels) if control else private.labels
    # From the target's own initial weights, a control's first layers would stay like the target's and tell what those do.
    seed = config["seed"] + 2000 if control else config["seed"]
    where, seconds = training / name, training / name / "seconds.json"
    recipe = zoo.TARGETS[section["name"]](**keywords(section))
    fit = functools.partial(train_on, plan=Plan(**config["plan"]))
    module, variables, defense = train(recipe, scene, labels, seed, defended, where, f"train {name}", fit)
    took = float(seconds.read_text()) if seconds.exists() else round(time.monotonic() - started, 1)
    if not seconds.exists():
        files.write_json(seconds, took)
    right = predict(module, variables, to_float(test.images)).argmax(1) == test.labels
    record = {
        "name": name,
        "dataset": scene.name,
        "architecture": section["name"],
        "test_accuracy": {**bootstrap(right.astype(float), test.labels)._asdict(), "unit": "share"},
        "defense": _described(defended, recipe, len(labels)),
        "granted": "WEIGHTS",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "seconds": took,
    }
    # What a defense draws its noise from is the run's, like its seed, and none of the adversary's keys.
    target = from_linen(
        module, variables, classes=len(scene.names), defense=defense,
        secret=(config["seed"] + 3000) % 2**32, example=to_float(test.images[:4]),
    )  # fmt: skip
    return Trained(name, target, module, record, control)


def _described(defended: dict[str, Any] | None, recipe: zoo.Recipe, images: int) -> str:
    """The name of a defense; where it accounts for Poisson sampling, with the epsilon of one image that was spent."""
    if not defended or not defenses.get(defended["name"]).inputs:
        return defended["name"] if defended else ""
    rate, delta = min(recipe.batch_size, images) / images, 0.1 / images
    spent = epsilon(noise_multiplier=defended["noise_multiplier"], rate=rate, steps=recipe.steps, delta=delta)
    return f"{defended['name']}, epsilon {spent:.3g} for one image at delta {delta:.1g}"


def evaluators(config: dict[str, Any], training: pathlib.Path, scene: Scene) -> tuple[list[Judge], str | None]:
    """The judges of a configuration: its evaluators, and where the data are known to be faces the
    pretrained embedding.

    They share nothing with the targets but the private images: another seed, and another architecture where the
    configuration is well made. Where the embedding's weights cannot be had, the others judge without it, and why comes
    second.
    """
    judges = []
    for name, section in named(listed(config["evaluators"])):
        recipe = zoo.EVALUATORS[section["name"]](**keywords(section))
        # Other keywords make another network, which `evaluate` may bring later; each is trained in a place of its own.
        where = training / f"evaluator-{name}-{configuration.digest(section)[:8]}"
        seed = config["seed"] + 1000
        fit = functools.partial(train_on, plan=Plan(**config["plan"]))
        module, variables, _ = train(recipe, scene, scene.split.train.labels, seed, None, where, f"train {name}", fit)
        judges.append(classifier_judge(name, digest(variables), _forward(module, variables), scene))
    if not scene.faces:
        return judges, None
    try:
        return [*judges, embedding_judge(scene, faces.load_weights())], None
    except (OSError, ValueError) as error:  # no npm, no network, no room; or not the file that was pinned
        return judges, str(error)


def _forward(module: Any, variables: Any) -> Callable[[Any], Outputs]:
    @jit
    def forward(images: Any) -> Outputs:
        logits, sown = module.apply(variables, images, mutable=["features"])
        return Outputs(logits, sown_features(sown))

    return forward


def check_roles(trained: list[Trained], judges: list[Judge]) -> None:
    """Refuse an evaluator that is a target (ValueError naming both)."""
    for one in trained:
        for judge in judges:
            if judge.digest == one.target.digest:
                raise ValueError(
                    f"evaluators: {judge.name} has the parameters of target {one.name} (digest {judge.digest[:12]}); "
                    "an evaluator must be another network, or the attack is graded by its own victim"
                )
