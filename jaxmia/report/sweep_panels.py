"""The figures of a sweep's page and their captions, put together from its cells."""

import itertools
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxmia.report import sweep_figures as figures
from jaxmia.report import sweep_numbers as numbers
from jaxmia.report import tables
from jaxmia.report.sweep_folder import Setting, Sweep
from jaxmia.report.sweep_numbers import Entry, Point, Pooled

__all__ = ["curves", "heat_maps", "spelled", "tradeoffs"]


def spelled(values: dict[str, str]) -> str:
    """Values of swept paths for reading."""
    return ", ".join(f"{path} = {value}" for path, value in values.items())


def _by_metric(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    out: dict[str, list[Entry]] = {}
    for entry in entries:
        out.setdefault(entry.metric, []).append(entry)
    return out


def _grouped(entries: Iterable[Entry]) -> dict[tuple[str, str, bool], list[Entry]]:
    """By (label, target, control), attacks before controls."""
    out: dict[tuple[str, str, bool], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.cell.control):
        out.setdefault((entry.cell.label, entry.cell.target, entry.cell.control), []).append(entry)
    return out


def _direction(entries: Sequence[Entry]) -> str:
    return "Higher" if entries[0].measured.stronger == "higher" else "Lower"


def _rest(sweep: Sweep, settings: Sequence[Setting], axes: Sequence[str], notes: Iterable[str]) -> str:
    """What a point of a figure averages over, at which rung, and what is left out."""
    rest = [path for path in numbers.varying(sweep.paths, settings) if path not in axes]
    rest += ["seeds"] * any(numbers.is_seed(path) for path in sweep.paths)
    at = f" Cells of rung {settings[0].rung} alone, which have one budget." if settings[0].rung is not None else ""
    said = "".join(f" {note}" for note in dict.fromkeys(notes) if note)
    return (f" Mean over {', '.join(rest)}." if rest else "") + said + at


def intervals(pools: Iterable[Pooled]) -> str:
    """How intervals were made, each way once."""
    ways = {}
    for one in pools:
        m = one.measured
        own = "of the cell itself, " if one.cells == 1 else ""
        several = f" ({one.cells} cells a value)" if one.cells > 1 else ""
        ways[f"{100 * m.confidence:g} %, {own}{m.method}{several}"] = None
    return f"Intervals: {'; '.join(ways)}." if ways else ""


def curves(sweep: Sweep) -> list[dict[str, Any]]:
    """Headline metrics over each swept number; a target is a panel, an attack has one color everywhere."""
    settings = numbers.compared(sweep.settings)
    every = numbers.entries(settings)
    colors = {label: i for i, label in enumerate(dict.fromkeys(e.cell.label for e in every if not e.cell.control))}
    out = []
    for path, (metric, entries) in itertools.product(numbers.varying(sweep.paths, settings), _by_metric(every).items()):
        texts, ticks = numbers.ordered(setting.values[path] for setting in settings)
        if ticks is None:
            continue
        panels: dict[str, list[figures.Series]] = {}
        pools, notes = [], []
        rest = [other for other in numbers.varying(sweep.paths, settings) if other != path]
        for (label, target, control), members in _grouped(entries).items():
            members, note = numbers.balanced(members, rest, [path])
            notes.append(note)
            x, y = [], []
            for text, tick in zip(texts, ticks):
                parts = [(e.cell.seed, e.measured) for e in members if e.setting.values[path] == text]
                if parts:
                    x.append(tick)
                    y.append(numbers.pooled(parts))
            pools += y
            series = figures.Series(label, x, [one.measured for one in y], None if control else colors[label])
            panels.setdefault(target, []).append(series)
        drawing = figures.over_setting(path, tables.worded(metric), list(panels.items()))
        caption = (
            f"{_direction(entries)} is a stronger attack; hollow and dashed is a control. Markers of one value are"
        )
        caption += f" set apart to be seen.{_rest(sweep, settings, [path], notes)} {intervals(pools)}"
        out.append({"title": f"Over {path}", "drawing": drawing, "caption": caption})
    return out


def heat_maps(sweep: Sweep) -> list[dict[str, Any]]:
    """Headline metrics over each pair of swept paths that vary independently."""
    settings = numbers.compared(sweep.settings)
    out = []
    for pair in itertools.combinations(numbers.varying(sweep.paths, settings), 2):
        met = {(setting.values[pair[0]], setting.values[pair[1]]) for setting in settings}
        rows, columns = (numbers.ordered(setting.values[path] for setting in settings)[0] for path in pair)
        if len(met) <= max(len(rows), len(columns)):
            continue  # one follows from the other, as in a zip block
        axes = list(zip(pair, (rows, columns)))
        if len(rows) > len(columns):
            axes.reverse()  # the longer one across
        for metric, entries in _by_metric(numbers.entries(settings)).items():
            panels, notes = [], []
            rest = [path for path in numbers.varying(sweep.paths, settings) if path not in pair]
            for (label, target, control), members in _grouped(entries).items():
                members, note = numbers.balanced(members, rest, pair)
                notes.append(note)
                values = np.full((len(axes[0][1]), len(axes[1][1])), np.nan)
                for (r, k), _ in np.ndenumerate(values):
                    place = axes[0][1][r], axes[1][1][k]
                    parts = [e.measured.value for e in members if tuple(e.setting.values[p] for p, _ in axes) == place]
                    if parts:
                        values[r, k] = statistics.fmean(parts)
                panels.append(figures.Map(f"{label}, {target}", control, values))
            drawing = figures.maps(axes[0], axes[1], panels, entries[0].measured)
            caption = f"{tables.worded(metric)}. {_direction(entries)} is a stronger attack; gray titles are controls."
            caption += f" A gap is a pair without a finished cell.{_rest(sweep, settings, pair, notes)}"
            out.append({"title": f"{axes[0][0]} by {axes[1][0]}", "drawing": drawing, "caption": caption})
    return out


def tradeoffs(sweep: Sweep) -> list[dict[str, Any]]:
    """Accuracy against the strongest attack, per headline metric: a figure, the front as rows, and the rest."""
    every = numbers.points(sweep.paths, sweep.settings)
    out = []
    for metric in dict.fromkeys(point.metric for point in every):
        chosen = [point for point in every if point.metric == metric]
        best = numbers.on_front(chosen)
        front = [point for point, on in zip(chosen, best) if on]
        front.sort(key=lambda point: -point.accuracy.measured.value)
        rest = [point for point, on in zip(chosen, best) if not on]
        ranks = [*[None] * len(rest), *range(1, len(front) + 1)]
        dots = [
            figures.Dot(p.target, p.accuracy.measured, p.risk.measured, rank) for p, rank in zip([*rest, *front], ranks)
        ]
        safer = "Lower" if front[0].risk.measured.stronger == "higher" else "Higher"
        caption = (
            f"What the strongest attack reaches. {safer} is safer, right is more accurate. Numbered: no other target "
        )
        caption += (
            "is as accurate and as safe, by value, whatever the intervals. The strongest attack is the best of all "
        )
        caption += "labels and settings of the adversary, so its value is optimistic for the attack. "
        caption += intervals(pool for point in chosen for pool in (point.accuracy, point.risk))
        out.append(
            {
                "metric": tables.worded(metric),
                "drawing": figures.tradeoff(tables.worded(metric), dots),
                "caption": caption,
                "front": [_row(point) for point in front],
                "rest": [_row(point) for point in rest],
            }
        )
    return out


def _row(point: Point) -> dict[str, Any]:
    rung = f"rung {point.rung}" if point.rung is not None else ""
    return {
        "target": point.target,
        "about": ", ".join(part for part in (spelled(point.values), rung) if part),
        "accuracy": numbers.shown(point.accuracy),
        "risk": numbers.shown(point.risk),
        "attack": point.attack,
        "attack_about": spelled(point.attack_values),
    }
