"""Audit of image classifiers: train targets and evaluators, attack every target, judge, and put all in a run folder."""

import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import attacks, defenses, zoo
from jaxmia.audit import folder as files
from jaxmia.audit.judge import Judge, classifier_judge, embedding_judge, judge_candidates
from jaxmia.audit.scenes import DATA, PRIORS, Scene
from jaxmia.core import Defense, Scenario
from jaxmia.data import minibatches, to_float
from jaxmia.engine import Plan, Status, fit, run
from jaxmia.metrics.estimate import bootstrap
from jaxmia.models import InversionDecoder
from jaxmia.oracle import Access, Target, from_linen, sown_features
from jaxmia.train import predict, supervised

__all__ = ["SCHEMA", "audit", "check_roles", "scene_of", "train_models"]


def _decoder(*, width: int = 32) -> int:
    """Channels before the last layer of the inversion decoder."""
    return width


def _plan(*, chunk: int | None = None, block: int = 50, mapper: str = "shard_map", loop: str = "auto") -> Plan:
    """Speed, never results."""
    return Plan(chunk=chunk, block=block, mapper=mapper, loop=loop)


SCHEMA: dict[str, Any] = {
    "data": DATA,
    "seed": (int, 0),
    "targets": zoo.TARGETS,
    "evaluators": zoo.EVALUATORS,
    "defenses": (defenses, None),
    "prior": PRIORS,
    "decoder": _decoder,
    "attacks": attacks,
    "candidates": (int, 1),
    "controls": (tuple[str, ...], ()),
    "plan": _plan,
}
"""Sections of an image audit. `candidates`: reconstructions per class. `controls`: names of targets that are trained
once more on shuffled labels and attacked likewise."""


class Trained(NamedTuple):
    """A target with its record for the report."""

    name: str
    target: Target
    record: dict[str, Any]
    control: bool


def _listed(section: Any) -> list[dict[str, Any]]:
    return section if isinstance(section, list) else [section] if section else []


def _made(registry: Any, section: dict[str, Any]) -> Any:
    """What a section's factory makes of its keywords."""
    found = registry[section["name"]] if isinstance(registry, dict) else registry.get(section["name"]).factory
    return found(**{key: value for key, value in section.items() if key != "name"})


def _train(
    recipe: zoo.Recipe, scene: Scene, labels: np.ndarray, seed: int, defense: Defense, where: pathlib.Path, title: str
) -> tuple[Any, Any]:
    """Module and variables of one classifier; found in `where` when trained before."""

    def augmented(key: Any, batch: Any) -> Any:
        keys = jax.random.split(key, batch["x"].shape[0] + 1)
        x = jax.vmap(recipe.augment)(keys[1:], batch["x"]) if recipe.augment else batch["x"]
        return defense.data(keys[0], {**batch, "x": x})

    module = recipe.module(len(scene.names))
    process = supervised(module, recipe.optimizer, steps=recipe.steps, defense=defense._replace(data=augmented))
    images = to_float(scene.split.train.images)
    batches = minibatches({"x": images, "y": labels.astype(np.int32)}, min(recipe.batch_size, len(images)), seed)
    variables, _ = fit(process, jax.random.key(seed), batches, folder=where, title=title)
    return defense.model(module), variables


def train_models(config: dict[str, Any], run_folder: pathlib.Path, scene: Scene) -> tuple[list[Trained], list[Judge]]:
    """All targets (undefended, defended, controls) and evaluators of a configuration."""
    train, test = scene.split.train, scene.split.test
    rng = np.random.default_rng(config["seed"])
    jobs = [(section, None, False) for section in _listed(config["targets"])]
    jobs += [(s, d, False) for d in _listed(config["defenses"]) for s in _listed(config["targets"])]
    jobs += [(s, None, True) for s in _listed(config["targets"]) if s["name"] in config["controls"]]
    unknown = set(config["controls"]) - {section["name"] for section, _, _ in jobs}
    if unknown:
        raise ValueError(f"controls: {', '.join(sorted(unknown))}: not among the targets; legal is one of their names")
    trained = []
    for section, defended, control in jobs:
        name = section["name"] + (f"+{defended['name']}" if defended else "") + ("-shuffled" if control else "")
        defense = _made(defenses, defended) if defended else Defense()
        labels = rng.permutation(train.labels) if control else train.labels
        where, started = run_folder / "training" / name, time.monotonic()
        recipe = _made(zoo.TARGETS, section)
        module, variables = _train(recipe, scene, labels, config["seed"], defense, where, f"train {name}")
        right = predict(module, variables, to_float(test.images)).argmax(1) == test.labels
        seconds = where / "seconds.json"
        if not seconds.exists():
            files.write_json(seconds, round(time.monotonic() - started, 1))
        record = {
            "name": name,
            "dataset": scene.name,
            "architecture": section["name"],
            "test_accuracy": bootstrap(right.astype(float), test.labels),
            "defense": defended["name"] if defended else "",
            "granted": "WEIGHTS",
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
            "seconds": float(seconds.read_text()),
        }
        target = from_linen(module, variables, classes=len(scene.names), defense=defense)
        trained.append(Trained(name, target, record, control))
    judges = []
    for section in _listed(config["evaluators"]):
        name = section["name"]
        where = run_folder / "training" / f"evaluator-{name}"
        # Another seed than the targets': nothing but the private people is shared.
        module, variables = _train(
            _made(zoo.EVALUATORS, section),
            scene,
            train.labels,
            config["seed"] + 1000,
            Defense(),
            where,
            f"train {name}",
        )
        judges.append(
            classifier_judge(name, from_linen(module, variables, classes=2).digest, _forward(module, variables), scene)
        )
    if scene.faces:
        judges.append(embedding_judge(scene))
    check_roles(trained, judges)
    return trained, judges


