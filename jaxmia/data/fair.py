"""Fair's survey of extramarital affairs: the small table of attribute inversion.

Fair, "A Theory of Extramarital Affairs", Journal of Political Economy 1978; a Redbook magazine survey of
1974, married women who answered by themselves, so no sample of any population. The closest public analogue of
the survey with the "infidelity" attribute in Fredrikson et al., CCS 2015. Read from the file that statsmodels
carries.
"""

import csv
import hashlib
import io

import numpy as np

from jaxmia.data.fetch import StrPath, fetch, read_member
from jaxmia.data.types import Column, Table

__all__ = ["SENSITIVE", "TARGET", "load"]

SENSITIVE = "affair"
"""The attribute that an attacker wants: had an affair."""
TARGET = "rate_marriage"
"""The attribute that a target model predicts: how she rates her marriage, 1 (very poor) to 5 (very good)."""
SHA256 = "90b2177cdc6708c632a82feaadf2d2f1edbd2692c001ed29d25dc2ab0237638c"  # of the float64 array [6366, 9]


def load(*, cache: StrPath | None = None) -> Table:
    """6,366 records, 9 attributes. Many records are equal: remove duplicates before you split if that matters.

    The numbers of the survey (age, years married, ...) come as few round values, which are the levels, in
    increasing order. The time spent in affairs becomes `affair`: "yes" where it is above zero (32.2 %), else
    "no"; it is the last column.
    """
    root = fetch("fair", cache=cache)
    text = read_member(root, "statsmodels/datasets/fair/fair.csv", limit_bytes=1 << 20).decode("ascii")
    header, *rows = csv.reader(io.StringIO(text))
    values = np.array(rows, np.float64)
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    if digest != SHA256 or header[-1] != "affairs":
        raise ValueError(f"fair: the table in {root} has sha256 {digest}, expected {SHA256}")
    columns, codes = [], []
    for name, column in zip(header[:-1], values.T[:-1], strict=True):
        levels, code = np.unique(column, return_inverse=True)
        columns.append(Column(name, tuple(f"{level:g}" for level in levels)))
        codes.append(code)
    columns.append(Column(SENSITIVE, ("no", "yes")))
    codes.append(values[:, -1] > 0)
    return Table(tuple(columns), np.stack(codes, axis=1).astype(np.int32))
