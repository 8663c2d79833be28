"""From two or more run folders to one HTML page that has them side by side, and to a table for a terminal."""

import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import yaml

from jaxmia.report import figures, tables
from jaxmia.report.folder import Cell, Measured, Run, read
from jaxmia.report.page import count, render
from jaxmia.report.provenance import Provenance, provenance
from jaxmia.report.sweep_folder import is_sweep
from jaxmia.report.sweep_numbers import Pooled, pooled, shown
from jaxmia.report.writing import write

__all__ = ["Compared", "Difference", "Row", "build_comparison", "compared", "difference", "listed"]


class Difference(NamedTuple):
    """A value of a run less that of the first one, with its interval.

    `leaks` is 1 where the interval is apart from 0 on the side of a stronger attack, -1 on the other, else 0.
    """

    value: float
    low: float
    high: float
    leaks: int


class Row(NamedTuple):
    """One attack on one target in one metric.

    Attributes:
      target: its name; "" where every run has one target alone.
      label, access: of the attack.
      control: whether nothing can be recovered there.
      metric: its name.
      headline: whether it tells how much is recovered.
      found: by run, the mean over its seeds; None where it has no such cell or metric.
      differences: of every run but the first; None where there is nothing to take it of.
    """

    target: str
    label: str
    access: str
    control: bool
    metric: str
    headline: bool
    found: list[Pooled | None]
    differences: list[Difference | None]


class Compared(NamedTuple):
    """Runs side by side.

    Attributes:
      names: of the runs, distinct.
      runs: as read, without arrays.
      made: of what.
      alike: by run, whether its private data are those of the first; None where one of them does not say.
      rows: attacks before controls, headlines first.
      warnings: what a reader must know first, in sentences.
    """

    names: list[str]
    runs: list[Run]
    made: list[Provenance]
    alike: list[bool | None]
    rows: list[Row]
    warnings: list[str]


def build_comparison(folders: Sequence[str | os.PathLike], out: str | os.PathLike) -> tuple[pathlib.Path, Compared]:
    """Write the page of two or more runs of one modality, judged by the same metrics. It holds no pictures.

    Args:
      folders: of the runs; differences are taken to the first.
      out: the file of the page.

    Returns:
      The path of the page, and what is on it, for `listed`.

    Raises:
      FileNotFoundError: a folder or a required file is missing.
      ValueError: the runs cannot be compared, or a file is damaged.
      OSError: the page cannot be written.
    """
    path = pathlib.Path(out).expanduser()
    if path.is_dir():
        raise ValueError(f"--out: {path}; legal is a file")
    found = compared(folders)
    write(path, render("compare", _content(found)))
    return path, found


def compared(folders: Sequence[str | os.PathLike]) -> Compared:
    """Read runs and put what is alike side by side; errors as in `build_comparison`."""
    paths = [pathlib.Path(folder).expanduser() for folder in folders]
    if len({path.resolve() for path in paths}) < max(len(paths), 2):
        raise ValueError(f"runs: {', '.join(map(str, paths))}; legal are two or more, each once")
    for path in paths:
        if is_sweep(path):
            raise ValueError(f"{path}: is a sweep, whose page compares its runs; legal is a run folder")
    runs = [read(path, arrays=False) for path in paths]
    last = [path.resolve().name for path in paths]
    names = last if len(set(last)) == len(last) else [str(path) for path in paths]
    _refuse_others(names, runs)
    made = [provenance(run) for run in runs]
    alike = [one.private == made[0].private if one.private and made[0].private else None for one in made]
    found = Compared(names, runs, made, alike, _rows(runs, alike), [])
    return found._replace(warnings=list(_warnings(found)))


def _refuse_others(names: list[str], runs: list[Run]) -> None:
    """Refuse runs that share no scale, with one sentence."""

    def alike(what: str, of: Callable[[Run], Any]) -> None:
        found = [of(run) for run in runs]
        for name, one in zip(names, found):
            if one != found[0]:
                raise ValueError(
                    f"{what}: {', '.join(found[0])} in {names[0]}, {', '.join(one)} in {name}; legal are runs that agree"
                )

    for name, run in zip(names, runs):
        if not any(cell.headline for cell in run.cells if not cell.control):
            raise ValueError(f"{name}: no attack has finished with a metric; legal are runs that have one")
    alike("modality", lambda run: sorted({cell.card["modality"] for cell in run.cells if not cell.control}))
    alike("metrics", lambda run: sorted({cell.headline or "" for cell in run.cells if not cell.control} - {""}))
    scales: dict[str, tuple[str, tuple]] = {}
    for name, run in zip(names, runs):
        for metric, m in ((metric, m) for cell in run.cells for metric, m in cell.metrics.items()):
            scale = m.unit, m.stronger, m.confidence
            other, first = scales.setdefault(metric, (name, scale))
            if scale != first:
                told = " and ".join(f"{dict(zip(('unit', 'stronger', 'confidence'), s))}" for s in (first, scale))
                raise ValueError(f"metrics: {metric} has {told} in {other} and {name}; legal are runs that agree")


