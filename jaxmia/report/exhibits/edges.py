"""Edges: of the pairs of nodes that an attack names first, how many are edges.

An exhibit has `found`, pairs of (pairs named, edges among them) with both growing, and the numbers of `edges` and `pairs`
in all.
"""

from typing import Any

from jaxmia.report import figures, tables
from jaxmia.report.folder import Cell, Run

__all__ = ["CONTENT", "FIRST", "section"]

FIRST = False
CONTENT = False


def section(run: Run, shown: list[tuple[Cell, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """One figure for each data set and target: the share that is right over how many are named."""
    cells = [cell for cell, _ in shown]
    colors = {label: i for i, label in enumerate(dict.fromkeys(c.label for c in cells if not c.control))}
    drawings = []
    for target in dict.fromkeys(cell.target for cell in cells):
        lines, exhibits = [], [(cell, exhibit) for cell, exhibit in shown if cell.target == target]
        for cell, exhibit in exhibits:
            named, right = zip(*exhibit["found"])
            share = [100 * r / n for n, r in zip(named, right)]
            color = None if cell.control else colors[cell.label]
            lines.append(figures.Line(tables.named(cell, cells), named, share, color))
        edges, pairs = exhibits[0][1]["edges"], exhibits[0][1]["pairs"]
        caption = (
            f"{tables.titled(run, target)}. Of {pairs:,} pairs {edges:,} are edges, so a blind guess is right in "
            f"{100 * edges / pairs:.2g} percent; dashed is a control or a guess without the model."
        )
        drawing = figures.curves("percent right", lines, over="pairs named", doubling=True)
        drawings.append({"drawing": drawing, "caption": caption})
    note = "Pairs of nodes in the order in which each attack holds them for edges, and how many of the first ones are."
    return "drawings", {"title": "Edges named first", "note": note, "drawings": drawings}
