"""Numbers as text, rows for the page's tables, and `results.csv`."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxmia.report.folder import ACCESS, Cell, Measured, Run

__all__ = [
    "Verdict",
    "beats",
    "estimate",
    "groups",
    "item",
    "named",
    "number",
    "results",
    "seconds",
    "seeded",
    "sees",
    "strongest",
    "threats",
    "titled",
    "value",
    "verdicts",
    "worded",
]

_SEES = {
    "NONE": "nothing of the model",
    "LABELS": "labels only",
    "SCORES": "scores",
    "WEIGHTS": "weights and gradients",
}
_COLUMNS = (
    "cell", "state", "attack", "label", "access", "target", "defense", "seed", "control", "metric", "value", "low",
    "high", "n", "groups", "confidence", "method", "unit", "candidates", "queries_mean", "queries_max",
    "queries_training", "seconds", "test_accuracy",
)  # fmt: skip


def number(x: float | int | None) -> str:
    """Three significant digits, thousands apart, a dash for nothing.

    >>> number(1234567), number(0.25), number(0.00012), number(None)
    ('1,234,567', '0.25', '1.2e-04', '–')
    """
    if x is None:
        return "–"
    if float(x).is_integer() and abs(x) < 1e15:
        return f"{int(x):,}"
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}" if abs(x) >= 1e-3 else f"{x:.1e}"


def _percent(x: float | int, width: float = 1.0) -> str:
    """Whole percents, a decimal where the interval is narrow; never 0 or 100 for what is neither.

    >>> _percent(0.503), _percent(0.503, width=0.02), _percent(0.004), _percent(0.997), _percent(1.0)
    ('50', '50.3', '0.4', '99.7', '100')
    """
    text = f"{100 * x:.{int(width < 0.05)}f}"
    if float(text) in (0, 100) and x not in (0, 1):
        text = f"{100 * x:.1g}" if x < 0.5 else f"{100 * x:.4g}"
    return text.removesuffix(".0")


def value(measured: Measured) -> str:
    """The value with its unit."""
    if measured.unit == "share":
        return _percent(measured.value, measured.high - measured.low) + "\u00a0%"
    return number(measured.value) + (f"\u00a0{measured.unit}" if measured.unit else "")


def interval(measured: Measured) -> str:
    """The interval, without the unit."""
    ends = [number(end) for end in (measured.low, measured.high)]
    if measured.unit == "share":
        ends = [_percent(end, measured.high - measured.low) for end in (measured.low, measured.high)]
    return f"[{ends[0]},\u00a0{ends[1]}]"


def estimate(measured: Measured) -> dict[str, str]:
    """The parts of a table cell: value, interval, n, and how the interval was made."""
    units = f" in {measured.groups} groups" if measured.groups not in (None, measured.n) else ""
    how = f"{100 * measured.confidence:g} % interval, {measured.method}"
    n = f"n\u00a0=\u00a0{measured.n:,}{units}"
    return {"value": value(measured), "interval": interval(measured), "n": n, "how": how}


def item(entry: Any) -> Any:
    """An item of a further table: an estimate's parts, or text."""
    if isinstance(entry, Measured):
        return estimate(entry)
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    return number(entry) if isinstance(entry, int | float | None) else str(entry)


def seconds(x: float | int | None) -> str:
    """A duration in its two leading units.

    >>> seconds(0.031), seconds(59), seconds(200), seconds(7500)
    ('0.031 s', '59 s', '3 min 20 s', '2 h 5 min')
    """
    if x is None:
        return "–"
    if x < 60:
        return f"{x:.2g} s"
    if x < 3600:
        return f"{int(x // 60)} min {int(x % 60)} s"
    return f"{int(x // 3600)} h {int(x % 3600 // 60)} min"


def sees(access: str) -> dict[str, Any]:
    """What an access lets the adversary see: words, and how many of three steps."""
    box = {"NONE": "", "LABELS": "black box", "SCORES": "black box", "WEIGHTS": "white box"}[access]
    return {"words": _SEES[access], "box": box, "steps": ACCESS.index(access)}


def groups(cells: Iterable[Cell]) -> dict[tuple[str, str, bool], list[Cell]]:
    """Cells that differ in seed only, by (label, target, control), in order of first appearance."""
    out: dict[tuple[str, str, bool], list[Cell]] = {}
    for cell in cells:
        out.setdefault((cell.label, cell.target, cell.control), []).append(cell)
    return out


def threats(cells: list[Cell]) -> list[dict[str, Any]]:
    """One row per attack: who sees what, knows what, recovers what, for how many queries; controls last."""
    rows: dict[tuple, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.control):
        rows.setdefault((cell.label, cell.attack, cell.control), []).append(cell)
    out = []
    for (label, attack, control), members in rows.items():
        asked = [cell.queries for cell in members if cell.queries is not None]
        weights = [cell.n for cell in members if cell.queries is not None]
        out.append(
            {
                "label": label,
                "attack": attack,
                "control": control,
                "card": members[0].card,
                "sees": sees(members[0].card["access"]),
                "mean": sum(q["mean"] * n for q, n in zip(asked, weights)) / max(sum(weights), 1) if asked else None,
                "max": max(q["max"] for q in asked) if asked else None,
                "training": max(q["training"] for q in asked) if asked else None,
            }
        )
    return out


