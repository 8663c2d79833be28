"""Audit of image classifiers: train targets and evaluators, attack every target, judge, and put all in a run folder."""

import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import attacks
from jaxmia import config as configuration
from jaxmia.audit import classifiers, setup
from jaxmia.audit import folder as files
from jaxmia.audit.classifiers import Trained, keywords, listed, named
from jaxmia.audit.judge import Judge, judge_candidates
from jaxmia.audit.scenes import Scene
from jaxmia.audit.setup import SCHEMA, check
from jaxmia.core import Scenario
from jaxmia.data import to_float
from jaxmia.engine import Status, fit, run
from jaxmia.oracle import Access, Target
from jaxmia.report.arrays import read_arrays
from jaxmia.report.objects import read_object

__all__ = ["SCHEMA", "audit", "check", "evaluate", "train"]


class Stage(NamedTuple):
    """What all cells of one audit share."""

    config: dict[str, Any]
    folder: pathlib.Path
    scene: Scene
    judges: list[Judge]
    inputs: dict[str, Any]  # what attacks may ask for, by parameter name


def train(config: dict[str, Any], run_folder: pathlib.Path) -> tuple[Scene, list[Trained], list[Judge]]:
    """Train what is missing and write the records of targets and evaluators.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
    """
    scene = check(config)
    trained = classifiers.targets(config, run_folder, scene)
    files.write_json(run_folder / "targets.json", [one.record for one in trained])
    judges = _judges(config, run_folder, scene, trained)
    return scene, trained, judges


def _judges(config: dict[str, Any], run_folder: pathlib.Path, scene: Scene, trained: list[Trained]) -> list[Judge]:
    judges = classifiers.evaluators(config, run_folder, scene)
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

    def fit_prior(process: Any, batches: Any, name: str) -> Any:
        key, where = jax.random.key(config["seed"]), run_folder / "training" / name
        return fit(process, key, batches, folder=where, title=name)[0]

    stage = Stage(config, run_folder, scene, judges, setup.inputs(config, scene, fit_prior))
    _write_truth(stage)
    sections = named(listed(config["attacks"]))
    cells = [(one, name, section) for one in trained for name, section in sections]
    for one, name, _ in cells:  # what is missing in the end is listed by the report as unfinished
        (run_folder / "cells" / f"{one.name}--{name}").mkdir(parents=True, exist_ok=True, mode=0o700)
    for cell in _solved(run_folder):  # the judging was interrupted, or lacked an evaluator that can be had by now
        judged = set(read_object(cell / "cell.json").values.get("evaluators", ()))
        if not files.is_done(cell) or {judge.digest for judge in judges} - judged:
            _judge_anew(cell, judges)
    _baseline_cell(stage, trained[0].name)
    by_name = {one.name: one.target for one in trained}
    for one, name, section in cells:
        # Any model's own scores tell of the image they are for, so a control's victims were served by the real target:
        # what must fail is to read them with a model that has learned nothing.
        served = by_name[one.name.removesuffix("-shuffled")] if one.control else one.target
        _attack_cell(stage, one, served, name, section)


def evaluate(config: dict[str, Any], run_folder: pathlib.Path) -> None:
    """Judge the candidates of every cell that has them anew, by the evaluators that `config` names now.

    The run folder becomes one of `config`, so that its page and its resumption speak of these evaluators.

    Raises:
      ValueError: if no cell has candidates, or as in `check`.
    """
    if not _solved(run_folder):
        raise ValueError(f"{run_folder}: has no finished cell to evaluate; run `jaxmia attack` first")
    _, _, judges = train(config, run_folder)
    files.write_config(run_folder, configuration.dump(config), configuration.digest(config))
    for cell in _solved(run_folder):
        _judge_anew(cell, judges)


def _solved(run_folder: pathlib.Path) -> list[pathlib.Path]:
    """Cells with candidates, judged or not: the record is written after them."""
    return sorted(record.parent for record in run_folder.glob("cells/*/cell.json"))


def _judge_anew(cell: pathlib.Path, judges: list[Judge]) -> None:
    record = read_object(cell / "cell.json").values
    kept = read_arrays(cell / "candidates.npz", ["candidates", "targets", "case_ids", "failed"], ["pairs"])
    (cell / "done.json").unlink(missing_ok=True)  # until arrays and record are of the same evaluators again
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
    public = to_float(stage.scene.split.public.images)
    flat = public.reshape(len(public), -1)
    gaps = np.stack([np.linalg.norm(flat - one.ravel(), axis=1) for one in private], axis=1)
    targets = np.arange(len(stage.scene.names), dtype=np.int32)
    nearest = public[[gaps[:, labels == c].min(1).argmin() for c in targets]]
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


def _attack_cell(stage: Stage, one: Trained, served: Target, name: str, section: dict[str, Any]) -> None:
    """One attack on one target: solve, judge, commit. `served` answered for the victims that an attack observes."""
    config, classes = stage.config, len(stage.scene.names)
    cell = stage.folder / "cells" / f"{one.name}--{name}"
    if files.is_done(cell):
        return
    method = attacks.get(section["name"])
    attack = setup.assemble(section, one.target, stage.inputs)
    targets = np.tile(np.arange(classes, dtype=np.int32), config["candidates"])
    cases: Any = targets
    extra = {}
    if method.card.observes == "scores":
        cases, extra["pairs"] = _observed_scores(served, stage.scene, targets, config["seed"])
    batches = setup.public_batches(config, stage.scene)
    started = time.monotonic()
    result = run(
        attack, jax.random.key(config["seed"]), Scenario(one.target, cases, public=batches),
        plan=setup.plan(**config["plan"]), folder=cell / "work", title=f"{section['name']} on {one.name}",
    )  # fmt: skip
    seconds = time.monotonic() - started
    broken = result.status == Status.NONFINITE
    if broken.mean() > 0.5:
        raise FloatingPointError(f"{section['name']} on {one.name}: {broken.mean():.0%} of the cases went non-finite")
    failed = broken | np.asarray(result.info.extra.get("failed", np.zeros(len(targets), bool)))
    # What training asked serves all cases, so each bears its share.
    queries = np.asarray(result.info.queries) + (result.training_queries or 0) / len(targets)
    record = {
        "attack": section["name"],
        "target": one.name,
        "seed": config["seed"],
        "card": {**method.card._asdict(), "access": Access(method.card.access).name},
        "hyperparameters": keywords(section),
        "n": len(targets),
        "seconds": round(seconds, 2),
        "queries": {"mean": float(queries.mean()), "max": float(queries.max())} if queries.any() else None,
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
    files.finish_cell(cell, {**record, "metrics": metrics, "evaluators": [judge.digest for judge in judges]}, arrays)


def _observed_scores(target: Target, scene: Scene, targets: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the target serves for one private training image per case, and those images (for the metrics alone)."""
    private = scene.split.train
    rank = np.arange(len(targets)) // len(scene.names)
    rows = np.array([np.resize(np.flatnonzero(private.labels == c), k + 1)[k] for c, k in zip(targets, rank)])
    victims = to_float(private.images[rows])
    view = target.view(Access.SCORES)
    keys = jax.random.split(jax.random.key(seed), len(rows))
    return np.asarray(jax.jit(jax.vmap(view.answer))(keys, victims)), victims
