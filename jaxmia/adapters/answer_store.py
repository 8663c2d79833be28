"""What an endpoint answered, in an sqlite file that several processes may share; and its error."""

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator

import numpy as np

__all__ = ["AnswerStore", "EndpointError"]

NO_LIMIT = 2**62


class EndpointError(OSError):
    """An endpoint that did not answer, or answered something else than was declared, or may not be asked."""


class AnswerStore:
    """Answers by fingerprint, and how many were asked for. SQLite commits each call, so kill -9 loses none."""

    def __init__(self, folder: str | os.PathLike, replay: bool):
        folder = pathlib.Path(folder).expanduser().absolute()
        self._file = folder / "answers.sqlite3"
        if replay and not self._file.is_file():
            raise ValueError(f"cache: {self._file} does not exist; legal for a replay is the cache of an earlier run")
        if replay:  # from a medium that may be read alone
            return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its journal the same mode
        except OSError as error:
            raise ValueError(f"cache: {folder} cannot be written ({error.strerror}); name a folder that can") from None
        with self._open() as base:
            base.execute("CREATE TABLE IF NOT EXISTS answers (question BLOB PRIMARY KEY, answer BLOB NOT NULL)")
            base.execute("CREATE TABLE IF NOT EXISTS asked (one INTEGER PRIMARY KEY CHECK (one = 1), queries INTEGER)")
            base.execute("INSERT OR IGNORE INTO asked VALUES (1, 0)")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction. Threads take turns here, and processes wait for each other."""
        try:
            with contextlib.closing(sqlite3.connect(self._file, timeout=60)) as base, base:
                yield base
        except sqlite3.Error as error:
            problem = str(error)
        else:
            return
        raise EndpointError(f"cache: {self._file} cannot be used ({problem})")

    def find(self, questions: list[bytes]) -> dict[bytes, np.ndarray]:
        """What is known of the answers."""
        known = {}
        with self._open() as base:
            for question in set(questions):
                for (found,) in base.execute("SELECT answer FROM answers WHERE question = ?", (question,)):
                    row = np.frombuffer(found[3:], found[:3].decode())
                    known[question] = row.reshape(()) if row.dtype.kind == "i" else row
        return known

    def add(self, questions: list[bytes], rows: np.ndarray) -> None:
        """Keep scores `[n, classes]` or labels `[n]`, with their type before them."""
        kept = [(question, rows.dtype.str.encode() + row.tobytes()) for question, row in zip(questions, rows)]
        with self._open() as base:
            base.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", kept)

    def asked(self) -> int:
        with self._open() as base:
            return base.execute("SELECT queries FROM asked").fetchone()[0]

    def count(self, n: int, budget: int | None) -> bool:
        """Whether `n` more are within the budget, and if so, they count from now on."""
        most = NO_LIMIT if budget is None else budget
        with self._open() as base:
            found = base.execute("UPDATE asked SET queries = queries + ? WHERE queries + ? <= ?", (n, n, most))
            return found.rowcount == 1