def strength(measured: Measured) -> float:
    """Higher is a stronger attack."""
    return measured.value if measured.stronger == "higher" else -measured.value


def beats(attack: Measured, control: Measured) -> bool:
    """The intervals are apart, on the attack's side."""
    return attack.low > control.high if attack.stronger == "higher" else attack.high < control.low


def strongest(cells: Iterable[Cell], headline: str) -> Cell | None:
    """The cell with the best value of a headline metric; None where no cell has it."""
    able = [cell for cell in cells if cell.headline == headline]
    return max(able, key=lambda cell: strength(cell.metrics[headline]), default=None)


class Verdict(NamedTuple):
    """One sentence about one headline metric; `leaks` is None where no control can tell."""

    leaks: bool | None
    text: str


def verdicts(run: Run) -> list[Verdict]:
    """A sentence for each headline metric, from the strongest attack and the strongest control."""
    cells, out = run.cells, []
    for headline in dict.fromkeys(cell.headline for cell in cells if not cell.control and cell.headline):
        best = strongest((cell for cell in cells if not cell.control), headline)
        control = strongest((cell for cell in cells if cell.control), headline)
        assert best is not None  # the loop runs over what the cells have
        reached = best.metrics[headline]
        attacks = {cell.label for cell in cells if not cell.control and cell.headline == headline}
        rank = f"the strongest of {len(attacks)} attacks, " if len(attacks) > 1 else ""
        where = f"{named(best, cells)} on {titled(run, best.target)}"
        claim = f"{rank}{where}, reaches" if rank else f"{where} reaches"
        claim = f"{claim} {worded(headline)} {_with_interval(reached)}"
        if control is None:
            out.append(Verdict(None, f"Not decided: {claim}. No control was run, so chance is not excluded."))
            continue
        floor = f"{_with_interval(control.metrics[headline])} by the strongest control, {control.label}"
        if control.target != best.target:
            floor += f" on {titled(run, control.target)}"
        if beats(reached, control.metrics[headline]):
            out.append(Verdict(True, f"The model leaks: {claim}, against {floor}."))
        else:
            out.append(Verdict(False, f"No leak is shown: {claim}, not clear of {floor}."))
    return out


def worded(name: str) -> str:
    """A metric's name for reading."""
    return name.replace("_", " ")


def titled(run: Run, target: str) -> str:
    """A target's name with its defense."""
    defense = run.targets[target].defense
    return f"{target} ({defense})" if defense else target


def seeded(cell: Cell, cells: Iterable[Cell]) -> str:
    """The seed, where another cell differs in nothing else."""
    twins = [c for c in cells if (c.label, c.target, c.control) == (cell.label, cell.target, cell.control)]
    return f"seed {cell.seed}" if len(twins) > 1 else ""


def named(cell: Cell, cells: Iterable[Cell]) -> str:
    """The label, with the seed where that tells cells apart."""
    seed = seeded(cell, cells)
    return f"{cell.label} ({seed})" if seed else cell.label


def _with_interval(measured: Measured) -> str:
    return f"{value(measured)} {interval(measured)}"


def results(run: Run, more: Sequence[str] = ()) -> str:
    """`results.csv`: one row per cell and metric, and one with state "unfinished" for each unfinished cell.

    Args:
      run: what it is the table of.
      more: fields of `Measured` that have columns too.
    """
    out, columns = io.StringIO(), (*_COLUMNS, *more)
    writer: csv.DictWriter[str] = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for cell in run.cells:
        target = run.targets[cell.target]
        about = {
            "cell": cell.name,
            "state": "finished",
            "attack": cell.attack,
            "label": cell.label,
            "access": cell.card["access"],
            "target": cell.target,
            "defense": target.defense,
            "seed": cell.seed,
            "control": str(cell.control).lower(),
            "candidates": cell.n,
            "seconds": cell.seconds,
            "queries_mean": cell.queries["mean"] if cell.queries else "",
            "queries_max": cell.queries["max"] if cell.queries else "",
            "queries_training": cell.queries["training"] if cell.queries else "",
            "test_accuracy": target.test_accuracy.value if target.test_accuracy else "",
        }
        for name, m in cell.metrics.items():
            kept = {field: getattr(m, field) for field in m._fields if field in columns}
            writer.writerow({**about, "metric": name, **kept})
        if not cell.metrics:
            writer.writerow(about)
    for name in run.unfinished:
        writer.writerow({"cell": name, "state": "unfinished"})
    return out.getvalue()
