"""One audit: train targets and judges, attack every target, judge, and put all in a run folder."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax

from jaxmia.audit import assembly, battery, cells, claims, modality_of, targets, verdicts
from jaxmia.audit import folder as files
from jaxmia.audit.cells import Run
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Panel
from jaxmia.audit.roles import listed, named
from jaxmia.audit.targets import Trained
from jaxmia.engine import fit
from jaxmia.oracle import Access
from jaxmia.queries import BudgetSpent
from jaxmia.report.objects import read_object, read_objects

__all__ = ["audit", "evaluate", "train"]


def train(
    config: dict[str, Any],
    runs: Sequence[pathlib.Path],
    training: pathlib.Path | None = None,
    data: Any = None,
) -> tuple[list[Trained], Panel, Inputs]:
    """Train what is missing, and write the records of targets and judges into the run folders.

    Args:
      config: of the first run; the others train the same.
      runs: run folders.
      training: where what is trained lies; None is `training` in the first run folder.
      data: what `assembly.check` returned for the first configuration; None checks it here.

    Returns:
      The targets, the judges, and what attacks may ask for; what they do ask for is made.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
      FloatingPointError: when a training goes non-finite.
    """
    training = training or runs[0] / "training"
    inputs = _inputs(config, training, assembly.check(config) if data is None else data)
    trained, panel = _networks(config, runs, training, inputs)
    for name in sorted(assembly.asked(config) & inputs.keys()):
        inputs[name]  # now: cells of a sweep wait for what they share
    return trained, panel, inputs


def _inputs(config: dict[str, Any], training: pathlib.Path, data: Any) -> Inputs:
    def fit_input(process: Any, batches: Any, name: str) -> Any:
        return fit(process, jax.random.key(config["seed"]), batches, folder=training / name, title=name)[0]

    return Inputs(modality_of(config), config, data, fit_input)


def _networks(
    config: dict[str, Any], runs: Sequence[pathlib.Path], training: pathlib.Path, inputs: Inputs
) -> tuple[list[Trained], Panel]:
    for note in inputs.data.notes:
        print(f"jaxmia: {note}", file=sys.stderr)
    trained = targets.train(config, training, inputs.data)
    for note in [note for target in trained for note in target.fitted.notes]:
        print(f"jaxmia: {note}", file=sys.stderr)
    notes = [*inputs.data.notes, *(note for target in trained for note in target.fitted.notes)]
    for run in runs:
        files.amend_environment(run, warning=" ".join(notes) or None)
        files.write_json(run / "targets.json", [target.record for target in trained])
    panel = inputs.modality.judges(inputs, training, fit)
    _check_roles(trained, panel)
    if panel.note:
        print(f"jaxmia: {panel.note}", file=sys.stderr)
    for run in runs:
        files.amend_environment(run, note=panel.note or None)
        if panel.judges:
            files.write_json(
                run / "evaluators.json",
                [{"name": j.name, "digest": j.digest, "test_accuracy": j.accuracy} for j in panel.judges],
            )
    return trained, panel


def _check_roles(trained: list[Trained], panel: Panel) -> None:
    """Refuse an evaluator that is a target (ValueError naming both)."""
    for target in trained:
        for judge in panel.judges:
            if judge.digest == target.fitted.target.digest:
                raise ValueError(
                    f"evaluators: {judge.name} has the parameters of target {target.job.name} (digest "
                    f"{judge.digest[:12]}); an evaluator must be another network, or the attack is graded by its own "
                    "victim"
                )


def audit(
    members: Sequence[tuple[dict[str, Any], pathlib.Path]],
    training: pathlib.Path | None = None,
    data: Any = None,
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
    config, folders = members[0][0], [folder for _, folder in members]
    trained, panel, inputs = train(config, folders, training, data)
    runs = [Run(inputs.modality, config, folder, inputs.data, panel, inputs) for config, folder in members]
    names = [name for name, _ in named(listed(config["attacks"]))]
    for run in runs:
        truth = run.modality.truth(run.data)
        if truth:
            files.write_npz(run.folder / "truth.npz", **truth)
        for target in trained:  # what is missing in the end is listed by the report as unfinished
            for name in names:
                run.cell(target.job.name, name).mkdir(parents=True, exist_ok=True, mode=0o700)
        for cell in _solved(run.folder):  # the judging was interrupted, or lacked a judge that can be had by now
            if not files.is_done(cell) or _judged_by_others(cell, panel):
                cells.judge_again(run, cell)
    cells.compare(runs, trained[0].job.name)
    failed: dict[pathlib.Path, str] = {}
    by_name = {target.job.name: target.fitted for target in trained}
    for target in trained:
        for number, name in enumerate(names):
            # Any model's own scores tell of the image they are for, so a control's victims were served by the real
            # target: what must fail is to read them with a model that has learned nothing.
            try:
                failed |= cells.attack(runs, target, by_name[target.job.origin], number, name)
            except BudgetSpent as error:  # other attacks may need no more queries
                failed |= {run.folder: f"{name} on {target.job.name}: {error}" for run in runs}
    for run in runs:
        _write_tables(run)
    return failed


def _write_tables(run: Run) -> None:
    tables = [verdicts.table(run.config, run.folder)]
    if run.config["claims"]:
        tables.append(claims.table(run.config, [run.folder]))
    if run.config["battery"]:
        access = max(Access[one.text("granted")] for one in read_objects(run.folder / "targets.json"))
        tables.append(battery.not_run(run.config, access))
    if any(tables):
        files.write_json(run.folder / "tables.json", [table for table in tables if table])


def evaluate(config: dict[str, Any], run_folder: pathlib.Path) -> None:
    """Judge what every cell found anew, by the evaluators that `config` names now.

    The run folder becomes one of `config`, so that its page and its resumption speak of these evaluators.

    Raises:
      ValueError: if no cell is there to judge, or as in `assembly.check`.
    """
    if not _solved(run_folder):
        raise ValueError(f"{run_folder}: has no finished cell to evaluate; run `jaxmia attack` first")
    data = assembly.check(config)
    files.refuse_another(run_folder, config, data.contents)
    inputs = _inputs(config, run_folder / "training", data)
    _, panel = _networks(config, [run_folder], run_folder / "training", inputs)
    files.write_config(run_folder, config)
    run = Run(inputs.modality, config, run_folder, data, panel, inputs)
    for cell in _solved(run_folder):
        cells.judge_again(run, cell)
    _write_tables(run)


def _solved(run_folder: pathlib.Path) -> list[pathlib.Path]:
    """Cells with arrays, judged or not: the record is written after them."""
    return sorted(record.parent for record in run_folder.glob("cells/*/cell.json"))


def _judged_by_others(cell: pathlib.Path, panel: Panel) -> bool:
    """Whether a judge is missing or one too many; the verdict of an absent one stays."""
    record = cells.healable(cell, lambda: read_object(cell / "cell.json").values)
    names = {
        metric.rpartition("[")[2].removesuffix("]") for metric in record.get("metrics", ()) if metric.endswith("]")
    }
    known = {judge.name for judge in panel.judges} | set(panel.absent)
    return not {judge.digest for judge in panel.judges} <= set(record.get("evaluators", ())) or not names <= known
