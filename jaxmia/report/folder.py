"""Reading a run folder; what is damaged or contradictory raises an error that names the file."""

import contextlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmia.report.arrays import check_images, read_arrays
from jaxmia.report.objects import Object, existing, read_object, read_objects

__all__ = ["ACCESS", "PICTURED", "Cell", "Measured", "Run", "Table", "Target", "Truth", "read", "read_tables"]

ACCESS = ("NONE", "LABELS", "SCORES", "WEIGHTS")
PICTURED = 10  # classes per picture grid: the first ones, never chosen by result


class Measured(NamedTuple):
    """A metric with its interval, as `metrics.Estimate` plus how to show it."""

    value: float
    low: float
    high: float
    n: int
    groups: int | None
    confidence: float
    method: str
    unit: str
    stronger: str


class Target(NamedTuple):
    """One target model, as in targets.json."""

    name: str
    dataset: str
    architecture: str
    test_accuracy: Measured | None
    defense: str
    granted: str
    parameters: float | None
    seconds: float | None
    digest: str


class Truth(NamedTuple):
    """What was private, by class: pictures `[k, h, w, c]` in [0, 1] and names."""

    private: Float[np.ndarray, "k h w c"]
    names: list[str]
    nearest_public: Float[np.ndarray, "k h w c"] | None


class Cell(NamedTuple):
    """One finished cell.

    Attributes:
      name: of its folder.
      success, targets: per candidate; None where the cell shows no pictures.
      pictures, nearest_public: the first candidate of each of the lowest classes, by class.
      The rest is as in cell.json.
    """

    name: str
    attack: str
    label: str
    target: str
    seed: int
    control: bool
    card: dict[str, Any]
    hyperparameters: dict[str, Any]
    n: int
    seconds: float
    queries: dict[str, float] | None
    status: dict[str, int]
    metrics: dict[str, Measured]
    headline: str | None
    curve: dict[str, list[float]]
    success: Bool[np.ndarray, " n"] | None
    targets: Int[np.ndarray, " n"] | None
    pictures: dict[int, np.ndarray]
    nearest_public: dict[int, np.ndarray]
    environment: dict[str, Any]
    exhibits: list[dict[str, Any]]


class Table(NamedTuple):
    """A further table; an item is text, a number, a boolean, None or `Measured`."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str
    controls: list[int]
    verdict: dict[str, Any] | None


class Run(NamedTuple):
    """Everything that a page shows; cells by target, controls after attacks, then by folder."""

    folder: pathlib.Path
    config: str
    environment: dict[str, Any]
    targets: dict[str, Target]
    truth: Truth | None
    cells: list[Cell]
    unfinished: list[str]
    tables: list[Table]


def read(folder: pathlib.Path, arrays: bool = True) -> Run:
    """Read a run folder of the layout in `jaxmia.report`; without `arrays` its JSON alone, no pictures.

    Raises:
      FileNotFoundError: no such folder, or a required file is missing.
      ValueError: a file is damaged, or does not fit the others; the message names it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder")
    if not any((folder / name).exists() for name in ("config.yaml", "environment.json", "cells")):
        computed = (folder / "run.json").exists() or (folder / "solve").exists()
        found = "what jaxmia.run computed, whose result is what it returns" if computed else "no run"
        raise FileNotFoundError(f"{folder}: holds {found}; pages are made of the run folders of `jaxmia attack`")
    with _cured_by("the command that made the run writes it anew"):
        return _read(folder, arrays)


