"""Guesses: how often each value of what was wanted was taken for which.

An exhibit has `values`, their names, and `counts`, a row for each true value and a column for each guess.
"""

from typing import Any

from jaxmia.report import tables
from jaxmia.report.folder import Cell, Run

__all__ = ["CONTENT", "FIRST", "section"]

FIRST = False
CONTENT = False


def section(run: Run, shown: list[tuple[Cell, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """One table for each target, a row for each attack."""
    found, cells = [], [cell for cell, _ in shown]
    for target in dict.fromkeys(cell.target for cell in cells):
        chosen = [(cell, exhibit) for cell, exhibit in shown if cell.target == target]
        values = chosen[0][1]["values"]
        columns = ["attack", *(f"{true}, guessed {guess}" for true in values for guess in values)]
        rows = [
            {
                "label": tables.named(cell, cells), "control": cell.control,
                "entries": [f"{n:,}" for row in exhibit["counts"] for n in row],
            }
            for cell, exhibit in chosen
        ]  # fmt: skip
        found.append({"title": tables.titled(run, target), "columns": columns, "rows": rows})
    return "rows", {"title": "Guesses", "note": "How many records of each value were taken for which.", "tables": found}
