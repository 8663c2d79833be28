"""Ranks: how exposed each secret is, by how often it was planted.

An exhibit has `found`, pairs of (times planted, exposure in bits), `chance`, what a secret that was never planted reaches
on average, and `best`, that of rank one.
"""

from typing import Any

from jaxmia.report import figures, tables
from jaxmia.report.folder import Cell, Run

__all__ = ["CONTENT", "FIRST", "section"]

FIRST = False
CONTENT = False


def section(run: Run, shown: list[tuple[Cell, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """One figure: the mean exposure of each cell over how often a secret was planted."""
    cells = [cell for cell, _ in shown]
    colors = {target: i for i, target in enumerate(dict.fromkeys(c.target for c in cells if not c.control))}
    lines = []
    for cell, exhibit in shown:
        by_times: dict[int, list[float]] = {}
        for times, exposure in exhibit["found"]:
            by_times.setdefault(times, []).append(exposure)
        x = sorted(by_times)
        y = [sum(by_times[t]) / len(by_times[t]) for t in x]
        name = (
            cell.label if cell.attack == "none" else f"{tables.named(cell, cells)}, {tables.titled(run, cell.target)}"
        )
        lines.append(figures.Line(name, x, y, None if cell.control else colors[cell.target]))
    chance, best = shown[0][1]["chance"], shown[0][1]["best"]
    caption = (
        f"Mean over the secrets planted equally often. A secret that was never planted has {chance:.2f} bits on average; "
        f"one that is ranked first of all has {best:.1f}. Dashed is a control or a guess without the model."
    )
    drawing = figures.curves("exposure (bits)", lines, over="times planted", doubling=True)
    note = "Exposure is log2 of how many secrets there could be, less log2 of the rank of the true one."
    return "drawings", {"title": "Exposure", "note": note, "drawings": [{"drawing": drawing, "caption": caption}]}
