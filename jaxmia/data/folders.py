"""Photo collections that the user has on disk: class folders, loose pictures, CelebA."""

import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmia.data.decode import Extent, pair
from jaxmia.data.decoded import decoded
from jaxmia.data.fetch import StrPath
from jaxmia.data.types import Images

__all__ = ["celeba", "image_folder", "loose_pictures"]

_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_UNREAD = frozenset((".arw", ".avif", ".cr2", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".psd", ".svg"))
"""Suffixes of pictures that are not read, and are said to be there."""
_DIVISIONS = frozenset(("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"))
"""Names of folders that divide a collection, and not of people."""
_PARTS = ("train", "validation", "test")  # 0, 1, 2 in list_eval_partition.txt


def image_folder(
    root: StrPath,
    size: Extent,
    *,
    channels: int = 3,
    crop: Extent | None = None,
    broken: float = 0.0,
    cache: StrPath | None = None,
) -> Images:
    """Pictures in one folder per class (FaceScrub, your own): `root/<class>/**/<picture>`.

    Classes are the folder names in sorted order, pictures are sorted by path. What is hidden,
    `__MACOSX` and files without the suffix of a picture are passed over. Of every picture the
    middle is resized; see `decode`. Pictures that are left out, and those in formats that are not
    read, are counted in the result's notes.

    Args:
      root: the folder that holds the class folders.
      size: rows and columns of the result.
      channels: 3 for RGB, 1 for grey.
      crop: rows and columns of the middle in pixels of the file; None takes the most that has the
        proportions of `size`.
      broken: share of the pictures that may be left out because they cannot be read, at least 0 and
        below 1.
      cache: see `fetch`.

    Raises:
      FileNotFoundError: no such folder.
      PermissionError: a folder that cannot be read.
      ValueError: no classes, class folders that are a division into training and test data, a class
        without pictures, or more pictures than `broken` allows that cannot be read (all by name).
    """
    root = _folder(root)
    _check_shape(size, channels, crop)
    _check_broken(broken)
    classes = _inside(root)
    if not classes:
        raise ValueError(f"root: {root} has no class folders")
    _refuse_a_division(root, classes)
    paths, labels, unread = [], [], []
    for label, name in enumerate(classes):
        inside, passed = _below(root, name)
        if not inside:
            raise ValueError(f"root: class folder {root / name} has no pictures{_but(passed)}")
        paths += inside
        unread += passed
        labels += [label] * len(inside)
    options = _options(size, channels, crop)
    return decoded(root, paths, labels, tuple(classes), options, cache, broken, _notes(unread))


def loose_pictures(
    root: StrPath,
    size: Extent,
    *,
    channels: int = 3,
    crop: Extent | None = None,
    broken: float = 0.0,
    most: int | None = None,
    seed: int = 0,
    cache: StrPath | None = None,
) -> Images:
    """All pictures below a folder, of nobody in particular (FFHQ): one class, named as the folder.

    Args:
      root: the folder; what lies deeper counts, too.
      size: rows and columns of the result.
      channels: 3 for RGB, 1 for grey.
      crop: rows and columns of the middle in pixels of the file; None takes the most that has the
        proportions of `size`. GMI's descendants cut 88 of FFHQ's 128-pixel thumbnails.
      broken: as in `image_folder`.
      most: so many of them, drawn by `seed`; None takes all.
      seed: of the choice.
      cache: see `fetch`.

    Raises:
      FileNotFoundError: no such folder.
      PermissionError: a folder that cannot be read.
      ValueError: no pictures, or more than `broken` allows that cannot be read (named).
    """
    root = _folder(root)
    _check_shape(size, channels, crop)
    _check_broken(broken)
    paths, unread = _below(root, ".")
    if not paths:
        raise ValueError(f"root: {root} has no pictures{_but(unread)}")
    if most is not None and most < len(paths):
        chosen = np.random.default_rng(seed).choice(len(paths), most, replace=False)
        paths = [paths[row] for row in np.sort(chosen)]
    options = _options(size, channels, crop)
    return decoded(root, paths, [0] * len(paths), (root.name,), options, cache, broken, _notes(unread))


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
    return decoded(
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


def _is_passed_over(name: str) -> bool:
    """What an operating system put there, and not the user."""
    return name.startswith(".") or name == "__MACOSX"


def _inside(folder: pathlib.Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_passed_over(path.name))


def _below(root: pathlib.Path, part: str) -> tuple[list[str], list[str]]:
    """Pictures in a part of the folder, at any depth, sorted, as paths from the root; and those
    that are not read."""

    def refuse(error: OSError) -> None:
        raise PermissionError(
            error.errno, f"root: folder {error.filename} cannot be read ({error.strerror})"
        ) from error

    pictures, unread = [], []
    for where, folders, files in os.walk(root / part, onerror=refuse):
        folders[:] = [name for name in folders if not _is_passed_over(name)]
        for path in (pathlib.Path(where, name) for name in files if not _is_passed_over(name)):
            suffix = path.suffix.lower()
            if suffix in _SUFFIXES | _UNREAD and path.is_file():
                (pictures if suffix in _SUFFIXES else unread).append(path.relative_to(root).as_posix())
    return sorted(pictures), sorted(unread)


def _refuse_a_division(root: pathlib.Path, classes: Sequence[str]) -> None:
    if not all(name.casefold() in _DIVISIONS for name in classes):
        return
    people = sorted({name for part in classes for name in _inside(root / part)})
    known = f" of {', '.join(people[:3])}{' and others' if len(people) > 3 else ''}" if people else ""
    raise ValueError(
        f"root: {root} holds {', '.join(classes)}, which look like a division of pictures{known} and not like people or "
        f"classes; name one of them ({root / classes[0]}), or put all pictures of a class into one folder; classes that "
        "are really called so need other names"
    )


def _but(unread: Sequence[str]) -> str:
    return f" in a format that is read, but {_counted(unread)}; save them as JPEG or PNG" if unread else ""


def _notes(unread: Sequence[str]) -> tuple[str, ...]:
    if not unread:
        return ()
    return (f"Pictures in formats that are not read are passed over: {_counted(unread)}, such as {unread[0]}.",)


def _counted(paths: Sequence[str]) -> str:
    """How many there are of each suffix."""
    counts = Counter(pathlib.PurePosixPath(path).suffix.lower() for path in paths)
    return ", ".join(f"{n} {suffix}" for suffix, n in sorted(counts.items()))


def _options(size: Extent, channels: int, crop: Extent | None) -> dict[str, Any]:
    return {"size": size, "channels": channels, **({} if crop is None else {"crop": crop})}


def _check_broken(broken: float) -> None:
    if not 0 <= broken < 1:
        raise ValueError(f"broken: {broken}; legal is a share of at least 0 and below 1")


def _check_shape(size: Extent, channels: int, crop: Extent | None) -> None:
    if min(pair(size)) < 1:
        raise ValueError(f"size: {size} is out of range, it must be at least 1")
    if crop is not None and min(pair(crop)) < 1:
        raise ValueError(f"crop: {crop} is out of range, it must be at least 1")
    if isinstance(crop, int) and len(set(pair(size))) > 1:
        raise ValueError(f"crop: {crop}; legal with a size of {size[0]}x{size[1]} is [rows, columns]")  # type: ignore[index]
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