def _attacked(run: Run) -> list[str]:
    """Names of the targets that are no controls."""
    return [name for name in run.targets if any(c.target == name and not c.control for c in run.cells)]


def _rows(runs: list[Run], alike: list[bool | None]) -> list[Row]:
    single = all(len(_attacked(run)) == 1 for run in runs)  # whatever its name: a version, or a defense
    cells: dict[tuple[bool, str, str], list[list[Cell]]] = {}
    for i, run in enumerate(runs):
        for cell in run.cells:
            key = cell.control, "" if single else cell.target, cell.label
            cells.setdefault(key, [[] for _ in runs])[i].append(cell)
    out = []
    for (control, target, label), members in sorted(cells.items(), key=lambda item: item[0][0]):
        every = [cell for one in members for cell in one]
        headlines = {cell.headline for cell in every}
        metrics = dict.fromkeys(name for cell in every for name in cell.metrics)
        for metric in sorted(metrics, key=lambda name: name not in headlines):
            found = [_mean(one, metric) for one in members]
            differences = [
                difference(found[0].measured, other.measured) if found[0] and other and same else None
                for other, same in zip(found[1:], alike[1:])
            ]
            access = every[0].card["access"]
            out.append(Row(target, label, access, control, metric, metric in headlines, found, differences))
    if not any(sum(one is not None for one in row.found) > 1 for row in out if not row.control):
        raise ValueError("runs: no attack is in two of them on a target of one name; legal are runs that share one")
    return out


def _mean(cells: list[Cell], metric: str) -> Pooled | None:
    parts = [(cell.seed, cell.metrics[metric]) for cell in cells if metric in cell.metrics]
    return pooled(parts) if parts else None


def difference(first: Measured, other: Measured) -> Difference:
    """The second value less the first, with an interval of the same confidence from the intervals of both.

    It is that of Zou and Donner (2008), square-and-add, for independent values; Newcombe's (1998) for two Wilson
    intervals. Values of the same cases in two runs move together, which makes it wider than it need be.

    >>> one = Measured(0.8, 0.7, 0.9, 10, None, 0.95, "bootstrap", "share", "higher")
    >>> difference(one, one._replace(value=0.2, low=0.1, high=0.3)).leaks
    -1
    """
    value = other.value - first.value
    low = value - math.hypot(other.value - other.low, first.high - first.value)
    high = value + math.hypot(other.high - other.value, first.value - first.low)
    side = (low > 0) - (high < 0)
    return Difference(value, low, high, side if first.stronger == "higher" else -side)


def _spelled(one: Difference, m: Measured) -> tuple[str, str]:
    """The value with sign and unit, shares in points of percent, and the interval."""
    times, unit = (100, "points") if m.unit == "share" else (1, m.unit)
    value, low, high = (f"{'+' * (x > 0)}{tables.number(times * x)}" for x in one[:3])
    return value + (f"\u00a0{unit}" if unit else ""), f"[{low},\u00a0{high}]"


_LEAKS = {1: "attack stronger", 0: "not clear", -1: "attack weaker"}


def listed(found: Compared) -> tuple[list[str], Iterator[list[str]]]:
    """Head and rows of the table for a terminal."""
    several = any(row.target for row in found.rows)
    head = ["attack", *["target"] * several, "metric", *found.names]
    head += [f"{name} less {found.names[0]}" for name in found.names[1:]]

    def rows() -> Iterator[list[str]]:
        for row in found.rows:
            entries = [row.label + " (control)" * row.control, *[row.target] * several, row.metric]
            entries += [f"{tables.value(p.measured)} {tables.interval(p.measured)}" if p else "–" for p in row.found]
            for one, m in _with_scale(row):
                entries.append(f"{' '.join(_spelled(one, m))} {_LEAKS[one.leaks]}" if one else "–")
            yield [entry.replace("\u00a0", " ") for entry in entries]

    return head, rows()


def _with_scale(row: Row) -> list[tuple[Any, Measured]]:
    """The differences, each with an estimate in its unit."""
    scale = next(one.measured for one in row.found if one)
    return [(one, scale) for one in row.differences]


def _content(found: Compared) -> dict[str, Any]:
    methods = {p.measured.method: p.measured.confidence for row in found.rows for p in row.found if p}
    return {
        "title": f"Comparison: {', '.join(found.names)}",
        "summary": " · ".join(
            [
                count(len(found.runs), "run"),
                count(len({row.label for row in found.rows if not row.control}), "attack"),
                count(len({row.label for row in found.rows if row.control}), "control"),
            ]
        ),
        "names": found.names,
        "verdicts": list(_verdicts(found)),
        "warnings": found.warnings,
        "overviews": list(_overviews(found)),
        "headlines": [_shown(row) for row in found.rows if row.headline],
        "others": [_shown(row) for row in found.rows if not row.headline],
        "several": any(row.target for row in found.rows),
        "intervals": " ".join(f"{100 * confidence:g} %: {name}." for name, confidence in methods.items()),
        "targets": _targets(found),
        "digests": list(_digests(found)),
        "settings": list(_settings(found)),
        "commands": [run.environment["command"] for run in found.runs],
    }


