"""A sweep: every cell of a configuration audited in a run folder of its own, and one table and page of all.

The sweep's folder holds `<first 12 digits of the cell's digest>/`, a run folder whose `done.json` is written last;
`training/<digest>/`, what cells that train the same share; and in the end `sweep.json`, whose
choice each swept path is, `results.csv`, the rows of all cells, led by the cell and by one column
`sweep.<path>` for each swept path, and `report.html`. Cells of one family (equal but for numbers
that their attacks take traced) are one task, whose attacks are one program each.
"""

import csv
import io
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax

from jaxmia import config, report
from jaxmia.audit import assembly, claims, roles, schema
from jaxmia.audit import folder as files
from jaxmia.audit.halving import Halving
from jaxmia.audit.run import audit, train
from jaxmia.checkpoint import write_atomically
from jaxmia.holding import held
from jaxmia.report.objects import read_object

__all__ = ["Executor", "Task", "sweep", "train_for", "work_off"]


class Task(NamedTuple):
    """Cells that are audited together; plain data, so that it may travel.

    Attributes:
      training: folder of what they train.
      cells: configuration and run folder of each.
      command: what was typed.
    """

    training: str
    cells: tuple[tuple[dict[str, Any], str], ...]
    command: str


Executor = Callable[[list[Task]], Iterator[tuple[Task, dict[str, str]]]]
"""Works tasks off, in any order; gives each with what went wrong, by run folder."""


def sweep(
    checked: dict[str, Any], where: str | os.PathLike, command: str, executor: Executor | None = None
) -> pathlib.Path:
    """Audit the cells; those that are finished are found and skipped.

    A cell in which most cases or a training go non-finite does not stop the others.

    Args:
      checked: what `config.load` gives for a configuration with a sweep.
      where: the sweep's folder, created 0700.
      command: what was typed.
      executor: where tasks run; None is here, one after another.

    Returns:
      The path of the page.

    Raises:
      ValueError: for a cell that contradicts itself; all are checked before the first runs.
      FloatingPointError: in the end, naming the cells that failed.
    """
    where, known = pathlib.Path(where).absolute(), schema(checked)
    swept = config.rows(checked["sweep"], [])
    speed = any(known[path.split(".")[0]].role == "speed" for path in swept[0])
    name = config.digest if speed else roles.run_digest
    halving = Halving.of(checked)
    rungs = [config.expand(variant, known) for variant in halving.variants(checked)]
    runs = [[where / name(cell)[:12] for cell in cells] for cells in rungs]
    for cells, folders in zip(rungs, runs):
        for cell, row, run in zip(cells, swept, folders):
            if not files.is_done(run):
                try:
                    _refuse_other_data(where, cell, assembly.check(cell).contents)
                except ValueError as error:
                    raise ValueError(f"cell {_words(row)}: {error}") from error
    with held(where, command):
        return _run_all(rungs, runs, swept, halving, where, command, executor or _here)


def _refuse_other_data(where: pathlib.Path, cell: dict[str, Any], contents: dict[str, str]) -> None:
    """Raise ValueError if a finished cell was made of the same data when it held something else."""
    deciding = ["data", *["seed"] * assembly.is_divided_by_seed(cell)]
    for path in where.glob("*/identity.json"):
        found = read_object(path).values
        if all(found["sections"][section] == roles.decisions(cell)[section] for section in deciding):
            files.refuse_other_data(f"sweep {where}", found["data"], contents)


def _run_all(
    rungs: list[list[dict[str, Any]]],
    runs: list[list[pathlib.Path]],
    swept: list[dict[str, Any]],
    halving: Halving,
    where: pathlib.Path,
    command: str,
    executor: Executor,
) -> pathlib.Path:
    failed: dict[pathlib.Path, str] = {}
    entered: list[tuple[int, dict[str, Any], pathlib.Path]] = []
    alive = list(range(len(swept)))
    for rung, (cells, folders) in enumerate(zip(rungs, runs)):
        failed |= _run({folders[i]: (cells[i], swept[i]) for i in alive}, where, command, executor)
        entered += [(rung, swept[i], folders[i]) for i in alive]
        alive = halving.best([i for i in alive if files.is_done(folders[i])], folders)
    known = schema(rungs[0][0])
    whose = {path: known[path.split(".", 1)[0]].role for path in swept[0]}
    write_atomically(where / "sweep.json", (json.dumps({"roles": whose}, indent=1) + "\n").encode())
    _write_claims(
        where,
        [
            (cells[i], swept[i], folder)
            for cells, folders in zip(rungs, runs)
            for i, folder in enumerate(folders)
            if files.is_done(folder)
        ],
    )
    table = where / "results.csv"
    write_atomically(table, _table(entered, len(rungs) > 1).encode())
    if len(failed) < len(entered):
        report.build_sweep(where)
    if failed:
        message = f"{len(failed)} of {len(entered)} cells failed; {table} has the others"
        raise FloatingPointError("\n  ".join([message, *failed.values()]))
    return where / "report.html"


