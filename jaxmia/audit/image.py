"""Audit of image classifiers: train targets and evaluators, attack every target, judge, and put all in a run folder."""

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxmia import config as configuration
from jaxmia.audit import attacking, classifiers, setup
from jaxmia.audit import folder as files
from jaxmia.audit.attacking import Stage, finish
from jaxmia.audit.classifiers import Trained
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.judge import Judge
from jaxmia.audit.roles import listed, named
from jaxmia.audit.scenes import Scene
from jaxmia.audit.setup import SCHEMA, check, family
from jaxmia.data import to_float
from jaxmia.engine import fit
from jaxmia.report.arrays import read_arrays
from jaxmia.report.objects import read_object

__all__ = ["SCHEMA", "audit", "check", "evaluate", "family", "train"]


def train(
    config: dict[str, Any],
    runs: Sequence[pathlib.Path],
    training: pathlib.Path | None = None,
    data: Scene | None = None,
) -> tuple[Scene, list[Trained], list[Judge], Inputs]:
    """Train what is missing, and write the records of targets and evaluators into the run folders.

    Args:
      config: of the first run; the others train the same.
      runs: run folders.
      training: where what is trained lies; None is `training` in the first run folder.
      data: what `check` returned for the first configuration; None checks it here.

    Returns:
      The data, the targets, the evaluators, and what attacks may ask for; where one asks for a
      prior, it is trained.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
      FloatingPointError: when a training goes non-finite.
    """
    training = training or runs[0] / "training"
    scene = check(config) if data is None else data
    trained, judges = _classifiers(config, runs, training, scene)

    def fit_prior(process: Any, batches: Any, name: str) -> Any:
        # Runs that train the same targets may differ in their priors.
        where = training / f"{name}-{configuration.digest(config['prior'])[:8]}"
        return fit(process, jax.random.key(config["seed"]), batches, folder=where, title=name)[0]

    inputs = Inputs(config, scene, fit_prior)
    if not {"prior", "blocks"}.isdisjoint(setup.asked(config)):
        inputs["prior"]  # now: cells of a sweep wait for what they share
    return scene, trained, judges, inputs


def _classifiers(
    config: dict[str, Any], runs: Sequence[pathlib.Path], training: pathlib.Path, scene: Scene
) -> tuple[list[Trained], list[Judge]]:
    for note in scene.notes:
        print(f"jaxmia: {note}", file=sys.stderr)
    trained = classifiers.targets(config, training, scene)
    for run in runs:
        files.amend_environment(run, warning=" ".join(scene.notes) or None)
        files.write_json(run / "targets.json", [one.record for one in trained])
    return trained, _judges(config, runs, training, scene, trained)


def _judges(
    config: dict[str, Any], runs: Sequence[pathlib.Path], training: pathlib.Path, scene: Scene, trained: list[Trained]
) -> list[Judge]:
    judges, lacking = classifiers.evaluators(config, training, scene)
    classifiers.check_roles(trained, judges)
    notes = [
        "the face embedding could not be had, so the trained evaluators judge alone; once it can be had, "
        f"`jaxmia evaluate {run}` judges by it too. Why: {lacking}"
        for run in runs
    ]
    if lacking:
        print(f"jaxmia: {notes[0]}", file=sys.stderr)
    for run, note in zip(runs, notes):
        files.amend_environment(run, note=note if lacking else None)
        files.write_json(
            run / "evaluators.json",
            [{"name": j.name, "digest": j.digest, "test_accuracy": j.accuracy} for j in judges],
        )
    return judges


def audit(
    members: Sequence[tuple[dict[str, Any], pathlib.Path]],
    training: pathlib.Path | None = None,
    data: Scene | None = None,
) -> dict[pathlib.Path, str]:
    """Run every cell of configurations of one family; finished cells are found in their folders and skipped.

    Args:
      members: configurations with their run folders; they differ in nothing but numbers that attacks take traced, so
        they share what is trained and the programs of their attacks.
      training: as in `train`.
      data: as in `train`.

    Returns:
      By run folder, what went wrong: in them most cases of a cell went non-finite.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
      FloatingPointError: when a training goes non-finite.
    """
    config, runs = members[0][0], [run for _, run in members]
    scene, trained, judges, inputs = train(config, runs, training, data)
    stages = [Stage(config, run, scene, judges, inputs) for config, run in members]
    names = [name for name, _ in named(listed(config["attacks"]))]
    for stage in stages:
        _write_truth(stage)
        for one in trained:  # what is missing in the end is listed by the report as unfinished
            for name in names:
                (stage.folder / "cells" / f"{one.name}--{name}").mkdir(parents=True, exist_ok=True, mode=0o700)
        for cell in _solved(stage.folder):  # the judging was interrupted, or lacked an evaluator that can be had by now
            if not files.is_done(cell) or _judged_by_others(cell, judges, scene):
                _judge_anew(cell, judges)
    _baseline_cells(stages, trained[0].name)
    failed: dict[pathlib.Path, str] = {}
    by_name = {one.name: one.target for one in trained}
    for one in trained:
        for number, name in enumerate(names):
            # Any model's own scores tell of the image they are for, so a control's victims were served by the real
            # target: what must fail is to read them with a model that has learned nothing.
            served = by_name[one.name.removesuffix("-shuffled")] if one.control else one.target
            failed |= attacking.attack(stages, one, served, number, name)
    return failed