def _verdicts(found: Compared) -> Iterator[str]:
    """A sentence on each run but the first: how many attacks do worse in it."""
    for i, name in enumerate(found.names[1:]):
        rows = [row for row in found.rows if row.headline and not row.control]
        leaks = [one.leaks for row in rows if (one := row.differences[i])]
        if leaks:
            told = f"{leaks.count(-1)} clearly weaker, {leaks.count(1)} clearly stronger, {leaks.count(0)} not clear"
            yield f"{name} against {found.names[0]}: of {count(len(leaks), 'attack')}, {told}."


def _warnings(found: Compared) -> Iterator[str]:
    first = found.names[0]
    for name, run in zip(found.names, found.runs):
        if run.unfinished:
            yield f"{name}: {', '.join(run.unfinished)}: unfinished, and not in the numbers."
        if run.environment.get("warning"):
            yield f"{name}: {run.environment['warning']}"
    for name, made, alike in zip(found.names[1:], found.made[1:], found.alike[1:]):
        if alike is False:
            yield (
                f"The private data of {name} are not those of {first} (their digests differ). What is recovered of other "
                "data is easier or harder by itself: these runs are not comparable, and no difference is shown."
            )
        elif alike is None:
            yield (
                f"Whether the private data of {name} are those of {first} is not known (a digest is missing). Runs on "
                "other data are not comparable, so no difference is shown."
            )
        elif made.data.get("public") != found.made[0].data.get("public"):
            yield f"The public data of {name} are not those of {first}: its adversary knows other things beforehand."
        if made.evaluators != found.made[0].evaluators:
            yield f"The evaluators of {name} are not those of {first}: a part of each difference may be of who judges."


def _overviews(found: Compared) -> Iterator[dict[str, Any]]:
    """One figure of intervals per headline metric, a group for each attack."""
    for metric in dict.fromkeys(row.metric for row in found.rows if row.headline):
        drawn = []
        for row in (row for row in found.rows if row.headline and row.metric == metric):
            group = row.label + f" on {row.target}" * bool(row.target)
            drawn += [(name, group, row.control, p.measured) for name, p in zip(found.names, row.found) if p]
        direction = "Higher" if drawn[0][3].stronger == "higher" else "Lower"
        name = tables.worded(metric)
        caption = f"{name[:1].upper()}{name[1:]} with intervals. {direction} is a stronger attack; hollow is a control."
        yield {"drawing": figures.intervals(drawn), "caption": caption}


def _shown(row: Row) -> dict[str, Any]:
    """A row as the page shows it."""
    differences = []
    for one, m in _with_scale(row):
        value, interval = _spelled(one, m) if one else ("–", "")
        differences.append({"value": value, "interval": interval, "told": _LEAKS[one.leaks] if one else ""})
    stronger = _with_scale(row)[0][1].stronger
    return {
        "label": row.label,
        "control": row.control,
        "target": row.target,
        "access": tables.sees(row.access)["words"],
        "metric": tables.worded(row.metric) + (" ↓" if stronger == "lower" else " ↑"),
        "entries": [shown(one) if one else "–" for one in row.found],
        "differences": differences,
    }


def _targets(found: Compared) -> list[dict[str, Any]]:
    return [
        {
            "run": name,
            "name": target,
            "architecture": run.targets[target].architecture,
            "dataset": run.targets[target].dataset,
            "defense": run.targets[target].defense or "none",
            "accuracy": tables.item(run.targets[target].test_accuracy),
        }
        for name, run in zip(found.names, found.runs)
        for target in _attacked(run)
    ]


def _digests(found: Compared) -> Iterator[dict[str, Any]]:
    """What the runs were made of, by digest; the first twelve digits tell them apart."""

    def flat(made: Provenance) -> dict[str, str]:
        parts = [("data", made.data), ("model", made.models), ("evaluator", made.evaluators)]
        named = {f"{kind} {name}": digest[:12] for kind, digests in parts for name, digest in digests.items()}
        return {"configuration": made.configuration[:12], **named, **made.versions}

    yield from _side_by_side([flat(made) for made in found.made])


def _settings(found: Compared) -> Iterator[dict[str, Any]]:
    """The settings in which the configurations differ, by dotted path."""
    every = _side_by_side([_flat(run) for run in found.runs])
    yield from (row for row in every if not row["same"])


def _side_by_side(columns: Sequence[dict[str, str]]) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys(name for column in columns for name in column):
        entries = [column.get(name) or "–" for column in columns]
        yield {"name": name, "entries": entries, "same": len(set(entries)) == 1}


def _flat(run: Run) -> dict[str, str]:
    """The configuration of a run as text by dotted path; numbers index lists."""
    try:
        tree = yaml.load(run.config, Loader=yaml.BaseLoader)  # which makes nothing but texts, lists and objects
    except yaml.YAMLError as error:
        raise ValueError(f"{run.folder / 'config.yaml'}: damaged, not YAML: {' '.join(str(error).split())}") from None
    found: dict[str, str] = {}

    def walk(path: str, value: Any) -> None:
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if parts is None:
            found[path] = str(value)
            return
        for key, part in parts:
            walk(f"{path}.{key}" if path else str(key), part)

    walk("", tree)
    return found
