"""Who is private, who is public, and which photos the target, the model selection and the final score may see.

A `Manifest` is a small JSON file that fixes which rows of a set are in which part; whether two people's sets hold the
same pictures is another matter, which `contents` tells. Public and private classes are disjoint: a prior that has seen
the private people proves nothing.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxmia.data import mnist, orl
from jaxmia.data.fetch import StrPath
from jaxmia.data.types import Images

__all__ = [
    "Manifest",
    "Split",
    "contents",
    "identity_manifest",
    "mnist_manifest",
    "most_frequent",
    "orl_manifest",
    "split",
]

Indices = tuple[tuple[int, ...], ...]


class Manifest(NamedTuple):
    """A fixed division of a labeled image set.

    Attributes:
      dataset: name of the image set it is for.
      private: names of the classes that the target learns and the attack wants.
      public: names of the classes that the attacker may learn from, with all of their photos; may be empty
        where the public photos come from another set.
      train: for every private class, rows of the images that train the target.
      validation: likewise, rows for choosing epochs, hyperparameters and candidates.
      test: likewise, rows that are locked: no selection of any kind sees them, only the final score does.
    """

    dataset: str
    private: tuple[str, ...]
    public: tuple[str, ...]
    train: Indices
    validation: Indices
    test: Indices

    @property
    def digest(self) -> str:
        """sha256 over all fields, as hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._asdict(), sort_keys=True).encode()).hexdigest()

    def write(self, path: StrPath) -> None:
        """Writes the manifest and its digest as JSON; all or nothing. ValueError if it contradicts itself."""
        _check(self)
        path = pathlib.Path(path).expanduser()
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps({**self._asdict(), "digest": self.digest}) + "\n", "utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: StrPath) -> "Manifest":
        """Reads what `write` wrote; ValueError if fields are wrong, it was edited, or it contradicts itself."""
        try:
            fields = json.loads(pathlib.Path(path).expanduser().read_text("utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"manifest {os.fspath(path)}: is not JSON ({error})") from error
        expected = {*cls._fields, "digest"}
        if not isinstance(fields, dict) or fields.keys() != expected:
            raise ValueError(f"manifest {os.fspath(path)}: must have the fields {', '.join(sorted(expected))}")
        digest = fields.pop("digest")
        manifest = cls(**{name: _tuples(value) for name, value in fields.items()})
        if manifest.digest != digest:
            raise ValueError(f"manifest {os.fspath(path)}: digest is {manifest.digest}, the file says {digest}")
        _check(manifest)
        return manifest


class Split(NamedTuple):
    """The four image sets of an experiment.

    Attributes:
      train: private, trains the target; labels 0 to k-1 in the order of `Manifest.private`.
      validation: private, for every choice that is made by looking at results; the same labels.
      test: private and locked, for the final score only; the same labels.
      public: what the attacker may learn from; labels 0 to p-1 in the order of `Manifest.public`.
    """

    train: Images
    validation: Images
    test: Images
    public: Images


def split(images: Images, manifest: Manifest) -> Split:
    """Divides images by a manifest. Copies the rows that it picks, also from a memmap.

    Raises:
      ValueError: the manifest contradicts itself, or does not fit these images: unknown class, row out of
        range, or a row of another class.
    """
    _check(manifest)
    position = {name: index for index, name in enumerate(images.names)}
    unknown = [name for name in (*manifest.private, *manifest.public) if name not in position]
    if unknown:
        raise ValueError(f"manifest: classes {', '.join(unknown)} are not in the images")
    private = np.array([position[name] for name in manifest.private])
    rows = {part: _private_rows(images, private, part, getattr(manifest, part)) for part in Split._fields[:3]}
    public_number = np.full(len(images.names), -1, np.int32)
    public_number[[position[name] for name in manifest.public]] = np.arange(len(manifest.public))
    numbers = public_number[images.labels]
    picked = np.flatnonzero(numbers >= 0)
    return Split(
        **{part: Images(images.images[row], label, manifest.private) for part, (row, label) in rows.items()},
        public=Images(images.images[picked], numbers[picked], manifest.public),
    )


def contents(parts: Split) -> dict[str, str]:
    """sha256 (64 hex digits) of every part by name: its pictures, their labels and the names of the classes."""
    found = {}
    for part, images in parts._asdict().items():
        sha = hashlib.sha256(json.dumps([images.images.shape, images.names]).encode())
        sha.update(np.ascontiguousarray(images.images).data)
        sha.update(np.ascontiguousarray(images.labels, np.int64).data)
        found[part] = sha.hexdigest()
    return found


def most_frequent(labels: Int[np.ndarray, " n"], names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The names of the `number` classes with most photos, in their own order; of equal ones the earlier.

    The private people of the protocols on CelebA.

    >>> most_frequent(np.array([0, 1, 1, 2, 2]), ("a", "b", "c"), 2)
    ('b', 'c')
    """
    order = np.argsort(-np.bincount(labels, minlength=len(names)), kind="stable")
    return tuple(names[row] for row in np.sort(order[:number]))


def identity_manifest(
    labels: Int[np.ndarray, " n"],
    names: tuple[str, ...],
    *,
    dataset: str,
    private: Sequence[str],
    public: Sequence[str],
    validation: float,
    test: float,
    seed: int = 0,
) -> Manifest:
    """Divides the photos of every private class at random; the shares are rounded per class.

    Args:
      labels: as in `Images`.
      names: as in `Images`.
      dataset: name for the manifest.
      private: classes of the target.
      public: classes of the attacker.
      validation: share of the photos of each private class, 0 to below 1.
      test: likewise.
      seed: of the shuffle; the division of a class depends on the seed and the class only.

    Raises:
      ValueError: classes overlap or do not exist, shares are out of range, or a class is too small to leave a
        photo for every part whose share is above 0 and for training.
    """
    _check_shares(validation=validation, test=test)
    parts: dict[str, list[tuple[int, ...]]] = {"train": [], "validation": [], "test": []}
    for name in private:
        if name not in names:
            raise ValueError(f"private: {name!r} is not a class of {dataset}")
        label = names.index(name)
        rows = np.flatnonzero(labels == label)
        np.random.default_rng((seed, label)).shuffle(rows)
        counts = {"test": int(test * len(rows) + 0.5), "validation": int(validation * len(rows) + 0.5)}
        counts["train"] = len(rows) - sum(counts.values())
        shares = {"test": test, "validation": validation, "train": 1.0}
        empty = [part for part, count in counts.items() if count < 1 and shares[part] > 0]
        if empty:
            raise ValueError(f"private: class {name!r} has {len(rows)} photos, too few: {', '.join(empty)} gets none")
        start = 0
        for part, count in counts.items():
            parts[part].append(_integers(rows[start : start + count]))
            start += count
    manifest = Manifest(dataset, tuple(private), tuple(public), **{part: tuple(rows) for part, rows in parts.items()})
    missing = [name for name in public if name not in names]
    if missing:
        raise ValueError(f"public: {missing[0]!r} is not a class of {dataset}")
    _check(manifest)
    return manifest


def orl_manifest(seed: int = 0) -> Manifest:
    """ORL: private s1-s20, public s21-s40; of every private person 7 photos train, 1 validates, 2 are locked."""
    return identity_manifest(
        orl.LABELS,
        orl.NAMES,
        dataset="orl",
        private=orl.NAMES[:20],
        public=orl.NAMES[20:],
        validation=0.1,
        test=0.2,
        seed=seed,
    )


def mnist_manifest(seed: int = 0, *, validation: float = 0.1, cache: StrPath | None = None) -> Manifest:
    """MNIST in the layout of GMI: private digits 5-9, public digits 0-4 (all 70,000 rows are divided).

    The locked test rows are those of the official test set; a share of the official training set, drawn by
    `seed`, validates. Reads the labels, so the set is fetched if need be.
    """
    labels = mnist.load(cache=cache).labels
    names = tuple(str(digit) for digit in range(10))
    train = identity_manifest(
        labels[mnist.TRAIN],
        names,
        dataset="mnist",
        private=names[5:],
        public=names[:5],
        validation=validation,
        test=0.0,
        seed=seed,
    )
    first = mnist.TEST.start
    test = tuple(_integers(first + np.flatnonzero(labels[mnist.TEST] == digit)) for digit in range(5, 10))
    return train._replace(test=test)


def _check(manifest: Manifest) -> None:
    for field in ("private", "public"):
        classes = getattr(manifest, field)
        if len(set(classes)) < len(classes):
            raise ValueError(f"{field}: a class is named twice in {', '.join(classes)}")
    if not manifest.private:
        raise ValueError("private: names no class")
    overlap = [name for name in manifest.private if name in set(manifest.public)]
    if overlap:
        raise ValueError(f"private and public overlap: {', '.join(overlap)}; they must be disjoint")
    owner: dict[int, str] = {}
    for part in Split._fields[:3]:
        per_class = getattr(manifest, part)
        if len(per_class) != len(manifest.private):
            raise ValueError(f"{part}: has {len(per_class)} classes, must have {len(manifest.private)} like private")
        for name, rows in zip(manifest.private, per_class, strict=True):
            if part == "train" and not rows:
                raise ValueError(f"train: class {name!r} has no rows")
            for row in rows:
                if row in owner:
                    raise ValueError(f"{part}: row {row} of class {name!r} is also in {owner[row]}")
                owner[row] = part


def _check_shares(**shares: float) -> None:
    for field, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{field}: {share} is out of range, it must be at least 0 and below 1")
    if sum(shares.values()) >= 1:
        raise ValueError(f"validation and test: {shares} leave nothing to train on")


def _private_rows(
    images: Images, private: Int[np.ndarray, " k"], part: str, per_class: Indices
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    rows = np.array([row for rows in per_class for row in rows], np.int64)
    numbers = np.repeat(np.arange(len(private), dtype=np.int32), [len(rows) for rows in per_class])
    outside = rows[(rows < 0) | (rows >= len(images.labels))]
    if outside.size:
        raise ValueError(f"{part}: row {outside[0]} is out of range, there are {len(images.labels)} images")
    wrong = np.flatnonzero(images.labels[rows] != private[numbers])
    if wrong.size:
        row = rows[wrong[0]]
        raise ValueError(
            f"{part}: row {row} is of class {images.names[images.labels[row]]!r}, the manifest says "
            f"{images.names[private[numbers[wrong[0]]]]!r}; is it for other images?"
        )
    return rows, numbers


def _integers(rows: Int[np.ndarray, " m"]) -> tuple[int, ...]:
    return tuple(np.sort(rows).tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
