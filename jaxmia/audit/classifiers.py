"""The classifiers of an image audit: targets, their defended and shuffled versions, and evaluators."""

import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import defenses, zoo
from jaxmia.audit import folder as files
from jaxmia.audit.judge import Judge, classifier_judge, embedding_judge
from jaxmia.audit.scenes import Scene
from jaxmia.core import Defense
from jaxmia.data import minibatches, to_float
from jaxmia.engine import fit
from jaxmia.metrics.estimate import bootstrap
from jaxmia.oracle import Outputs, Target, digest, from_linen, sown_features
from jaxmia.train import predict, supervised

__all__ = ["Trained", "check_roles", "evaluators", "listed", "named", "targets", "train"]


class Trained(NamedTuple):
    """A target with its record for the report.

    Attributes:
      name: of the target, its defense and its role, as in "softmax+bido" or "softmax-shuffled".
      target: what attacks get a view of.
      record: its entry in targets.json.
      control: trained on shuffled labels, so that there is nothing to recover.
    """

    name: str
    target: Target
    record: dict[str, Any]
    control: bool


def listed(section: Any) -> list[dict[str, Any]]:
    """A section that may be absent, one, or a list, as a list."""
    return section if isinstance(section, list) else [section] if section else []


def named(sections: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Each section with a name of its own: what stands more than once is numbered.

    >>> named([{"name": "image/gmi"}, {"name": "image/gmi", "steps": 5}])[1][0]
    'gmi-2'
    """
    seen: dict[str, int] = {}
    out = []
    for section in sections:
        short = section["name"].rsplit("/", 1)[-1]
        seen[short] = seen.get(short, 0) + 1
        out.append((short if seen[short] == 1 else f"{short}-{seen[short]}", section))
    return out


def keywords(section: dict[str, Any]) -> dict[str, Any]:
    """A section without its name."""
    return {key: value for key, value in section.items() if key != "name"}


def train(
    recipe: zoo.Recipe, scene: Scene, labels: np.ndarray, seed: int, defense: Defense, where: pathlib.Path, title: str
) -> tuple[Any, Any]:
    """Module and variables of one classifier of the private training images; found in `where` when trained before."""
    images = to_float(scene.split.train.images)
    batches = minibatches({"x": images, "y": labels.astype(np.int32)}, min(recipe.batch_size, len(images)), seed)
    module = recipe.module(len(scene.names), images.shape[1:])
    key, start = jax.random.key(seed), None
    for i, stage in enumerate(recipe.pretrain):
        part = f"pretrain-{i + 1}"
        start, _ = fit(stage(module, start), key, batches, folder=where / part, title=f"{title}: {part}")

    def augmented(key: Any, batch: Any) -> Any:
        keys = jax.random.split(key, batch["x"].shape[0] + 1)
        x = jax.vmap(recipe.augment)(keys[1:], batch["x"]) if recipe.augment else batch["x"]
        return defense.data(keys[0], {**batch, "x": x})

    defended = defense._replace(data=augmented)
    process = supervised(module, recipe.optimizer, steps=recipe.steps, defense=defended, start=start)
    variables, _ = fit(process, key, batches, folder=where, title=title)
    return defense.model(module), variables


def targets(config: dict[str, Any], run_folder: pathlib.Path, scene: Scene) -> list[Trained]:
    """All targets of a configuration: undefended, under each defense, and on shuffled labels.

    Raises:
      ValueError: if a control is not among the targets.
    """
    plain = named(listed(config["targets"]))
    jobs = [(name, section, None, False) for name, section in plain]
    jobs += [
        (f"{name}+{how}", section, defense, False)
        for how, defense in named(listed(config["defenses"]))
        for name, section in plain
    ]
    jobs += [(f"{name}-shuffled", section, None, True) for name, section in plain if name in config["controls"]]
    unknown = sorted(set(config["controls"]) - {name for name, _ in plain})
    if unknown:
        legal = ", ".join(name for name, _ in plain)
        raise ValueError(f"controls: {', '.join(unknown)}: not among the targets; legal is {legal}")
    return [_target(config, run_folder, scene, *job) for job in jobs]


def _target(
    config: dict[str, Any],
    run_folder: pathlib.Path,
    scene: Scene,
    name: str,
    section: Any,
    defended: Any,
    control: bool,
) -> Trained:
    """One target, trained or found in the run folder."""
    private, test, started = scene.split.train, scene.split.test, time.monotonic()
    defense = defenses.get(defended["name"]).factory(**keywords(defended)) if defended else Defense()
    labels = np.random.default_rng(config["seed"]).permutation(private.labels) if control else private.labels
    where, seconds = run_folder / "training" / name, run_folder / "training" / name / "seconds.json"
    recipe = zoo.TARGETS[section["name"]](**keywords(section))
    module, variables = train(recipe, scene, labels, config["seed"], defense, where, f"train {name}")
    if not seconds.exists():
        files.write_json(seconds, round(time.monotonic() - started, 1))
    right = predict(module, variables, to_float(test.images)).argmax(1) == test.labels
    record = {
        "name": name,
        "dataset": scene.name,
        "architecture": section["name"],
        "test_accuracy": {**bootstrap(right.astype(float), test.labels)._asdict(), "unit": "share"},
        "defense": defended["name"] if defended else "",
        "granted": "WEIGHTS",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "seconds": float(seconds.read_text()),
    }
    target = from_linen(module, variables, classes=len(scene.names), defense=defense)
    return Trained(name, target, record, control)


def evaluators(config: dict[str, Any], run_folder: pathlib.Path, scene: Scene) -> list[Judge]:
    """The judges of a configuration: its evaluators, and for faces the pretrained embedding.

    They share nothing with the targets but the private images: another seed, and another architecture where the
    configuration is well made.
    """
    judges = []
    for name, section in named(listed(config["evaluators"])):
        recipe = zoo.EVALUATORS[section["name"]](**keywords(section))
        where, seed = run_folder / "training" / f"evaluator-{name}", config["seed"] + 1000
        module, variables = train(recipe, scene, scene.split.train.labels, seed, Defense(), where, f"train {name}")
        judges.append(classifier_judge(name, digest(variables), _forward(module, variables), scene))
    return judges + ([embedding_judge(scene)] if scene.faces else [])


def _forward(module: Any, variables: Any) -> Callable[[Any], Outputs]:
    @jax.jit
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
