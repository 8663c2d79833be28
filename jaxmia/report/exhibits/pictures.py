"""Pictures: of each class a private one, what attacks made of it, and in how many the first evaluator finds it."""

from typing import Any

import numpy as np

from jaxmia.report import figures, tables
from jaxmia.report.folder import PICTURED, Cell, Run

__all__ = ["CONTENT", "FIRST", "section"]

FIRST = True
CONTENT = True


def section(run: Run, shown: list[tuple[Cell, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """Grids of pictures, and the share of successes by class."""
    cells = [cell for cell, _ in shown]
    return "pictures", {"grids": grids(run, cells), "heat": heat_map(run, cells), "pictured": PICTURED}


_COARSE = 32  # pictures up to this many pixels wide are shown with visible pixels


def _picture(images: Any, row: int | None = None) -> dict[str, Any]:
    image = images if row is None else images[row]
    return {"uri": figures.picture(image), "coarse": image.shape[1] <= _COARSE}


def _name(run: Run, index: int) -> str:
    return run.truth.names[index] if run.truth else f"class {index}"


def grids(run: Run, having: list[Cell]) -> list[dict[str, Any]]:
    """Per target, rows of classes and one column per attack; of several seeds the lowest is shown, all are counted."""
    grids = []
    for target in run.targets:
        cells = [cell for cell in having if cell.target == target and cell.pictures]
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


def heat_map(run: Run, cells: list[Cell]) -> figures.Drawing | None:
    """Success by attack and class; None where no cell has candidates."""
    several = len({cell.target for cell in cells}) > 1
    labels, found = [], []
    for (label, target, control), members in tables.groups(cells).items():
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
