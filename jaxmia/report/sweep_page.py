"""From a sweep's folder to one HTML page over all its cells."""

import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jaxmia.report import sweep_numbers as numbers
from jaxmia.report import sweep_panels as panels
from jaxmia.report import tables
from jaxmia.report.folder import Cell, Run
from jaxmia.report.page import build, count, further, render, threat
from jaxmia.report.parquet import write_parquet
from jaxmia.report.sweep_folder import Setting, Sweep, is_sweep, read_sweep
from jaxmia.report.sweep_numbers import Entry, Pooled
from jaxmia.report.writing import write

__all__ = ["build_any", "build_sweep"]

_OF_A_RUN = (
    "command",
    "title",
    "date",
    "seconds",
    "evaluated",
    "warning",
)  # in environment.json, and not the machine's


def build_any(folder: str | os.PathLike, pictures: bool = True) -> pathlib.Path:
    """The page of a run folder, as `build`, or of a sweep's folder, as `build_sweep`.

    Raises:
      ValueError: also where pictures are to be left out of a sweep: its page has none, those of its cells have.
    """
    where = pathlib.Path(folder).expanduser()
    if not is_sweep(where):
        return build(where, pictures)
    if not pictures:
        raise ValueError(f"--no-pictures: {where} is a sweep, whose page has none; legal is one of its run folders")
    return build_sweep(where)


def build_sweep(folder: str | os.PathLike) -> pathlib.Path:
    """Write `report.html` into a sweep's folder, whose layout `jaxmia.report` describes.

    Where pyarrow is installed also `results.parquet`, the rows of `results.csv` with typed columns. The same folder
    gives the same bytes. The page holds its figures and style, no script, and no links but those to the papers and to
    the pages of the cells.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: the folder or a required file is missing.
      ValueError: a file is damaged or does not fit the others; the message names it.
    """
    sweep = read_sweep(pathlib.Path(folder).expanduser())
    text = render("sweep", _content(sweep))
    write_parquet(sweep.folder / "results.parquet", sweep.header, sweep.rows)
    write(sweep.folder / "report.html", text)
    return sweep.folder / "report.html"


def _content(sweep: Sweep) -> dict[str, Any]:
    runs = [setting.run for setting in sweep.settings if setting.run is not None]
    cells = [cell for run in runs for cell in run.cells]
    methods = (
        {cell.metrics[name].method: cell.metrics[name].confidence for cell in cells if (name := cell.headline)}
        if cells
        else {}
    )
    return {
        "title": f"Model inversion sweep: {sweep.folder.resolve().name}",
        "summary": _summary(sweep, cells),
        "warnings": list(dict.fromkeys(text for run in runs if (text := run.environment.get("warning")))),
        "strongest": _strongest(sweep),
        "unfinished": [_titled(setting) for setting in sweep.settings if setting.run is None],
        "finished": len(runs),
        "left_out": sweep.left_out,
        "threats": [threat(row) for row in tables.threats(cells)],
        "tradeoffs": panels.tradeoffs(sweep),
        "curves": panels.curves(sweep),
        "heats": panels.heat_maps(sweep),
        "tables": further(sweep.tables),
        "rungs": _rungs(sweep),
        "table": _table(sweep),
        "intervals": " ".join(f"{100 * confidence:g} %: {name}." for name, confidence in methods.items()),
        "commands": list(dict.fromkeys(run.environment["command"] for run in runs)),
        "environment": _environment(runs),
    }


def _titled(setting: Setting) -> str:
    """A cell's folder with its values, where they are known."""
    return f"{setting.name} ({panels.spelled(setting.values)})" if setting.values else setting.name


def _summary(sweep: Sweep, cells: Sequence[Cell]) -> str:
    parts = [
        count(len(sweep.settings), "cell"),
        count(len({cell.label for cell in cells if not cell.control}), "attack"),
        count(len({cell.label for cell in cells if cell.control}), "control"),
        count(len({cell.target for cell in cells}), "target"),
        "swept: " + ", ".join(sweep.paths),
    ]
    return " · ".join(parts[: None if sweep.paths else -1])


def _strongest(sweep: Sweep) -> list[str]:
    """A sentence per headline metric: the strongest attack of all settings, beside the strongest control."""
    finished = [setting for setting in sweep.settings if setting.run is not None]
    free = numbers.varying(sweep.paths, finished)
    ranked: dict[tuple[str, bool], dict[tuple, list[Entry]]] = {}
    for entry in numbers.entries(finished):
        values = tuple((path, entry.setting.values[path]) for path in free)
        rows = ranked.setdefault((entry.metric, entry.cell.control), {})
        rows.setdefault((entry.cell.label, entry.cell.target, values, entry.setting.rung), []).append(entry)
    out = []
    for metric in dict.fromkeys(metric for metric, control in ranked if not control):
        told = []
        for rows in (ranked[metric, False], ranked.get((metric, True), {})):
            pools = {key: numbers.pooled([(e.cell.seed, e.measured) for e in members]) for key, members in rows.items()}
            if pools:
                best = max(pools, key=lambda key: tables.strength(pools[key].measured))
                told.append((best, pools[best], len(pools)))
        (label, target, values, _), reached, n = told[0]
        at = f" at {panels.spelled(dict(values))}" if values else ""
        text = f"{label} on {target}{at}"
        if n > 1:
            text = f"The strongest of {n} attacks on targets in settings, {text},"
        text = f"{text} reaches {tables.worded(metric)} {_with_interval(reached)}"
        if len(told) == 1:
            out.append(f"{text}. No control was run, so chance is not excluded.")
            continue
        (label, target, *_), floor, n = told[1]
        text += f", against {_with_interval(floor)} by the strongest of {n} controls, {label} on {target}."
        out.append(f"{text} Both were picked as the largest, so both are optimistic.")
    return out


