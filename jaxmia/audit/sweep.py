"""A sweep: every cell of a configuration audited in a run folder of its own, and one table of all.

The sweep's folder holds `<first 12 digits of the cell's digest>/`, a run folder whose `done.json` is written last, and
in the end `results.csv`: the rows of all cells, led by the cell and by one column `sweep.<path>` for each swept path.
"""

import csv
import io
import json
import os
import pathlib
import sys
import time
from types import ModuleType
from typing import Any

import jax

from jaxmia import config, report
from jaxmia.audit import folder as files
from jaxmia.checkpoint import private_folder, write_atomically

__all__ = ["sweep"]


def sweep(checked: dict[str, Any], module: ModuleType, where: str | os.PathLike, command: str) -> pathlib.Path:
    """Audit the cells one after another; those that are finished are found and skipped.

    A cell in which most cases or a training go non-finite does not stop the others.

    Args:
      checked: what `config.load` gives for a configuration with a sweep.
      module: the audit of its modality.
      where: the sweep's folder, created 0700.
      command: what was typed.

    Returns:
      The path of the table.

    Raises:
      ValueError: for a cell that contradicts itself; all are checked before the first runs.
      FloatingPointError: in the end, naming the cells that failed.
    """
    where = private_folder(where)
    cells = config.expand(checked, module.SCHEMA)
    swept = config.rows(checked["sweep"], [])
    runs = [where / config.digest(cell)[:12] for cell in cells]
    for cell, row, run in zip(cells, swept, runs):
        if not files.is_done(run):
            try:
                module.check(cell)
            except ValueError as error:
                raise ValueError(f"cell {_words(row)}: {error}") from error
    failed = []
    for number, (cell, row, run) in enumerate(zip(cells, swept, runs), start=1):
        started = time.monotonic()
        told = f"cell {number}/{len(cells)} {run.name} ({_words(row)})"
        if files.is_done(run):
            print(f"{told}: found finished", file=sys.stderr)
            continue
        print(f"{told}: started", file=sys.stderr)
        files.open_run(run, config.dump(cell), config.digest(cell), command)
        try:
            module.audit(cell, run)
        except FloatingPointError as error:
            failed.append(f"{told}: {error}")
            print(f"{failed[-1]}; going on with the others", file=sys.stderr)
            continue
        report.build(run)
        files.write_json(run / "done.json", {"files": ["report.html", "results.csv"]})
        print(f"{told}: finished in {time.monotonic() - started:.0f} s", file=sys.stderr)
        jax.clear_caches()  # no other cell runs the programs of this one
    table = where / "results.csv"
    write_atomically(table, _table(swept, runs).encode())
    if failed:
        told = f"{len(failed)} of {len(cells)} cells failed; {table} has the others"
        raise FloatingPointError("\n  ".join([told, *failed]))
    return table


def _words(row: dict[str, Any]) -> str:
    return ", ".join(f"{path}={_text(value)}" for path, value in row.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(swept: list[dict[str, Any]], runs: list[pathlib.Path]) -> str:
    """The results of the finished runs under one another."""
    out = io.StringIO()
    writer: Any = None
    for row, run in zip(swept, runs):
        if not files.is_done(run):
            continue
        lead = {"run": run.name, **{f"sweep.{path}": _text(value) for path, value in row.items()}}
        with (run / "results.csv").open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if writer is None:
                writer = csv.DictWriter(out, [*lead, *(reader.fieldnames or ())], lineterminator="\n")
                writer.writeheader()
            writer.writerows({**lead, **result} for result in reader)
    return out.getvalue()
