"""Reading a sweep's folder: its table, and the run folders of its cells."""

import csv
import io
import json
import math
import pathlib
import re
from typing import NamedTuple

from jaxmia.report.folder import Run, Table, read, read_tables
from jaxmia.report.objects import existing, read_object

__all__ = ["ROLES", "Setting", "Sweep", "is_sweep", "number_in", "read_sweep"]

ROLES = ("target", "adversary", "judge", "speed")
"""Whose choice a section is: the defender's, the adversary's, of who measures, or of who runs
it."""
_RUN = re.compile("[0-9a-f]{12}")
_ENDS = ("value", "low", "high")
_NEEDED = ("run", "cell", "state", "metric", *_ENDS)


class Setting(NamedTuple):
    """One cell of the sweep.

    Attributes:
      name: of its run folder.
      values: by swept path, as text; empty where the table does not have the cell.
      rung: of successive halving; None without.
      run: what its folder holds; None while it is unfinished.
    """

    name: str
    values: dict[str, str]
    rung: int | None
    run: Run | None


class Sweep(NamedTuple):
    """A sweep's folder.

    Attributes:
      folder: where it is.
      paths: what is swept, in the table's order, with the role of its section: whose choice it is.
      settings: the cells, in the table's order; those that it lacks come last.
      left_out: finished run folders that the table does not have.
      header, rows: the table as text.
      tables: further ones.
    """

    folder: pathlib.Path
    paths: dict[str, str]
    settings: list[Setting]
    left_out: list[str]
    header: list[str]
    rows: list[list[str]]
    tables: list[Table]


def is_sweep(folder: pathlib.Path) -> bool:
    """Whether a folder is that of a sweep: no run folder itself, it holds such, or a table of them."""
    if any((folder / name).exists() for name in ("config.yaml", "config.sha256", "environment.json", "cells")):
        return False
    table = folder / "results.csv"
    if table.is_file() and table.read_bytes()[:4] == b"run,":
        return True
    return folder.is_dir() and any(path.is_dir() and _RUN.fullmatch(path.name) for path in folder.iterdir())


def number_in(text: str) -> float | None:
    """The finite number that a swept value is, if it is one.

    >>> number_in("5"), number_in("1e-3"), number_in("true"), number_in("softmax")
    (5.0, 0.001, None, None)
    """
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return float(value) if isinstance(value, int | float) and type(value) is not bool and math.isfinite(value) else None


def read_sweep(folder: pathlib.Path) -> Sweep:
    """Read a sweep's folder of the layout in `jaxmia.report`.

    Raises:
      FileNotFoundError: no such folder, or a required file is missing.
      ValueError: a file is damaged, or the table does not say what the run folders say; the message names the file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such sweep folder")
    table = existing(folder / "results.csv")
    header, rows = _table(table)
    by_run: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in enumerate(rows, start=2):
        fields = dict(zip(header, row))
        if not _RUN.fullmatch(fields["run"]):
            raise ValueError(f"{table}: row {line}: run is {fields['run']!r}; legal are 12 digits of a cell's digest")
        by_run.setdefault(fields["run"], []).append((line, fields))
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and _RUN.fullmatch(path.name))
    missing = [name for name in folders if name not in by_run]
    left_out = [name for name in missing if _is_done(folder / name)]
    if left_out and not rows:
        raise ValueError(f"{table}: holds no rows, but {folder / left_out[0]} is finished; sweep again to make it anew")
    settings = [_setting(table, folder / name, lines) for name, lines in by_run.items()]
    settings += [Setting(name, {}, None, None) for name in missing if name not in left_out]
    paths = _roles(folder / "sweep.json", [name.removeprefix("sweep.") for name in header if name.startswith("sweep.")])
    return Sweep(folder, paths, settings, left_out, header, rows, read_tables(folder))


def _roles(path: pathlib.Path, swept: list[str]) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; sweep again to make it anew")
    roles = read_object(path).inner("roles")
    return {name: roles.one_of(name, ROLES) for name in swept}


def _is_done(run: pathlib.Path) -> bool:
    return (run / "done.json").exists()


def _table(path: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged, not CSV: {error}") from None
    if not lines:  # as a sweep leaves it when no cell has finished
        return [*_NEEDED], []
    header, *rows = lines
    lacks = [name for name in _NEEDED if name not in header]
    if lacks or len(set(header)) < len(header):
        raise ValueError(f"{path}: damaged: " + (f"lacks column {lacks[0]}" if lacks else "a column is there twice"))
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path}: damaged: row {line} has {len(row)} fields; the header has {len(header)}")
    return header, rows


def _setting(table: pathlib.Path, where: pathlib.Path, lines: list[tuple[int, dict[str, str]]]) -> Setting:
    first = lines[0][1]
    lead = {name: text for name, text in first.items() if name.startswith("sweep.") or name == "rung"}
    for line, fields in lines:
        for name in lead:
            if fields[name] != lead[name]:
                said = f"{name} of run {where.name} is {fields[name]!r}, above it is {lead[name]!r}"
                raise ValueError(f"{table}: row {line}: {said}")
    rung = lead.pop("rung", None)
    if rung and not rung.isdecimal():
        raise ValueError(f"{table}: row {lines[0][0]}: rung is {rung!r}; legal is a whole number from 0")
    if not where.is_dir() and any(fields["state"] == "finished" for _, fields in lines):
        raise FileNotFoundError(f"{where}: no such run folder; {table} has its results")
    run = None
    if _is_done(where):
        existing(where / "report.html")
        run = read(where, arrays=False)
        _compare(table, lines, run)
    values = {name.removeprefix("sweep."): text for name, text in lead.items()}
    return Setting(where.name, values, int(rung) if rung else None, run)


def _compare(table: pathlib.Path, lines: list[tuple[int, dict[str, str]]], run: Run) -> None:
    """The table must say what the cells say: it may be older than a run that was evaluated again."""
    held = {(cell.name, name): m for cell in run.cells for name, m in cell.metrics.items()}
    for line, fields in lines:
        if fields["metric"] == "":  # a cell without metrics, or an unfinished one
            continue
        measured = held.pop((fields["cell"], fields["metric"]), None)
        if measured is None or [number_in(fields[name]) for name in _ENDS] != [getattr(measured, n) for n in _ENDS]:
            said = f"{fields['metric']} of {fields['cell']} is not what {run.folder} holds"
            raise ValueError(f"{table}: row {line}: {said}; sweep again to make the table anew")
    if held:
        cell, metric = next(iter(held))
        raise ValueError(f"{table}: lacks {metric} of {cell} in {run.folder}; sweep again to make it anew")