@contextlib.contextmanager
def _cured_by(remedy: str) -> Iterator[None]:
    """What is missing or damaged is told with what mends it; the innermost knows best."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        if hasattr(error, "__notes__"):
            raise
        cured = (FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError)(f"{error}; {remedy}")
        cured.add_note(remedy)
        raise cured from None


def _read(folder: pathlib.Path, arrays: bool) -> Run:
    environment = read_object(folder / "environment.json")
    environment.text("command")
    targets = {}
    for entry in read_objects(folder / "targets.json"):
        target = _target(entry)
        if target.name in targets:
            raise ValueError(f"{entry.where}: name {target.name!r} is given twice")
        targets[target.name] = target
    truth = _truth(folder / "truth.npz") if arrays and (folder / "truth.npz").exists() else None
    if not (folder / "cells").is_dir():
        raise FileNotFoundError(f"{folder / 'cells'}: missing; a run folder has one folder per cell there")
    folders = sorted(path for path in (folder / "cells").iterdir() if path.is_dir())
    cells = [_cell(path, targets, truth, arrays) for path in folders if (path / "done.json").exists()]
    order = list(targets)
    return Run(
        folder,
        _text(existing(folder / "config.yaml")),
        _environment(environment.values, cells),
        targets,
        truth,
        sorted(cells, key=lambda cell: (order.index(cell.target), cell.control)),
        [path.name for path in folders if not (path / "done.json").exists()],
        read_tables(folder),
    )


def read_tables(folder: pathlib.Path) -> list[Table]:
    """The further tables of a folder, none where it has no tables.json."""
    path = folder / "tables.json"
    return [_table(entry) for entry in read_objects(path)] if path.exists() else []


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: damaged, no text: {error}") from None


def _environment(written: dict[str, Any], cells: list[Cell]) -> dict[str, Any]:
    """What the cells were made in, all values of what they differ in; what they do not say as it was written."""
    found: dict[str, list[Any]] = {}
    for cell in cells:
        for name, value in cell.environment.items():
            values = found.setdefault(name, [])
            values += [value] * (value not in values)
    made = {name: values[0] if len(values) == 1 else "; ".join(map(str, values)) for name, values in found.items()}
    return {**written, **made}


def _measured(entry: Object) -> Measured:
    optional = {"groups": None, "unit": "", "stronger": "higher"} | entry.values
    value, low, high = (entry.number(name) for name in ("value", "low", "high"))
    if not low <= high:
        raise ValueError(f"{entry.where}: low {low} is above high {high}")
    if optional["stronger"] not in ("higher", "lower"):
        raise ValueError(f"{entry.where}: stronger is {optional['stronger']!r}; legal is 'higher' or 'lower'")
    n, confidence, method = entry.whole("n"), entry.number("confidence"), entry.text("method")
    return Measured(
        value, low, high, n, optional["groups"], confidence, method, str(optional["unit"]), optional["stronger"]
    )


def _target(entry: Object) -> Target:
    accuracy = entry.field("test_accuracy", dict | None, "an estimate or null")
    return Target(
        entry.text("name"),
        entry.text("dataset"),
        entry.text("architecture"),
        None if accuracy is None else _measured(entry.inner("test_accuracy")),
        entry.text("defense"),
        entry.one_of("granted", ACCESS),
        entry.maybe("parameters"),
        entry.maybe("seconds"),
        entry.text("digest") if "digest" in entry.values else "",
    )


def _table(entry: Object) -> Table:
    def item(value: Any) -> Any:
        if isinstance(value, dict):
            return _measured(Object(f"{entry.where}: rows", value))
        if isinstance(value, list):
            raise ValueError(f"{entry.where}: rows hold {value!r}; legal is text, a number, null or an estimate")
        return value

    columns, rows = entry.field("columns", list, "a list"), entry.field("rows", list, "a list of lists")
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError(f"{entry.where}: row {i} is {row!r}; legal is a list of {len(columns)}")
    rows = [[item(value) for value in row] for row in rows]
    return Table(
        entry.text("title"), columns, rows, str(entry.values.get("note", "")), entry.values.get("controls", []),
        _verdict(entry.inner("verdict")) if "verdict" in entry.values else None,
    )  # fmt: skip


def _verdict(entry: Object) -> dict[str, Any]:
    leaks = entry.values.get("leaks")
    if leaks not in (True, False, None):
        raise ValueError(f"{entry.where}: leaks is {leaks!r}; legal is true, false or null")
    return {"leaks": leaks, "text": entry.text("text")}


def _cell(folder: pathlib.Path, targets: dict[str, Target], truth: Truth | None, arrays: bool) -> Cell:
    with _cured_by(f"delete the folder {folder}, and `jaxmia attack` makes it anew"):
        return _read_cell(folder, targets, truth, arrays)


def _read_cell(folder: pathlib.Path, targets: dict[str, Target], truth: Truth | None, arrays: bool) -> Cell:
    path = folder / "cell.json"
    entry = read_object(path)
    card = entry.inner("card")
    for name in ("title", "paper", "url", "modality", "recovers", "knows"):
        card.text(name)
    card.whole("year")
    card.one_of("access", ACCESS)
    if entry.text("target") not in targets:
        known = ", ".join(targets) or "none"
        raise ValueError(f"{path}: target {entry.text('target')!r} is not in targets.json, which has {known}")
    queries = entry.field("queries", dict | None, "an object with mean, max and training, or null")
    if queries is not None:
        queries = {name: entry.inner("queries").number(name) for name in ("mean", "max", "training")}
    values = entry.inner("metrics")
    metrics = {name: _measured(values.inner(name)) for name in values.values}
    headline = entry.values.get("headline", next(iter(metrics), None))
    if metrics and headline not in metrics:
        raise ValueError(f"{path}: headline is {headline!r}; legal is one of its metrics: {', '.join(metrics)}")
    n, status = entry.whole("n"), entry.inner("status")
    if sum(status.whole(name) for name in status.values) != n:
        raise ValueError(f"{path}: status {status.values} does not add up to n = {n}")
    rows: Any = (None, None, {}, {})
    exhibits = _exhibits(entry)
    if arrays and any(exhibit.text("kind") == "pictures" for exhibit in exhibits):
        rows = _candidates(folder / "candidates.npz", n, truth)
    return Cell(
        folder.name, entry.text("attack"), entry.text("label"), entry.text("target"), entry.whole("seed"),
        entry.field("control", bool, "true or false"), card.values, entry.inner("hyperparameters").values, n,
        entry.number("seconds"), queries, status.values, metrics, headline, _curve(entry), *rows,
        environment=entry.inner("environment").values if "environment" in entry.values else {},
        exhibits=[exhibit.values for exhibit in exhibits],
    )  # fmt: skip


def _exhibits(entry: Object) -> list[Object]:
    found = entry.field("exhibits", list, "a list of objects, each with its kind")
    exhibits = [Object(f"{entry.where}: exhibits", exhibit) for exhibit in found]
    for exhibit in exhibits:
        exhibit.text("kind")
    return exhibits


def _curve(entry: Object) -> dict[str, list[float]]:
    series = entry.inner("curve").values if entry.values.get("curve") is not None else {}
    for name, values in series.items():
        numbers = isinstance(values, list) and all(isinstance(v, int | float) and math.isfinite(v) for v in values)
        if not numbers or len(values) != len(next(iter(series.values()))):
            raise ValueError(f"{entry.where}: curve {name!r}; legal are finite numbers, as many in every curve")
    return {name: [float(v) for v in values] for name, values in series.items()}


def _candidates(path: pathlib.Path, n: int, truth: Truth | None) -> tuple:
    """success, targets, and the first candidate and its nearest public image of each of the lowest classes."""
    arrays = read_arrays(path, ["targets", "case_ids", "success", "candidates"], ["nearest_public"])
    for name, array in arrays.items():
        if len(array) != n:
            raise ValueError(f"{path}: {name} has {len(array)} rows; cell.json says n = {n}")
    targets, success = arrays["targets"], arrays["success"]
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer) or (n and targets.min() < 0):
        raise ValueError(f"{path}: targets is {targets.dtype} {targets.shape}; legal are class indices [n]")
    if success.shape != (n,) or success.dtype != bool:
        raise ValueError(f"{path}: success is {success.dtype} {success.shape}; legal is bool [n]")
    if len(np.unique(arrays["case_ids"])) != n:
        raise ValueError(f"{path}: case_ids repeat; legal are distinct ids")
    if truth is not None and n and targets.max() >= len(truth.names):
        raise ValueError(f"{path}: targets has class {targets.max()}; truth.npz has {len(truth.names)} classes")
    classes, first = np.unique(targets, return_index=True)
    pictures = [{}, {}]
    for kept, name in zip(pictures, ("candidates", "nearest_public")):
        if name in arrays:
            check_images(path, name, arrays[name])
            kept |= {int(c): arrays[name][row].copy() for c, row in zip(classes[:PICTURED], first)}
    return success, targets, *pictures


def _truth(path: pathlib.Path) -> Truth:
    arrays = read_arrays(path, ["private", "names"], ["nearest_public"])
    names = [str(name) for name in arrays["names"]]
    for name in ("private", "nearest_public"):
        if name in arrays:
            check_images(path, name, arrays[name])
            if len(arrays[name]) != len(names):
                raise ValueError(f"{path}: {name} has {len(arrays[name])} rows, names has {len(names)}")
    return Truth(arrays["private"], names, arrays.get("nearest_public"))
