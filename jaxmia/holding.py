"""One at a time in a folder: `lock` in it says who works there, and the system gives it back when the process ends."""

import contextlib
import functools
import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax
import psutil

from jaxmia.checkpoint import private_folder
from jaxmia.parallel import agree

try:
    import fcntl
except ImportError:  # Windows, where a lock tells by its process alone
    fcntl = None

__all__ = ["alone", "held"]

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def held(folder: str | os.PathLike, command: str) -> Iterator[pathlib.Path]:
    """The folder (created 0700), kept from others meanwhile; several processes of one run hold it together.

    Args:
      folder: of a run, or of a part of one.
      command: who holds it, in words for whoever comes second.

    Raises:
      ValueError: another process, or another thread of this one, works in it; process and host are named.
    """
    run, lock, refusal = private_folder(folder), None, ""
    if jax.process_index() == 0:
        try:
            lock = _lock(run, command)
        except ValueError as error:
            refusal = str(error)
    if not agree(not refusal):
        raise ValueError(refusal or f"run folder {run}: is in use, as the first process found")
    try:
        yield run
    finally:
        if lock is not None:
            (run / "lock").unlink(missing_ok=True)
            os.close(lock)


def alone(work: Callable[P, R]) -> Callable[P, R]:
    """A function with the keywords `folder` (or None) and `title` that holds the folder while it works."""

    @functools.wraps(work)
    def holding(*args: P.args, **how: P.kwargs) -> R:
        folder: Any = how.get("folder")
        if folder is None:
            return work(*args, **how)
        with held(folder, f"{how.get('title', work.__name__)}"):
            return work(*args, **how)

    return holding


def _lock(run: pathlib.Path, command: str) -> int:
    """The descriptor of the folder's lock, which the system gives back when the process ends, however it does."""
    path, host = run / "lock", socket.gethostname()
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        taken = _taken(lock)
        if not taken and (not path.exists() or path.stat().st_ino != os.fstat(lock).st_ino):
            os.close(lock)  # the holder before had just removed it
            continue
        holder = _holder(path)
        words = "process {pid} on {host} ({command})".format(**holder)
        if not taken and holder["host"] in ("", host):
            os.ftruncate(lock, 0)
            os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": host, "command": command}).encode(), 0)
            return lock
        os.close(lock)
        remedy = "wait until it ends" if taken else f"if it does not run any more, delete {path}"
        raise ValueError(f"run folder {run}: is in use by {words}; {remedy}, or name another folder")


def _taken(lock: int) -> bool:
    """Whether a process of this host holds the lock, or of another one where the file system tells."""
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            pass
    holder = _holder(lock)
    return holder["host"] == socket.gethostname() and psutil.pid_exists(holder["pid"])


def _holder(file: pathlib.Path | int) -> dict[str, Any]:
    """What a lock says of who holds it; it says nothing for a moment, and after a crash of the machine."""
    nobody = {"pid": 0, "host": "", "command": "unknown"}
    try:
        content = os.pread(file, 65536, 0) if isinstance(file, int) else file.read_bytes()
        return {**nobody, **json.loads(content)}
    except (OSError, ValueError, TypeError):
        return nobody
