"""Whether what attacks recover is more than a user allows."""

import os
import pathlib

from jaxmia.report import tables
from jaxmia.report.folder import Run, read
from jaxmia.report.sweep_folder import is_sweep, read_sweep

__all__ = ["above"]


def above(folder: str | os.PathLike, limit: float) -> str:
    """One line on the attacks that surely recover more than a limit; "" where none does.

    An attack does if the lower end of the interval of its headline metric lies above the limit. Controls do not count.

    Args:
      folder: of a run, or of a sweep, whose runs all count.
      limit: a share, 0 to 1.

    Raises:
      FileNotFoundError: the folder or a required file is missing.
      ValueError: a file is damaged, a headline metric is no share in [0, 1], or nothing lies above the limit while a cell
        is unfinished or no attack has such a metric, so that nobody knows.
    """
    where = pathlib.Path(folder).expanduser()
    if is_sweep(where):
        settings = read_sweep(where).settings
        runs = [setting.run for setting in settings if setting.run is not None]
        unfinished = [setting.name for setting in settings if setting.run is None]
    else:
        runs, unfinished = [read(where, arrays=False)], []
    unfinished += [name for run in runs for name in run.unfinished]
    held = [words for run in runs for words in _held(run)]
    told = [words for low, words in held if low > limit]
    if told:
        return f"above {limit:g}: {'; '.join(told)}".replace("\u00a0", " ")
    if unfinished or not held:
        lacking = f"{', '.join(unfinished)}: unfinished" if unfinished else "no attack has finished with a metric"
        raise ValueError(f"{where}: {lacking}, so it is not known whether an attack lies above {limit:g}")
    return ""


def _held(run: Run) -> list[tuple[float, str]]:
    """The lower end of the headline metric of each attack on a real target, and what it is, in words."""
    found = []
    for cell in run.cells:
        if cell.control or cell.headline is None:
            continue
        m = cell.metrics[cell.headline]
        if m.unit != "share" or m.stronger != "higher" or not 0 <= m.low <= m.high <= 1:
            raise ValueError(
                f"{run.folder}: headline {cell.headline!r} of {cell.label}: {tables.value(m)}; legal with a limit is a "
                "share in [0, 1] of which more is a stronger attack"
            )
        where = f"{tables.named(cell, run.cells)} on {tables.titled(run, cell.target)}"
        found.append((m.low, f"{where}, {tables.worded(cell.headline)} {tables.value(m)} {tables.interval(m)}"))
    return found