def _forward(module: Any, variables: Any) -> Callable[[Any], Any]:
    from jaxmia.oracle import Outputs

    @jax.jit
    def forward(images: Any) -> Any:
        logits, sown = module.apply(variables, images, mutable=["features"])
        return Outputs(logits, sown_features(sown))

    return forward


def scene_of(config: dict[str, Any]) -> Scene:
    """The data of a configuration, split."""
    return _made(DATA, config["data"])


def check_roles(trained: list[Trained], judges: list[Judge]) -> None:
    """Refuse an evaluator that is the target (ValueError naming both)."""
    for one in trained:
        for judge in judges:
            if judge.digest == one.target.digest:
                raise ValueError(
                    f"evaluators: {judge.name} has the parameters of target {one.name} (digest {judge.digest[:12]}); "
                    "an evaluator must be another network, or the attack is graded by its own victim"
                )


def audit(config: dict[str, Any], run_folder: pathlib.Path) -> None:
    """Run every cell of a configuration; finished cells are found in the folder and skipped.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
    """
    if config["candidates"] < 1:
        raise ValueError(f"candidates: {config['candidates']}; legal is 1 or more")
    scene = scene_of(config)
    trained, judges = train_models(config, run_folder, scene)
    files.write_json(
        run_folder / "targets.json",
        [t.record for t in trained],
    )
    files.write_json(run_folder / "evaluators.json", [{"name": j.name, "test_accuracy": j.accuracy} for j in judges])
    train = scene.split.train
    first = np.array([np.flatnonzero(train.labels == c)[0] for c in range(len(scene.names))])
    public = to_float(scene.split.public.images)
    files.write_npz(
        run_folder / "truth.npz", private=to_float(train.images)[first], names=np.array(scene.names, dtype=str)
    )
    nearest = _nearest_public(judges[-1], public, len(scene.names))
    _baseline_cell(run_folder, trained[0].name, judges, public[nearest])

    def fit_prior(process: Any, batches: Any, name: str) -> Any:
        return fit(process, jax.random.key(config["seed"]), batches, folder=run_folder / "training" / name, title=name)[
            0
        ]

    keywords = {key: value for key, value in config["prior"].items() if key != "name"}
    inputs = {
        "shape": public.shape[1:],
        "classes": len(scene.names),
        "prior": PRIORS[config["prior"]["name"]](public, fit_prior, **keywords),
        "decoder": InversionDecoder(public.shape[1:], width=_decoder(**config["decoder"])),
    }
    for one in trained:
        for section in _listed(config["attacks"]):
            _attack_cell(config, run_folder, scene, judges, one, section, inputs, public, public[nearest])


def _nearest_public(judge: Judge, public: np.ndarray, classes: int) -> np.ndarray:
    """Per private class, the public image nearest to any of its private images: the best a no-attack guess can do."""
    features = judge.features(public)
    gaps = np.stack([np.linalg.norm(features - row, axis=1) for row in judge.private], axis=1)
    return np.array([gaps[:, judge.labels == c].min(1).argmin() for c in range(classes)])


