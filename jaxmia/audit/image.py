"""Audit of image classifiers: train targets and evaluators, attack every target, judge, and put all in a run folder."""

import json
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import attacks, defenses, zoo
from jaxmia.audit import classifiers
from jaxmia.audit import folder as files
from jaxmia.audit.classifiers import Trained, keywords, listed, named
from jaxmia.audit.judge import Judge, judge_candidates
from jaxmia.audit.scenes import DATA, PRIORS, Scene
from jaxmia.core import Scenario
from jaxmia.data import minibatches, to_float
from jaxmia.engine import Plan, Status, fit, run
from jaxmia.models import InversionDecoder
from jaxmia.oracle import Access, Target

__all__ = ["SCHEMA", "audit", "evaluate", "train"]


def _decoder(*, width: int = 32) -> int:
    """Channels before the last layer of the inversion decoder."""
    return width


def _plan(*, chunk: int | None = None, block: int = 50, mapper: str = "shard_map", loop: str = "auto") -> Plan:
    """Speed, never results."""
    return Plan(chunk=chunk, block=block, mapper=mapper, loop=loop)


SCHEMA: dict[str, Any] = {
    "modality": (str, "image"),
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


class Stage(NamedTuple):
    """What all cells of one audit share."""

    config: dict[str, Any]
    folder: pathlib.Path
    scene: Scene
    judges: list[Judge]
    public: np.ndarray  # images in [0, 1]
    inputs: dict[str, Any]  # what attacks may ask for, by parameter name


def train(config: dict[str, Any], run_folder: pathlib.Path) -> tuple[Scene, list[Trained], list[Judge]]:
    """Train what is missing and write the records of targets and evaluators.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
    """
    if config["candidates"] < 1:
        raise ValueError(f"candidates: {config['candidates']}; legal is 1 or more")
    for section in listed(config["attacks"]):
        modality = attacks.get(section["name"]).card.modality
        if modality != "image":
            raise ValueError(f"attacks: {section['name']} is for {modality}; legal are attacks on images")
    section = config["data"]
    scene = DATA[section["name"]](**keywords(section))
    trained = classifiers.targets(config, run_folder, scene)
    files.write_json(run_folder / "targets.json", [one.record for one in trained])
    judges = _judges(config, run_folder, scene, trained)
    return scene, trained, judges


def _judges(config: dict[str, Any], run_folder: pathlib.Path, scene: Scene, trained: list[Trained]) -> list[Judge]:
    judges = classifiers.evaluators(config, run_folder, scene)
    if not judges:
        raise ValueError(f"evaluators: none, and no face embedding for {scene.name}; legal is one or more")
    classifiers.check_roles(trained, judges)
    files.write_json(
        run_folder / "evaluators.json",
        [{"name": j.name, "digest": j.digest, "test_accuracy": j.accuracy} for j in judges],
    )
    return judges


def audit(config: dict[str, Any], run_folder: pathlib.Path) -> None:
    """Run every cell of a configuration; finished cells are found in the folder and skipped.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
      FloatingPointError: when most cases of a cell go non-finite.
    """
    scene, trained, judges = train(config, run_folder)
    public = to_float(scene.split.public.images)

    def fit_prior(process: Any, batches: Any, name: str) -> Any:
        key, where = jax.random.key(config["seed"]), run_folder / "training" / name
        return fit(process, key, batches, folder=where, title=name)[0]

    inputs = {
        "shape": public.shape[1:],
        "classes": len(scene.names),
        "prior": PRIORS[config["prior"]["name"]](public, fit_prior, **keywords(config["prior"])),
        "decoder": InversionDecoder(public.shape[1:], width=_decoder(**config["decoder"])),
    }
    stage = Stage(config, run_folder, scene, judges, public, inputs)
    _write_truth(stage)
    sections = named(listed(config["attacks"]))
    cells = [(one, name, section) for one in trained for name, section in sections]
    for one, name, _ in cells:  # what is missing in the end is listed by the report as unfinished
        (run_folder / "cells" / f"{one.name}--{name}").mkdir(parents=True, exist_ok=True, mode=0o700)
    _baseline_cell(stage, trained[0].name)
    for one, name, section in cells:
        _attack_cell(stage, one, name, section)


def evaluate(config: dict[str, Any], run_folder: pathlib.Path) -> None:
    """Judge the candidates of every finished cell anew, by the evaluators that `config` names now."""
    section = config["data"]
    scene = DATA[section["name"]](**keywords(section))
    trained = classifiers.targets(config, run_folder, scene)
    judges = _judges(config, run_folder, scene, trained)
    for cell in sorted((run_folder / "cells").iterdir()):
        if not files.is_done(cell):
            continue
        record = json.loads((cell / "cell.json").read_text(encoding="utf-8"))
        with np.load(cell / "candidates.npz", allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in ("candidates", "targets", "case_ids", "failed", "pairs")
                    if name in arrays}  # fmt: skip
        _finish(cell, judges, record, **kept)


def _write_truth(stage: Stage) -> None:
    private = stage.scene.split.train
    first = np.array([np.flatnonzero(private.labels == c)[0] for c in range(len(stage.scene.names))])
    files.write_npz(
        stage.folder / "truth.npz",
        private=to_float(private.images)[first],
        names=np.array(stage.scene.names, dtype=str),
    )


def _baseline_cell(stage: Stage, target: str) -> None:
    """No attack: for each person the public image nearest in pixels to any private one, chosen with the truth in hand.

    Chosen by no evaluator, since the one that chose would favor its own choice.
    """
    cell = stage.folder / "cells" / "baseline--nearest_public"
    if files.is_done(cell):
        return
    private, labels = to_float(stage.scene.split.train.images), stage.scene.split.train.labels
    flat = stage.public.reshape(len(stage.public), -1)
    gaps = np.stack([np.linalg.norm(flat - one.ravel(), axis=1) for one in private], axis=1)
    targets = np.arange(len(stage.scene.names), dtype=np.int32)
    nearest = stage.public[[gaps[:, labels == c].min(1).argmin() for c in targets]]
    record = {
        "attack": "none",
        "label": "nearest public image",
        "target": target,
        "seed": stage.config["seed"],
        "control": True,
        "card": {
            "title": "Nearest public image",
            "paper": "no attack: chosen by pixel distance with the private images in hand",
            "url": "",
            "year": 0,
            "modality": "image",
            "access": "NONE",
            "recovers": "nothing",
            "knows": "public images, and the private ones to choose by",
        },
        "hyperparameters": {},
        "seconds": 0.0,
        "queries": None,
        "status": {"chosen": len(targets)},
        "n": len(targets),
        "failed": 0,
    }
    cell.mkdir(parents=True, exist_ok=True, mode=0o700)
    _finish(cell, stage.judges, record, nearest, targets, targets, np.zeros(len(targets), bool))


def _attack_cell(stage: Stage, one: Trained, name: str, section: dict[str, Any]) -> None:
    """One attack on one target: solve, judge, commit."""
    config, classes = stage.config, len(stage.scene.names)
    cell = stage.folder / "cells" / f"{one.name}--{name}"
    if files.is_done(cell):
        return
    method = attacks.get(section["name"])
    supplied = {name: stage.inputs[name] for name in method.inputs if name != "oracle"}
    attack = method.factory(one.target.view(method.card.access, method.name), **supplied, **keywords(section))
    targets = np.tile(np.arange(classes, dtype=np.int32), config["candidates"])
    cases: Any = targets
    extra = {}
    if method.card.observes == "scores":
        cases, extra["pairs"] = _observed_scores(one.target, stage.scene, targets, config["seed"])
    batches = minibatches({"x": stage.public}, min(32, len(stage.public)), config["seed"])
    started = time.monotonic()
    result = run(
        attack, jax.random.key(config["seed"]), Scenario(one.target, cases, public=batches),
        plan=_plan(**config["plan"]), folder=cell / "work", title=f"{section['name']} on {one.name}",
    )  # fmt: skip
    seconds = time.monotonic() - started
    broken = result.status == Status.NONFINITE
    if broken.mean() > 0.5:
        raise FloatingPointError(f"{section['name']} on {one.name}: {broken.mean():.0%} of the cases went non-finite")
    failed = broken | np.asarray(result.info.extra.get("failed", np.zeros(len(targets), bool)))
    queries = np.asarray(result.info.queries)
    record = {
        "attack": section["name"],
        "target": one.name,
        "seed": config["seed"],
        "card": {**method.card._asdict(), "access": Access(method.card.access).name},
        "hyperparameters": keywords(section),
        "n": len(targets),
        "seconds": round(seconds, 2),
        "queries": {"mean": float(queries.mean()), "max": int(queries.max())} if queries.any() else None,
        "status": {status.name: int(np.sum(result.status == status)) for status in Status},
        "failed": int(failed.sum()),
        "control": one.control,
        "label": method.card.title
        + (f" ({name})" if name != section["name"].rsplit("/", 1)[-1] else "")
        + (" on shuffled labels" if one.control else ""),
    }
    _finish(cell, stage.judges, record, result.output, targets, np.arange(len(targets)), failed, **extra)


def _finish(
    cell: pathlib.Path,
    judges: list[Judge],
    record: dict[str, Any],
    candidates: np.ndarray,
    targets: np.ndarray,
    case_ids: np.ndarray,
    failed: np.ndarray,
    pairs: np.ndarray | None = None,
) -> None:
    """Judge candidates and commit the cell."""
    metrics, per_case = judge_candidates(judges, candidates, targets, failed, pairs)
    arrays = {
        "candidates": np.asarray(candidates, np.float32),
        "targets": targets,
        "case_ids": case_ids,
        "failed": failed,
        "success": per_case[f"attack_accuracy@1 [{judges[0].name}]"] > 0,
        **{f"metric:{name}": np.asarray(value, np.float32) for name, value in per_case.items()},
        **({} if pairs is None else {"pairs": pairs}),
    }
    files.finish_cell(cell, {**record, "metrics": metrics}, arrays)


def _observed_scores(target: Target, scene: Scene, targets: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the target serves for one private training image per case, and those images (for the metrics alone)."""
    private = scene.split.train
    rank = np.arange(len(targets)) // len(scene.names)
    rows = np.array([np.resize(np.flatnonzero(private.labels == c), k + 1)[k] for c, k in zip(targets, rank)])
    victims = to_float(private.images[rows])
    view = target.view(Access.SCORES)
    keys = jax.random.split(jax.random.key(seed), len(rows))
    return np.asarray(jax.jit(jax.vmap(view.answer))(keys, victims)), victims
