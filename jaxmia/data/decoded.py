"""Pictures decoded once, then a memmap.

The pixels go to `<cache>/decoded/<key>.npy` (uint8) beside `<key>.json`, which holds for every row
the path and the label, the way of decoding, the sha256 of the listing (path, label, size and time
of change of every file), and by row what is wrong with pictures that cannot be read, which have no
pixels. The key is made of the way and the listing, so an edited collection or another size is
decoded anew, and an unchanged one never is.
"""

import hashlib
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxmia.data.decode import decode, pair
from jaxmia.data.fetch import StrPath, cache_folder, writable_folder
from jaxmia.data.types import Images

__all__ = ["decoded"]

_NAMED = 5  # files that a note names; an error names all


def decoded(
    root: pathlib.Path,
    paths: Sequence[str],
    labels: Sequence[int],
    names: tuple[str, ...],
    options: dict[str, Any],
    cache: StrPath | None,
    broken: float | None = None,
    notes: tuple[str, ...] = (),
) -> Images:
    """The pictures, from the cache or decoded into it.

    Args:
      root: folder that paths start from.
      paths: of the pictures.
      labels: of each.
      names: of the classes.
      options: of `decode`, `size` and `channels` among them.
      cache: see `fetch`.
      broken: share of pictures that may be left out because they cannot be read; None is none, and
        nobody can say more.
      notes: the first of the result's.

    Raises:
      ValueError: more pictures than may be left out cannot be read (all by name), or none of a
        class can.
    """
    listing = hashlib.sha256()
    for path, label in zip(paths, labels, strict=True):
        status = (root / path).stat()
        listing.update(f"{path}\t{label}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    key = hashlib.sha256(f"{json.dumps(options)}{listing.hexdigest()}".encode()).hexdigest()[:32]
    folder = cache_folder(cache) / "decoded"
    pixels, index = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(paths), *pair(options["size"]), options["channels"])
    # The index is written last, so that its presence says that the pixels are complete.
    if not (index.exists() and pixels.exists()):
        writable_folder(folder)
        _check_space(folder, int(np.prod(shape)))
        description = {
            "root": str(root),
            "options": options,
            "listing_sha256": listing.hexdigest(),
            "names": names,
            "labels": labels,
            "paths": paths,
        }
        with tempfile.TemporaryDirectory(prefix=".decode-", dir=folder) as temporary:
            fresh, fresh_index = (
                pathlib.Path(temporary) / "pixels.npy",
                pathlib.Path(temporary) / "index.json",
            )
            failed = _write_pixels(fresh, [root / path for path in paths], shape, options)
            _refuse_broken(failed.values(), len(paths), broken)
            if failed:
                fresh = _without(fresh, sorted(failed))
                description["left_out"] = {str(row): words for row, words in failed.items()}
            fresh_index.write_text(json.dumps(description), "utf-8")
            os.replace(fresh, pixels)
            os.replace(fresh_index, index)
    images = np.load(pixels, mmap_mode="r", allow_pickle=False)
    left_out: dict[str, str] = {}
    if images.shape != shape:  # the index is long, and read only where something is missing
        left_out = json.loads(index.read_text("utf-8")).get("left_out", {})
    shape = (len(paths) - len(left_out), *shape[1:])
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(f"cache: {pixels} holds {images.dtype} {images.shape}, expected uint8 {shape}; remove it")
    numbers = np.array(labels, np.int32)
    if left_out:
        _refuse_broken(left_out.values(), len(paths), broken)
        rows = [int(row) for row in left_out]
        numbers = np.delete(numbers, rows)
        lost = [name for name, n in zip(names, np.bincount(numbers, minlength=len(names))) if n == 0]
        if lost:
            raise ValueError(f"root: class folder {root / lost[0]} has no picture that can be read")
        more = f" and {len(rows) - _NAMED} others" if len(rows) > _NAMED else ""
        files = ", ".join(paths[row] for row in rows[:_NAMED])
        notes += (f"{len(rows)} of {len(paths)} pictures cannot be read and are left out: {files}{more}.",)
    return Images(images, numbers, names, notes)


def _refuse_broken(words: Collection[str], total: int, broken: float | None) -> None:
    if len(words) <= (broken or 0) * total:
        return
    share = math.ceil(1000 * len(words) / total) / 1000
    way = "" if broken is None else f", or let a share of {share:g} be left out (`broken`)"
    message = f"root: {len(words)} of {total} pictures cannot be read; mend or remove them{way}:"
    raise ValueError("\n  ".join([message, *words]))


def _without(pixels: pathlib.Path, rows: Sequence[int]) -> pathlib.Path:
    """The pixels without some rows, in a new file."""
    old = np.load(pixels, mmap_mode="r", allow_pickle=False)
    kept = np.delete(np.arange(len(old)), rows)
    _check_space(pixels.parent, int(len(kept) * np.prod(old.shape[1:])))
    file = pixels.with_name("kept.npy")
    new = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(kept), *old.shape[1:]))
    for start in range(0, len(kept), 1024):
        new[start : start + 1024] = old[kept[start : start + 1024]]
    new.flush()
    return file


def _check_space(folder: pathlib.Path, needed: int) -> None:
    # A memmap that outgrows the disk kills the process by a signal, which nobody could catch or explain.
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"cache: {folder} has {free >> 20} MiB free, the decoded pictures need {needed >> 20} MiB")


def _write_pixels(
    file: pathlib.Path, paths: Sequence[pathlib.Path], shape: tuple[int, ...], options: dict[str, Any]
) -> dict[int, str]:
    """Decode all; by row, what is wrong with those that cannot be read."""
    output = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    failed: dict[int, str] = {}

    def write(row: int) -> None:
        try:
            output[row] = decode(paths[row], **options)
        except PermissionError as error:
            failed[row] = f"picture {paths[row]}: {error.strerror}"
        except ValueError as error:  # damaged
            failed[row] = str(error)

    # Pillow works outside the interpreter lock, so threads help. In portions: any other error ends the work at once.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), 1024):
            for _ in pool.map(write, range(start, min(start + 1024, len(paths)))):
                pass
    output.flush()
    return {row: failed[row] for row in sorted(failed)}