def evaluate(config: dict[str, Any], run_folder: pathlib.Path) -> None:
    """Judge the candidates of every cell that has them anew, by the evaluators that `config` names now.

    The run folder becomes one of `config`, so that its page and its resumption speak of these evaluators.

    Raises:
      ValueError: if no cell has candidates, or as in `check`.
    """
    if not _solved(run_folder):
        raise ValueError(f"{run_folder}: has no finished cell to evaluate; run `jaxmia attack` first")
    scene = check(config)
    files.refuse_another(run_folder, config, scene.contents)
    _, judges = _classifiers(config, [run_folder], run_folder / "training", scene)
    files.write_config(run_folder, config)
    for cell in _solved(run_folder):
        _judge_anew(cell, judges)


def _solved(run_folder: pathlib.Path) -> list[pathlib.Path]:
    """Cells with candidates, judged or not: the record is written after them."""
    return sorted(record.parent for record in run_folder.glob("cells/*/cell.json"))


def _judged_by_others(cell: pathlib.Path, judges: list[Judge], scene: Scene) -> bool:
    """Whether a judge is missing or one too many; the embedding's verdict stays where it cannot be had this time."""
    record = _healable(cell, lambda: read_object(cell / "cell.json").values)
    names = {
        metric.rpartition("[")[2].removesuffix("]") for metric in record.get("metrics", ()) if metric.endswith("]")
    }
    known = {judge.name for judge in judges} | ({"face_embedding"} if scene.faces else set())
    return not {judge.digest for judge in judges} <= set(record.get("evaluators", ())) or not names <= known


def _judge_anew(cell: pathlib.Path, judges: list[Judge]) -> None:
    record = _healable(cell, lambda: read_object(cell / "cell.json").values)
    named = ["candidates", "targets", "case_ids", "failed"], ["pairs"]
    kept = _healable(cell, lambda: read_arrays(cell / "candidates.npz", *named))
    (cell / "done.json").unlink(missing_ok=True)  # until arrays and record are of the same evaluators again
    finish([cell], judges, record, **kept)


def _healable(cell: pathlib.Path, read: Callable[[], Any]) -> Any:
    """What `read` finds in a cell's folder; where it is missing or damaged, it is told how the cell is made anew."""
    try:
        return read()
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{error}; delete the folder {cell}, and `jaxmia attack` makes it anew") from None


def _write_truth(stage: Stage) -> None:
    private = stage.scene.split.train
    first = np.array([np.flatnonzero(private.labels == c)[0] for c in range(len(stage.scene.names))])
    files.write_npz(
        stage.folder / "truth.npz",
        private=to_float(private.images)[first],
        names=np.array(stage.scene.names, dtype=str),
    )


def _baseline_cells(stages: Sequence[Stage], target: str) -> None:
    """No attack: for each person the public image nearest in pixels to any private one, chosen with the truth in hand.

    Chosen by no evaluator, since the one that chose would favor its own choice.
    """
    cells, stage = [stage.folder / "cells" / "baseline--nearest_public" for stage in stages], stages[0]
    missing = [cell for cell in cells if not files.is_done(cell)]
    if not missing:
        return
    private, labels = to_float(stage.scene.split.train.images), stage.scene.split.train.labels
    public = stage.inputs.public
    flat, targets = public.reshape(len(public), -1), setup.attacked(stage.config, stage.scene)
    squares, nearest = np.sum(flat**2, 1), np.empty((len(targets), *public.shape[1:]), np.float32)
    for c in targets:
        own = private[labels == c].reshape(-1, flat.shape[1])
        gaps = squares[:, None] - 2 * flat @ own.T + np.sum(own**2, 1)  # squared
        nearest[c] = public[gaps.min(1).argmin()]
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
    for cell in missing:
        cell.mkdir(parents=True, exist_ok=True, mode=0o700)
    finish(missing, stage.judges, record, nearest, targets, targets, np.zeros(len(targets), bool))