def _with_interval(one: Pooled) -> str:
    parts = numbers.shown(one)
    return f"{parts['value']} {parts['interval']} ({parts['n']})"


def _table(sweep: Sweep) -> dict[str, Any]:
    """One row per cell and target, one column per attack and headline metric; controls last."""
    entries = sorted(numbers.entries(sweep.settings), key=lambda entry: entry.cell.control)
    columns = list(dict.fromkeys((entry.cell.label, entry.cell.control, entry.metric) for entry in entries))
    metrics = {entry.metric: entry.measured.stronger for entry in entries}
    arrows = {name: tables.worded(name) + (" ↓" if way == "lower" else " ↑") for name, way in metrics.items()}
    found: dict[tuple, list[tuple[int, Any]]] = {}
    for entry in entries:
        key = (entry.setting.name, entry.cell.target, entry.cell.label, entry.cell.control, entry.metric)
        found.setdefault(key, []).append((entry.cell.seed, entry.measured))
    cells = []
    for setting in sweep.settings:
        rows = []
        for name in setting.run.targets if setting.run else ():
            parts = [found.get((setting.name, name, *column)) for column in columns]
            rows.append(
                {
                    "target": tables.titled(setting.run, name) if setting.run else name,
                    "control": not any(part and not control for part, (_, control, _) in zip(parts, columns)),
                    "accuracy": tables.item(setting.run.targets[name].test_accuracy) if setting.run else None,
                    "entries": [numbers.shown(numbers.pooled(part)) if part else "" for part in parts],
                }
            )
        values = [setting.values.get(path, "–") for path in sweep.paths]
        cells.append({"name": setting.name, "paths": values, "rows": rows})
    heads = [
        {"label": label, "control": control, "metric": arrows[metric] if len(metrics) > 1 else ""}
        for label, control, metric in columns
    ]
    told = f"Under each attack: {', '.join(arrows.values())}." if arrows else ""
    return {"paths": sweep.paths, "columns": heads, "cells": cells, "metrics": told}


def _rungs(sweep: Sweep) -> dict[str, Any] | None:
    """Who survived which rung; None without successive halving."""
    settings = [setting for setting in sweep.settings if setting.rung is not None]
    rungs = sorted({setting.rung for setting in settings if setting.rung is not None})
    if not rungs:
        return None
    by_rung = {rung: [setting for setting in settings if setting.rung == rung] for rung in rungs}
    free = [path for path in sweep.paths if len({setting.values[path] for setting in settings}) > 1]
    budgets = [p for p in free if all(len({s.values[p] for s in members}) == 1 for members in by_rung.values())]
    by_values: dict[tuple[str, ...], dict[int, Setting]] = {}
    for setting in settings:
        values = tuple(setting.values[path] for path in free if path not in budgets)
        by_values.setdefault(values, {})[setting.rung or 0] = setting
    columns = []
    for rung in rungs:
        budget = panels.spelled({path: by_rung[rung][0].values[path] for path in budgets})
        columns.append(f"rung {rung}" + f": {budget}" * bool(budget))
    names = [path for path in free if path not in budgets]
    ranked = [(max(reached), _best(reached[max(reached)]), values, reached) for values, reached in by_values.items()]
    ranked.sort(key=lambda row: (-row[0], -tables.strength(row[1].measured) if row[1] else float("inf")))
    rows = [
        {
            "setting": panels.spelled(dict(zip(names, values))) or "–",
            "entries": [_rung_entry(reached.get(rung)) for rung in rungs],
            "last": last == rungs[-1],
            "reached": "the last rung" if last == rungs[-1] else f"rung {last}",
        }
        for last, _, values, reached in ranked
    ]
    told = ", ".join(f"{len(members)} at rung {rung}" for rung, members in by_rung.items())
    return {"columns": columns, "rows": rows, "told": f"In the table: {told}."}


def _best(setting: Setting) -> Entry | None:
    attacks = [entry for entry in numbers.entries([setting]) if not entry.cell.control]
    return max(attacks, key=lambda entry: tables.strength(entry.measured), default=None)


def _rung_entry(setting: Setting | None) -> Any:
    if setting is None:
        return ""
    if setting.run is None:
        return "unfinished"
    best = _best(setting)
    return tables.estimate(best.measured) if best else "–"


def _environment(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Where the cells ran; what differs between them is counted."""
    names = dict.fromkeys(name for run in runs for name in run.environment if name not in _OF_A_RUN)
    out = []
    for name in names:
        values = Counter(str(run.environment.get(name, "–")) for run in runs)
        told = values if len(values) == 1 else [f"{value} ({count(n, 'cell')})" for value, n in values.items()]
        out.append((name.replace("_", " "), " · ".join(told)))
    return out
