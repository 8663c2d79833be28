"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

__all__ = ["write", "written_whole"]


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file beside `path` to write to, which takes its place in the end.

    Raises:
      OSError: it cannot be written (no space, no permission), naming `path`; what was there before is kept.
    """
    part = path.with_name(path.name + ".partial")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(error.errno, f"{path}: cannot be written ({error.strerror or error})") from error


def write(path: pathlib.Path, text: str) -> None:
    """Write a text; errors as in `written_whole`."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")
