"""The figures of a page, put together from a run's cells."""

from typing import Any

from jaxmia.report import figures, tables
from jaxmia.report.folder import Cell, Run

__all__ = ["curve_figures", "overviews"]


def _by_headline(run: Run) -> dict[str, list[Cell]]:
    out: dict[str, list[Cell]] = {}
    for cell in run.cells:
        if cell.headline is not None:
            out.setdefault(cell.headline, []).append(cell)
    return out


def overviews(run: Run) -> list[dict[str, Any]]:
    """One figure of intervals per headline metric."""
    out = []
    for headline, cells in _by_headline(run).items():
        several = len({cell.target for cell in cells}) > 1
        rows = []
        for target in run.targets:
            head = tables.titled(run, target) if several else ""
            for cell in (cell for cell in cells if cell.target == target):
                rows.append((tables.named(cell, cells), head, cell.control, cell.metrics[headline]))
        direction = "Higher" if cells[0].metrics[headline].stronger == "higher" else "Lower"
        name = tables.worded(headline)
        caption = f"{name[:1].upper()}{name[1:]} with intervals. {direction} is a stronger attack; hollow is a control."
        out.append({"drawing": figures.intervals(rows), "caption": caption})
    return out


def curve_figures(run: Run) -> list[dict[str, Any]]:
    """One figure per target and curve; an attack has the same color on every target."""
    colors = {label: i for i, label in enumerate(dict.fromkeys(c.label for c in run.cells if not c.control))}
    drawn: dict[tuple[str, str], list[figures.Line]] = {}
    for cell in run.cells:
        for curve, y in cell.curve.items():
            if curve != "step" and y:
                x = cell.curve.get("step", [float(i) for i in range(1, len(y) + 1)])
                color = None if cell.control else colors[cell.label]
                line = figures.Line(tables.named(cell, run.cells), x, y, color)
                drawn.setdefault((cell.target, curve), []).append(line)
    several = len({target for target, _ in drawn}) > 1
    out = []
    for (target, curve), lines in drawn.items():
        caption = "Mean over the cases of a cell."
        if several:
            caption = f"{tables.titled(run, target)}. {caption}"
        out.append({"drawing": figures.curves(tables.worded(curve), lines), "caption": caption})
    return out
