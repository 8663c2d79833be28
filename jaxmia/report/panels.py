"""The picture grids and figures of a page, put together from a run's cells."""

from typing import Any

import numpy as np

from jaxmia.report import figures, tables
from jaxmia.report.folder import PICTURED, Cell, Run

__all__ = ["curve_figures", "grids", "heat_map", "overviews"]

_COARSE = 32  # pictures up to this many pixels wide are shown with visible pixels


def _picture(images: Any, row: int | None = None) -> dict[str, Any]:
    image = images if row is None else images[row]
    return {"uri": figures.picture(image), "coarse": image.shape[1] <= _COARSE}


def _name(run: Run, index: int) -> str:
    return run.truth.names[index] if run.truth else f"class {index}"


def grids(run: Run) -> list[dict[str, Any]]:
    """Per target, rows of classes and one column per attack; of several seeds the lowest is shown, all are counted."""
    grids = []
    for target in run.targets:
        cells = [cell for cell in run.cells if cell.target == target and cell.pictures]
        if not cells:
            continue
        columns = list(tables.groups(cells).items())
        shown = [min(members, key=lambda cell: cell.seed) for _, members in columns]
        classes = sorted({c for cell in cells for c in cell.pictures})[:PICTURED]
        nearest, title = _nearest(run, shown)
        rows = []
        for c in classes:
            entries = [_entry(cell, members, c) for cell, (_, members) in zip(shown, columns)]
            rows.append(
                {
                    "name": _name(run, c),
                    "private": _picture(run.truth.private, c) if run.truth else None,
                    "entries": entries,
                    "nearest": _picture(nearest[c]) if c in nearest else None,
                }
            )
        heads = [{"label": label, "control": control} for (label, _, control), _ in columns]
        private = run.truth is not None
        grids.append(
            {"title": tables.titled(run, target), "private": private, "columns": heads, "nearest": title, "rows": rows}
        )
    return grids


def _nearest(run: Run, shown: list[Cell]) -> tuple[dict[int, np.ndarray], str]:
    """Nearest public images by class, and the column's head; empty where the run has none."""
    if run.truth is not None and run.truth.nearest_public is not None:
        return dict(enumerate(run.truth.nearest_public)), "nearest public"
    for cell in shown:
        if cell.nearest_public:
            return cell.nearest_public, f"public image nearest to {cell.label}"
    return {}, ""


def _entry(cell: Cell, members: list[Cell], c: int) -> dict[str, Any]:
    picked = [m.success[m.targets == c] for m in members if m.success is not None and m.targets is not None]
    success = np.concatenate(picked) if picked else np.zeros(0, bool)
    entry = {"label": cell.label, "control": cell.control, "uri": "", "coarse": False}
    if c in cell.pictures:
        entry |= _picture(figures.stretched(cell.pictures[c]))
    percent = round(100 * float(success.mean())) if len(success) else 0
    return {**entry, "hits": int(success.sum()), "tries": len(success), "percent": percent}


def heat_map(run: Run) -> figures.Drawing | None:
    """Success by attack and class; None where no cell has candidates."""
    several = len({cell.target for cell in run.cells}) > 1
    labels, found = [], []
    for (label, target, control), members in tables.groups(run.cells).items():
        pairs = [(m.targets, m.success) for m in members if m.targets is not None and m.success is not None]
        if sum(len(targets) for targets, _ in pairs):
            labels.append(f"{target} · " * several + label + " (control)" * control)
            found.append(tuple(np.concatenate(arrays) for arrays in zip(*pairs)))
    if not found:
        return None
    classes = np.unique(np.concatenate([targets for targets, _ in found]))
    shares = np.full((len(found), len(classes)), np.nan)
    for row, (targets, success) in enumerate(found):
        for column, c in enumerate(classes):
            if (targets == c).any():
                shares[row, column] = success[targets == c].mean()
    names = [name if len(name) <= 16 else name[:15] + "…" for name in (_name(run, int(c)) for c in classes)]
    return figures.heat_map(labels, names, shares)


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