def _write_claims(where: pathlib.Path, finished: list[tuple[dict[str, Any], dict[str, Any], pathlib.Path]]) -> None:
    """The claims of each setting, its seeds pooled."""
    groups: dict[str, list[tuple[dict[str, Any], pathlib.Path]]] = {}
    for cell, row, run in finished:
        setting = {path: value for path, value in row.items() if path.rsplit(".", 1)[-1] not in ("seed", "split_seed")}
        groups.setdefault(_words(setting), []).append((cell, run))
    tables = []
    for setting, members in groups.items():
        if members[0][0]["claims"]:
            table = claims.table(members[0][0], [run for _, run in members])
            tables.append({**table, "title": "Claims" + f" ({setting})" * bool(setting)})
    if tables:
        files.write_json(where / "tables.json", tables)


def _run(
    cells: dict[pathlib.Path, tuple[dict[str, Any], dict[str, Any]]], where: pathlib.Path, command: str, executor: Any
) -> dict[pathlib.Path, str]:
    """Work off what is not finished, telling how far it is; by run folder, what went wrong."""
    names = {run: f"{run.name} ({_words(row)})" for run, (_, row) in cells.items()}
    for run, name in names.items():
        if files.is_done(run):
            print(f"cell {name}: found finished", file=sys.stderr)
    families: dict[str, list[pathlib.Path]] = {}
    for run, (cell, _) in cells.items():
        if not files.is_done(run):
            families.setdefault(config.digest(assembly.family(cell)), []).append(run)
    tasks = []
    for family in families.values():
        training = str(where / "training" / roles.training(cells[family[0]][0])[:12])
        tasks.append(Task(training, tuple((cells[run][0], str(run)) for run in family), command))
    failed: dict[pathlib.Path, str] = {}
    total, began = len(cells), time.monotonic()
    found = finished = total - sum(len(task.cells) for task in tasks)
    for task, wrong in executor(tasks):
        finished += len(task.cells)
        left = (time.monotonic() - began) / (finished - found) * (total - finished)
        for _, run in task.cells:
            name = names[pathlib.Path(run)]
            if run in wrong:
                failed[pathlib.Path(run)] = f"cell {name}: {wrong[run]}"
                print(f"{failed[pathlib.Path(run)]}; going on with the others", file=sys.stderr)
            else:
                print(f"cell {name}: finished", file=sys.stderr)
        print(f"{finished}/{total} cells, {len(failed)} failed, about {left:.0f} s left", file=sys.stderr)
    return failed


def _here(tasks: Iterable[Task]) -> Iterator[tuple[Task, dict[str, str]]]:
    for task in tasks:
        yield task, work_off(task)


def train_for(task: Task) -> None:
    """What the cells of a task need trained.

    Raises:
      FloatingPointError: if a training goes non-finite.
    """
    cell, run = task.cells[0]
    data = assembly.check(cell)
    run_folder = files.open_run(run, cell, task.command, data.contents)
    train(cell, [run_folder], pathlib.Path(task.training), data)


def work_off(task: Task) -> dict[str, str]:
    """Audit the cells of a task and commit each; by run folder, what went wrong."""
    missing = [(cell, run) for cell, run in task.cells if not files.is_done(pathlib.Path(run))]
    if not missing:
        return {}
    data = assembly.check(missing[0][0])  # the same for all, which differ in numbers of their attacks
    members = [(cell, files.open_run(run, cell, task.command, data.contents)) for cell, run in missing]
    try:
        failed = audit(members, pathlib.Path(task.training), data)
    except FloatingPointError as error:  # in a training that all need
        failed = {run: str(error) for _, run in members}
    for _, run in members:
        if run not in failed:
            report.build(run)
            files.write_json(run / "done.json", {"files": ["report.html", "results.csv"]})
    jax.clear_caches()  # no other task runs the programs of this one
    return {str(run): words for run, words in failed.items()}


def _words(row: dict[str, Any]) -> str:
    return ", ".join(f"{path}={_text(value)}" for path, value in row.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(entered: list[tuple[int, dict[str, Any], pathlib.Path]], rungs: bool) -> str:
    """The results of the finished runs under one another."""
    out = io.StringIO()
    writer: Any = None
    for rung, row, run in entered:
        if not files.is_done(run):
            continue
        lead = {"run": run.name, **({"rung": rung} if rungs else {})}
        lead |= {f"sweep.{path}": _text(value) for path, value in row.items()}
        with (run / "results.csv").open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if writer is None:
                writer = csv.DictWriter(out, [*lead, *(reader.fieldnames or ())], lineterminator="\n")
                writer.writeheader()
            writer.writerows({**lead, **result} for result in reader)
    return out.getvalue()
