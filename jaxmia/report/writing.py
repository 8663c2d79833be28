"""Files that are written whole or not at all, and are readable by their owner only."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

__all__ = ["write", "written_whole"]


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file (0600) beside `path` to write to, which takes its place in the end.

    Raises:
      OSError: it cannot be written (no space, no permission), naming `path`; what was there before is kept.
    """
    part = path.with_name(path.name + ".partial")
    try:
        part.unlink(missing_ok=True)  # of a program that was killed, and as readable as that left it
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield part
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(error.errno, f"{path}: cannot be written ({error.strerror or error})") from error


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Write a text, in UTF-8, or bytes; errors as in `written_whole`."""
    with written_whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
