"""Passages: texts that an attack puts out, beside what is true.

An exhibit has `rows`, each with what was `made`, the nearest `true` text and a `note`.
"""

from typing import Any

from jaxmia.report import tables
from jaxmia.report.folder import Cell, Run

__all__ = ["CONTENT", "FIRST", "section"]

FIRST = True
CONTENT = True


def section(run: Run, shown: list[tuple[Cell, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """One table of all cells."""
    rows, cells = [], [cell for cell, _ in shown]
    for cell, exhibit in shown:
        where = (
            cell.label if cell.attack == "none" else f"{tables.named(cell, cells)}, {tables.titled(run, cell.target)}"
        )
        for row in exhibit["rows"]:
            entries = [row["made"].strip(), row["true"].strip(), row["note"]]
            rows.append({"label": where, "control": cell.control, "entries": entries})
    table = {"title": "", "columns": ["attack", "put out", "nearest in the training text", ""], "rows": rows}
    return "rows", {"title": "Passages", "note": "The likeliest text of each attack.", "tables": [table]}