def _baseline_cell(run_folder: pathlib.Path, target: str, judges: list[Judge], faces: np.ndarray) -> None:
    cell = run_folder / "cells" / "baseline--nearest_public"
    if files.is_done(cell):
        return
    targets = np.arange(len(faces), dtype=np.int32)
    summary, per_case = judge_candidates(judges, faces, targets, np.zeros(len(faces), bool))
    record = {
        "attack": "nearest public image (no attack)",
        "label": f"nearest public image, chosen with the truth in hand by {judges[-1].name}",
        "target": target,
        "seed": 0,
        "control": True,
        "card": {
            "title": "Nearest public image",
            "paper": "no attack",
            "url": "",
            "year": 0,
            "modality": "image",
            "access": "NONE",
            "recovers": "nothing",
            "knows": "public images",
        },
        "hyperparameters": {},
        "seconds": 0.0,
        "queries": None,
        "status": {"chosen": len(faces)},
        "n": len(faces),
        "metrics": summary,
    }
    _finish(cell, record, faces, targets, per_case, judges)


def _finish(
    cell: pathlib.Path,
    record: dict[str, Any],
    images: np.ndarray,
    targets: np.ndarray,
    per_case: dict,
    judges: list[Judge],
) -> None:
    cell.mkdir(parents=True, exist_ok=True, mode=0o700)
    success = per_case[f"attack_accuracy@1 [{judges[0].name}]"] > 0
    values = {f"metric:{name}": np.asarray(value, np.float32) for name, value in per_case.items()}
    arrays = {"candidates": np.asarray(images, np.float32), "targets": targets, "case_ids": np.arange(len(targets))}
    files.finish_cell(cell, record, {**arrays, "success": success, **values})


def _attack_cell(
    config: dict, run_folder: pathlib.Path, scene: Scene, judges: list[Judge], one: Trained, section: dict,
    inputs: dict, public: np.ndarray, nearest: np.ndarray,
) -> None:  # fmt: skip
    """One attack on one target: solve, judge, commit."""
    method = attacks.get(section["name"])
    cell = run_folder / "cells" / f"{one.name}--{section['name'].rsplit('/', 1)[1]}"
    if files.is_done(cell):
        return
    supplied = {name: inputs[name] for name in method.inputs if name != "oracle"}
    keywords = {key: value for key, value in section.items() if key != "name"}
    attack = method.factory(one.target.view(method.card.access, method.name), **supplied, **keywords)
    targets = np.tile(np.arange(len(scene.names), dtype=np.int32), config["candidates"])
    cases, pairs = targets, None
    if method.card.observes == "scores":
        cases, pairs = _observed_scores(one.target, scene, targets, config["seed"])
    scenario = Scenario(one.target, cases, public=minibatches({"x": public}, min(32, len(public)), config["seed"]))
    started = time.monotonic()
    result = run(
        attack, jax.random.key(config["seed"]), scenario, plan=_plan(**config["plan"]),
        folder=cell / "work", title=f"{section['name']} on {one.name}",
    )  # fmt: skip
    seconds = time.monotonic() - started
    failed = np.asarray(result.info.extra.get("failed", np.zeros(len(targets), bool))) | (
        result.status == Status.NONFINITE
    )
    broken = float(np.mean(result.status == Status.NONFINITE))
    if broken > 0.5:
        raise FloatingPointError(f"{section['name']} on {one.name}: {broken:.0%} of the cases went non-finite")
    summary, per_case = judge_candidates(judges, result.output, targets, failed, pairs)
    queries = np.asarray(result.info.queries)
    card = method.card._asdict()
    record = {
        "attack": section["name"],
        "target": one.name,
        "seed": config["seed"],
        "card": {**card, "access": Access(card["access"]).name},
        "hyperparameters": keywords,
        "n": len(targets),
        "seconds": round(seconds, 2),
        "queries": {"mean": float(queries.mean()), "max": int(queries.max())} if queries.any() else None,
        "status": {status.name.lower(): int(np.sum(result.status == status)) for status in Status},
        "failed": int(failed.sum()),
        "metrics": summary,
        "control": one.control,
        "label": method.card.title + (" on shuffled labels" if one.control else ""),
    }
    per_case = {**per_case, "steps": result.steps, "loss": np.nan_to_num(np.asarray(result.info.loss))}
    _finish(cell, record, result.output, targets, per_case, judges)


def _observed_scores(target: Target, scene: Scene, targets: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the target serves for one private training image per case, and those images (for the metrics alone)."""
    train = scene.split.train
    rank = np.arange(len(targets)) // len(scene.names)
    rows = np.array([np.resize(np.flatnonzero(train.labels == c), k + 1)[k] for c, k in zip(targets, rank)])
    victims = to_float(train.images[rows])
    view = target.view(Access.SCORES)
    keys = jax.random.split(jax.random.key(seed), len(rows))
    return np.asarray(jax.jit(jax.vmap(view.answer))(keys, victims)), victims
