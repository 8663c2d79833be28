"""What a target on the host answered since the last checkpoints, so that a run that goes on does not ask again.

`answers-<k>-<size>.bin` in a run's folder holds answers of `size` numbers each, k - 1 being the checkpoint that they came
after, and k = 0 those to training's `init`, which begins whatever it goes on from: per answer a digest of the question
(candidate, key, case, step), the numbers, and a checksum of both. Nothing but appending is done to it, so kill -9 can
tear the last record alone, which is then cut off.
"""

import errno
import os
import pathlib
import zlib
from collections import deque
from typing import Any

import numpy as np

from jaxmia import checkpoint

__all__ = ["Journal"]


class Journal:
    """The answers in `folder`: those of an earlier process are taken once each, new ones are added.

    What comes after a deterministic restart from a checkpoint are the same questions in the same steps.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder, self._files, self._part = folder, {}, 0
        self._answers: dict[bytes, deque[np.ndarray]] = {}
        for file in sorted(folder.glob("answers-*.bin")):
            for record in _read(file):
                self._answers.setdefault(record["question"].tobytes(), deque()).append(record["answer"])

    def take(self, question: bytes) -> np.ndarray | None:
        """An answer that an earlier process was given and that was not taken yet."""
        answers = self._answers.get(question)
        return answers.popleft() if answers else None

    def add(self, questions: list[bytes], answers: np.ndarray) -> None:
        """Append answers `[n, ...]`.

        Raises:
          OSError: they cannot be written (no space, no permission).
        """
        flat = answers.reshape(len(answers), -1)
        records = np.zeros(len(flat), _layout(flat.shape[1]))
        records["question"], records["answer"] = np.array([np.void(question) for question in questions]), flat
        records["check"] = [_check(record) for record in records]
        path = self._folder / f"answers-{self._part:08d}-{flat.shape[1]}.bin"
        try:
            if path not in self._files:
                self._files[path] = open(path, "ab", buffering=0, opener=_private)
            if self._files[path].write(records.tobytes()) < records.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, f"{path}: cannot be written ({error.strerror})") from error

    def turn(self, *, forget: bool = True) -> None:
        """After `init` of training, at the start of `solve`, and after every checkpoint: begin another part.

        What was answered before the older of the two checkpoints that are kept is forgotten, if it may.
        """
        newest, before = [*checkpoint.saved_steps(self._folder), 0, 0][:2]
        if forget:
            self._forget(before + 1)
        self._part = newest + 1

    def clear(self) -> None:
        """Forget all but what `init` was answered, at the end of a run."""
        self._forget(None)

    def _forget(self, before: int | None) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        for file in self._folder.glob("answers-*.bin"):
            part = int(file.name.split("-")[1])
            if part > 0 and (before is None or part < before):
                file.unlink(missing_ok=True)  # several processes train as one


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _layout(size: int) -> np.dtype:
    return np.dtype([("question", "V16"), ("answer", "<f4", (size,)), ("check", "<u4")])


def _check(record: Any) -> int:
    return zlib.crc32(record.tobytes()[:-4])


def _read(file: pathlib.Path) -> np.ndarray:
    """The records up to the first that is torn; what is behind is cut off, since more is appended."""
    layout, content = _layout(int(file.stem.split("-")[2])), file.read_bytes()
    records = np.frombuffer(content, layout, count=len(content) // layout.itemsize)
    whole = next((i for i, record in enumerate(records) if record["check"] != _check(record)), len(records))
    if whole * layout.itemsize < len(content):
        os.truncate(file, whole * layout.itemsize)
    return records[:whole]
