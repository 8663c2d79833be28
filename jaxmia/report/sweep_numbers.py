"""What a sweep's page says in numbers: values pooled over cells, which paths vary, the front of privacy and utility."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from scipy.special import stdtrit

from jaxmia.report import tables
from jaxmia.report.folder import Cell, Measured, Target
from jaxmia.report.sweep_folder import Setting, number_in

__all__ = [
    "Entry",
    "Point",
    "Pooled",
    "balanced",
    "compared",
    "entries",
    "is_seed",
    "on_front",
    "ordered",
    "points",
    "pooled",
    "shown",
    "varying",
]


class Entry(NamedTuple):
    """One attack on one target in one cell of the sweep, and its headline metric."""

    setting: Setting
    cell: Cell
    metric: str
    measured: Measured


class Pooled(NamedTuple):
    """The mean over `cells` values of a metric, of `seeds` different seeds, with its interval."""

    measured: Measured
    cells: int
    seeds: int


class Point(NamedTuple):
    """One target in one setting of the defender, against the strongest attack on it.

    Attributes:
      target: name and defense.
      values: by path, the settings that vary between defenders.
      rung: of successive halving; None where it makes no other target.
      accuracy: on test data.
      attack: label of the strongest attack, by the mean over seeds.
      attack_values: by path, the settings of that attack.
      risk: what that attack reaches.
      metric: in which metric.
    """

    target: str
    values: dict[str, str]
    rung: int | None
    accuracy: Pooled
    attack: str
    attack_values: dict[str, str]
    risk: Pooled
    metric: str


def pooled(parts: Sequence[tuple[int, Measured]]) -> Pooled:
    """The mean of one metric over cells, each with its seed.

    With several seeds the interval is Student's t over the means of the seeds, shares cut to [0, 1]. With one, or where
    all seeds say the same and a point would claim certainty, it runs from the mean of the low ends to the mean of the
    high ends: the own interval of a single cell, and for several at least as wide as the interval of their mean,
    whatever they share.
    """
    first = parts[0][1]
    by_seed: dict[int, list[float]] = {}
    for seed, m in parts:
        by_seed.setdefault(seed, []).append(m.value)
    means = [statistics.fmean(values) for values in by_seed.values()]
    if len(parts) == 1:
        return Pooled(first, 1, 1)
    value = statistics.fmean(means)
    spread = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    if spread > 0:
        half = float(stdtrit(len(means) - 1, (1 + first.confidence) / 2)) * spread
        low, high = value - half, value + half
        if first.unit == "share":
            low, high = max(low, 0.0), min(high, 1.0)
        method = f"Student's t over {len(means)} seeds"
    else:
        low, high = (statistics.fmean(ends) for ends in zip(*((m.low, m.high) for _, m in parts)))
        method = f"mean of the own intervals of {len(parts)} cells"
        method += f", {len(means)} seeds without spread" if len(means) > 1 else ""
    together = first._replace(value=value, low=min(low, value), high=max(high, value), groups=None, method=method)
    return Pooled(together, len(parts), len(means))


def shown(one: Pooled) -> dict[str, str]:
    """The parts of a table cell, as `tables.estimate`."""
    parts = tables.estimate(one.measured)
    if one.cells == 1:
        return parts
    seeds = f", {one.seeds} seeds" if one.seeds > 1 else ""
    return {**parts, "n": f"{one.cells} cells{seeds}"}


def entries(settings: Iterable[Setting]) -> list[Entry]:
    """What the finished cells measured, in order."""
    return [
        Entry(setting, cell, cell.headline, cell.metrics[cell.headline])
        for setting in settings
        for cell in (setting.run.cells if setting.run else ())
        if cell.headline is not None
    ]


def compared(settings: Iterable[Setting]) -> list[Setting]:
    """The finished cells with one budget, to compare settings by: all, or those of the lowest rung."""
    finished = [setting for setting in settings if setting.run is not None]
    lowest = min((setting.rung for setting in finished if setting.rung is not None), default=None)
    return [setting for setting in finished if setting.rung == lowest]


def balanced(members: Sequence[Entry], rest: Sequence[str], axes: Sequence[str]) -> tuple[list[Entry], str]:
    """The entries whose means at the places of `axes` are over the same settings of `rest`, and what is said of others.

    Kept are the settings that were finished at every place, of the seeds that have all of them there. Without that, a
    place where a strong setting is unfinished would seem weak.
    """
    blocks: dict[tuple[str, ...], dict[int, set[tuple[str, ...]]]] = {}
    for entry in members:
        seeds = blocks.setdefault(_values(entry, axes), {})
        seeds.setdefault(entry.cell.seed, set()).add(_values(entry, rest))
    common = set.intersection(*(set.union(*seeds.values()) for seeds in blocks.values()))
    whole = {(place, seed) for place, seeds in blocks.items() for seed, found in seeds.items() if common <= found}
    if not common or len({place for place, _ in whole}) < len(blocks):
        return list(members), "Not the same settings were finished everywhere, so the means are over different ones."
    kept = [e for e in members if (_values(e, axes), e.cell.seed) in whole and _values(e, rest) in common]
    return kept, "Settings that were not finished everywhere are left out." if len(kept) < len(members) else ""


def _values(entry: Entry, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(entry.setting.values[path] for path in paths)


def is_seed(path: str) -> bool:
    return path.rsplit(".", 1)[-1] == "seed"


def varying(paths: Iterable[str], settings: Sequence[Setting]) -> list[str]:
    """The paths, seeds apart, that have several values in these cells."""
    return [p for p in paths if not is_seed(p) and len({s.values[p] for s in settings if p in s.values}) > 1]


def ordered(values: Iterable[str]) -> tuple[list[str], list[float] | None]:
    """Distinct values, and as numbers where all are: numbers ascend, others stay in order of appearance."""
    distinct = list(dict.fromkeys(values))
    numbers = {text: number for text in distinct if (number := number_in(text)) is not None}
    if len(numbers) < len(distinct):
        return distinct, None
    distinct.sort(key=lambda text: numbers[text])
    return distinct, [numbers[text] for text in distinct]


def points(roles: Mapping[str, str], settings: Sequence[Setting]) -> list[Point]:
    """Every target in every setting of the defender, against the strongest attack of all that were run on it.

    What is not in the role "target" leaves the target as it is: a defender does not choose among
    its values. Seeds are pooled first; then the attack is chosen, among labels and settings of the
    adversary. A rung tells targets apart only where their accuracy does, that is where the budget
    is theirs.
    """
    finished = [setting for setting in settings if setting.run is not None]
    free = varying(roles, finished)
    defender = [path for path in free if roles[path] == "target"]
    adversary = [path for path in free if path not in defender]
    by_rung = _rungs_differ([path for path, role in roles.items() if role == "target"], finished)
    rows: dict[tuple, list[Entry]] = {}
    for entry in entries(finished):
        if not entry.cell.control:
            values = _values(entry, defender)
            rung = entry.setting.rung if by_rung else None
            rows.setdefault((entry.cell.target, values, rung, entry.metric), []).append(entry)
    out = []
    for (name, values, rung, metric), members in rows.items():
        targets = {entry.setting.name: (entry.cell.seed, _target(entry)) for entry in members}  # not once per attack
        accuracies = [(seed, t.test_accuracy) for seed, t in targets.values() if t.test_accuracy is not None]
        if not accuracies:
            continue
        attacks: dict[tuple, list[tuple[int, Measured]]] = {}
        for entry in members:
            rank = (entry.cell.label, _values(entry, adversary), entry.setting.rung)
            attacks.setdefault(rank, []).append((entry.cell.seed, entry.measured))
        risks = {key: pooled(parts) for key, parts in attacks.items()}
        best = max(risks, key=lambda key: tables.strength(risks[key].measured))
        defenses = {t.defense for _, t in targets.values()}
        about = f"{name} ({defenses.pop()})" if len(defenses) == 1 and "" not in defenses else name
        settings_of = dict(zip(defender, values)), dict(zip(adversary, best[1]))
        out.append(Point(about, settings_of[0], rung, pooled(accuracies), best[0], settings_of[1], risks[best], metric))
    return out


def _target(entry: Entry) -> Target:
    assert entry.setting.run is not None  # entries are of finished cells
    return entry.setting.run.targets[entry.cell.target]


def _rungs_differ(paths: Sequence[str], finished: Sequence[Setting]) -> bool:
    """Whether a target of the same setting and seed differs from rung to rung."""
    seen: dict[tuple, float] = {}
    for entry in entries(finished):
        accuracy = _target(entry).test_accuracy
        if accuracy is not None:
            same = (entry.cell.target, entry.cell.seed, *(entry.setting.values.get(path) for path in paths))
            if seen.setdefault(same, accuracy.value) != accuracy.value:
                return True
    return False


def on_front(chosen: Sequence[Point]) -> list[bool]:
    """Which points no other dominates: none is as accurate and as safe, and better in one of the two, by value."""
    merits = [(p.accuracy.measured.value, -tables.strength(p.risk.measured)) for p in chosen]
    return [not any(a >= x and b >= y and (a, b) != (x, y) for a, b in merits) for x, y in merits]
