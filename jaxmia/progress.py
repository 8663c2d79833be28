"""A progress bar with rate and time left, for anything over five seconds."""

import os
import sys
import time
from types import TracebackType

__all__ = ["Progress"]


class Progress:
    """Shows `done / total` of a long task on standard error: a bar on a terminal, else a plain line now and then.

    Where NO_COLOR is set lines are plain on a terminal too, since a bar takes escape sequences.

    Nothing is shown for tasks that end within `quiet` seconds. Use as a context manager.

    Args:
      title: what is going on.
      total: how many units there are.
      unit: what a unit is called, in the plural ("candidates", "steps").
      quiet: seconds before the first line.
      every: seconds between plain lines.
    """

    def __init__(self, title: str, total: int, unit: str, *, quiet: float = 5.0, every: float = 10.0):
        self.title, self.total, self.unit = title, max(total, 1), unit
        self._quiet, self._every = quiet, every
        self._start = self._last = time.monotonic()
        self._offset: float | None = None
        self._bar = self._task = None

    def update(self, done: int | float, note: str = "") -> None:
        """Say that `done` units are finished; `note` is shown at the end of the line (a loss, say)."""
        now = time.monotonic()
        if self._offset is None:  # work found finished on resume does not count for the rate
            self._offset, self._start = done, now
        elapsed = now - self._start
        if elapsed < self._quiet:
            return
        rate = (done - self._offset) / elapsed
        left = (self.total - done) / rate if rate > 0 else float("inf")
        text = f"{rate:.3g} {self.unit}/s, {_clock(left)} left" + (f", {note}" if note else "")
        if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            self._draw(done, text)
        elif now - self._last >= self._every:
            self._last = now
            print(
                f"{self.title}: {done:.0f}/{self.total} {self.unit} ({done / self.total:.0%}), {text}", file=sys.stderr
            )

    def _draw(self, done: float, text: str) -> None:
        if self._bar is None:
            from rich import progress
            from rich.console import Console

            columns = ("{task.description}", progress.BarColumn(), progress.TaskProgressColumn(), "{task.fields[text]}")
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.title, total=self.total, text="")
            self._bar.start()
        self._bar.update(self._task, completed=done, text=text)  # type: ignore[arg-type]

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
