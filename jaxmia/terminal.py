"""Tables for a terminal of any width, and for pipes."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["column_widths", "print_table"]


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """On a terminal a table that fits it, or, where it is too narrow, a block of lines per row; no word is ever cut.

    Elsewhere one line a row, aligned, for grep and the like.
    """
    lines = [[str(entry) for entry in row] for row in (head, *rows)]
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        widths = column_widths(lines, width - 3 * len(head) - 1)  # without the frame
        _print_boxed(lines, widths) if widths else _print_blocks(lines, width)
        return
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(entry.ljust(width) for entry, width in zip(line, widths)).rstrip())


def column_widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths that leave every word whole, and share what is left of `room` evenly; none where words do not fit.

    >>> column_widths([["name", "what"], ["image/gmi", "a face of a class"]], 20)
    [9, 11]
    >>> column_widths([["name", "what"], ["image/gmi", "a face of a class"]], 13)
    []
    """
    columns = list(zip(*lines))
    widths = [max(len(word) for entry in column for word in [*entry.split(), ""]) for column in columns]
    lacking = [max(map(len, column)) - width for column, width in zip(columns, widths)]
    spare = room - sum(widths)
    if spare < 0:
        return []
    for left, i in enumerate(sorted(range(len(widths)), key=lacking.__getitem__), start=-len(widths)):
        given = min(lacking[i], spare // -left)
        widths[i], spare = widths[i] + given, spare - given
    return widths


def _print_boxed(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for title, width in zip(lines[0], widths):
        table.add_column(title, width=width)
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    # With no_color rich still prints bold.
    Console(color_system=None if os.environ.get("NO_COLOR") else "auto").print(table)


def _print_blocks(lines: Sequence[Sequence[str]], width: int) -> None:
    (_, *titles), *rows = lines
    for name, *entries in rows:
        print(name)
        for title, entry in zip(titles, entries):
            print(
                textwrap.fill(
                    f"{title}: {entry}", max(width, 20), initial_indent="  ", subsequent_indent="    ",
                    break_long_words=False, break_on_hyphens=False,
                )
            )  # fmt: skip
