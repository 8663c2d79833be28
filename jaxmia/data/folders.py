"""Photo collections that the user has on disk: class folders, loose pictures, CelebA. Decoded once, then a memmap.

The pixels go to `<cache>/decoded/<key>.npy` (uint8) beside `<key>.json`, which holds for every row the path
and the label, the way of decoding, and the sha256 of the listing (path, label, size and time of change of
every file). The key is made of the last two, so an edited collection or another size is decoded anew, and an
unchanged one never is.
"""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxmia.data.decode import decode
from jaxmia.data.fetch import StrPath, cache_folder, writable_folder
from jaxmia.data.types import Images

__all__ = ["celeba", "image_folder", "loose_pictures"]

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_PARTS = ("train", "validation", "test")  # 0, 1, 2 in list_eval_partition.txt


def image_folder(
    root: StrPath, size: int, *, channels: int = 3, crop: int | None = None, cache: StrPath | None = None
) -> Images:
    """Pictures in one folder per class (FaceScrub, your own): `root/<class>/**/<picture>`.

    Classes are the folder names in sorted order, pictures are sorted by path. Hidden files and files without
    the suffix of a picture are not pictures. Of every picture a centered square is resized; see `decode`.

    Args:
      root: the folder that holds the class folders.
      size: rows and columns of the result.
      channels: 3 for RGB, 1 for grey.
      crop: side of the square in pixels of the file; None takes the largest one.
      cache: see `fetch`.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no classes, a class without pictures, or a picture that cannot be read (all by name).
    """
    root = _folder(root)
    _check_shape(size, channels, crop)
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"root: {root} has no class folders")
    paths, labels = [], []
    for label, name in enumerate(classes):
        inside = _below(root, name)
        if not inside:
            raise ValueError(f"root: class folder {root / name} has no pictures")
        paths += inside
        labels += [label] * len(inside)
    return _decoded(root, paths, labels, tuple(classes), _options(size, channels, crop), cache)


def loose_pictures(
    root: StrPath,
    size: int,
    *,
    channels: int = 3,
    crop: int | None = None,
    most: int | None = None,
    seed: int = 0,
    cache: StrPath | None = None,
) -> Images:
    """All pictures below a folder, of nobody in particular (FFHQ): one class, named as the folder.

    Args:
      root: the folder; what lies deeper counts, too.
      size: rows and columns of the result.
      channels: 3 for RGB, 1 for grey.
      crop: side of the centered square in pixels of the file; None takes the largest one. GMI's descendants cut 88 of
        FFHQ's 128-pixel thumbnails.
      most: so many of them, drawn by `seed`; None takes all.
      seed: of the choice.
      cache: see `fetch`.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no pictures, or one that cannot be read (named).
    """
    root = _folder(root)
    _check_shape(size, channels, crop)
    paths = _below(root, ".")
    if not paths:
        raise ValueError(f"root: {root} has no pictures")
    if most is not None and most < len(paths):
        chosen = np.random.default_rng(seed).choice(len(paths), most, replace=False)
        paths = [paths[row] for row in np.sort(chosen)]
    return _decoded(root, paths, [0] * len(paths), (root.name,), _options(size, channels, crop), cache)


def celeba(root: StrPath, size: int, *, parts: Sequence[str] = _PARTS, cache: StrPath | None = None) -> Images:
    """CelebA (Liu et al., ICCV 2015), aligned and cropped, in the crop of GMI: center 108 x 108 of 218 x 178, resized.

    `root` holds `img_align_celeba/`, `identity_CelebA.txt` and `list_eval_partition.txt`. Identities are
    named by their number and sorted by it; pictures are sorted by file name.

    Args:
      root: the folder.
      size: rows and columns of the result; 64 in GMI, KED-MI, PLG-MI.
      parts: which of the official parts to take: "train", "validation", "test". No identity is in two of
        them.
      cache: see `fetch`.

    Raises:
      FileNotFoundError: folder, list or picture missing (named).
      ValueError: a line of a list that cannot be understood (file and line), lists that do not cover the same
        pictures, or a picture that cannot be read or is not 218 x 178.
    """
    root = _folder(root)
    _check_shape(size, 3, None)
    unknown = [part for part in parts if part not in _PARTS]
    if unknown or not parts:
        raise ValueError(f"parts: {tuple(parts)} must be some of {', '.join(_PARTS)}")
    identities = _pairs(root / "identity_CelebA.txt")
    partition = _pairs(root / "list_eval_partition.txt")
    alone = sorted(identities.keys() ^ partition.keys())
    if alone:
        raise ValueError(
            f"root: {alone[0]} is in only one of identity_CelebA.txt and list_eval_partition.txt ({len(alone)} such)"
        )
    wrong = sorted(name for name, part in partition.items() if not 0 <= part < len(_PARTS))
    if wrong:
        raise ValueError(f"list_eval_partition.txt: {wrong[0]} has part {partition[wrong[0]]}, must be 0, 1 or 2")
    files = sorted(name for name, part in partition.items() if _PARTS[part] in parts)
    if not files:
        raise ValueError(f"parts: no picture is in {', '.join(parts)}")
    people = sorted({identities[name] for name in files})
    label = {identity: index for index, identity in enumerate(people)}
    options = {"size": size, "channels": 3, "crop": 108, "source_size": (218, 178)}
    return _decoded(
        root,
        [f"img_align_celeba/{name}" for name in files],
        [label[identities[name]] for name in files],
        tuple(str(identity) for identity in people),
        options,
        cache,
    )


