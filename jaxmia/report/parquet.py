"""A table of texts as a Parquet file with typed columns, where pyarrow is there."""

import importlib
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxmia.report.sweep_folder import number_in
from jaxmia.report.writing import written_whole

__all__ = ["typed", "write_parquet"]

_TEXTS = ("run", "cell", "state", "attack", "label", "access", "target", "defense", "metric", "method", "unit")


def typed(name: str, texts: Sequence[str]) -> list[Any]:
    """A column of `results.csv` as values of one type: whole numbers, numbers or booleans where all are, else text.

    Columns that hold names stay text, also where all names look like numbers. Numbers are as JSON writes them, so
    "1_0" and "007" are text. Nothing is None, but "" among texts.

    >>> typed("seed", ["0", ""]), typed("value", ["0", "0.5"]), typed("run", ["123456789012"])
    ([0, None], [0.0, 0.5], ['123456789012'])
    """
    given = [text for text in texts if text != ""]
    if name not in _TEXTS:
        if not given:
            return [None] * len(texts)
        if set(given) <= {"true", "false"}:
            return [None if text == "" else text == "true" for text in texts]
        numbers = [number_in(text) for text in given]
        if None not in numbers:
            whole = all(number is not None and number.is_integer() and abs(number) < 2**63 for number in numbers)
            kind = int if whole and all(text.lstrip("-").isdecimal() for text in given) else float
            return [None if text == "" else kind(text) for text in texts]
    return list(texts)


def write_parquet(path: pathlib.Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Write the table whole or not at all; False where pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        return False
    arrow: Any = importlib.import_module("pyarrow")
    columns = {name: arrow.array(typed(name, [row[i] for row in rows])) for i, name in enumerate(header)}
    with written_whole(path) as part:
        importlib.import_module("pyarrow.parquet").write_table(arrow.table(columns), part)
    return True