def _folder(root: StrPath) -> pathlib.Path:
    folder = pathlib.Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"root: {folder} is not a folder")
    return folder


def _below(root: pathlib.Path, part: str) -> list[str]:
    """Pictures in a part of the folder, at any depth, sorted, as paths from the root."""
    return sorted(
        path.relative_to(root).as_posix()
        for path in (root / part).rglob("*")
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _options(size: int, channels: int, crop: int | None) -> dict[str, Any]:
    return {"size": size, "channels": channels, **({} if crop is None else {"crop": crop})}


def _check_shape(size: int, channels: int, crop: int | None) -> None:
    if size < 1:
        raise ValueError(f"size: {size} is out of range, it must be at least 1")
    if crop is not None and crop < 1:
        raise ValueError(f"crop: {crop} is out of range, it must be at least 1")
    if channels not in (1, 3):
        raise ValueError(f"channels: {channels} is not legal, it must be 1 (grey) or 3 (RGB)")


def _pairs(path: pathlib.Path) -> dict[str, int]:
    """Lines "file number" of a CelebA list."""
    if not path.is_file():
        raise FileNotFoundError(f"root: {path} is missing")
    pairs: dict[str, int] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdecimal() or fields[0] in pairs:
            raise ValueError(f"{path.name}, line {number}: {line!r} must be a new file name and a number")
        pairs[fields[0]] = int(fields[1])
    return pairs


def _decoded(
    root: pathlib.Path,
    paths: Sequence[str],
    labels: Sequence[int],
    names: tuple[str, ...],
    options: dict[str, Any],
    cache: StrPath | None,
) -> Images:
    listing = hashlib.sha256()
    for path, label in zip(paths, labels, strict=True):
        status = (root / path).stat()
        listing.update(f"{path}\t{label}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    key = hashlib.sha256(f"{json.dumps(options)}{listing.hexdigest()}".encode()).hexdigest()[:32]
    folder = cache_folder(cache) / "decoded"
    pixels, index = folder / f"{key}.npy", folder / f"{key}.json"
    shape = (len(paths), options["size"], options["size"], options["channels"])
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
            _write_pixels(fresh, [root / path for path in paths], shape, options)
            fresh_index.write_text(json.dumps(description), "utf-8")
            os.replace(fresh, pixels)
            os.replace(fresh_index, index)
    images = np.load(pixels, mmap_mode="r", allow_pickle=False)
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(f"cache: {pixels} holds {images.dtype} {images.shape}, expected uint8 {shape}; remove it")
    return Images(images, np.array(labels, np.int32), names)


def _check_space(folder: pathlib.Path, needed: int) -> None:
    # A memmap that outgrows the disk kills the process by a signal, which nobody could catch or explain.
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"cache: {folder} has {free >> 20} MiB free, the decoded pictures need {needed >> 20} MiB")


def _write_pixels(
    file: pathlib.Path, paths: Sequence[pathlib.Path], shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    output = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)

    def write(row: int) -> None:
        output[row] = decode(paths[row], **options)

    # Pillow works outside the interpreter lock, so threads help. In portions: an error ends the work at once.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), 1024):
            for _ in pool.map(write, range(start, min(start + 1024, len(paths)))):
                pass
    output.flush()
