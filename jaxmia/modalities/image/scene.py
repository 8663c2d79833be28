"""What an image audit runs on: pictures, divided, and what is said of them."""

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxmia.config import digest
from jaxmia.data.splits import Split
from jaxmia.data.types import Images

__all__ = ["Scene", "existing_folder", "on_both_sides", "rows_of"]


class Scene(NamedTuple):
    """A data set, split.

    Attributes:
      name: of the data set, for pictures of the user's with the first digits of their digest.
      split: train, validation and locked test of the private classes, and public images of other classes.
      names: of the private classes.
      faces: whether the pictures are known to be faces, so that the pretrained face embedding can judge.
      contents: sha256 of each part's pictures and labels (`splits.contents`).
      notes: sentences on the data that a reader of the report must know.
    """

    name: str
    split: Split
    names: tuple[str, ...]
    faces: bool
    contents: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 of all parts: two people who name it speak of the same pictures, divided alike."""
        return digest(self.contents)


def existing_folder(key: str, folder: str, content: str) -> str:
    """The folder that `data.<key>` names, with `~` written out."""
    path = os.path.expanduser(folder)
    if not folder or not os.path.isdir(path):
        raise FileNotFoundError(f"data.{key}: {folder!r} is no folder; name one with {content}")
    return path


def rows_of(images: Images, chosen: np.ndarray) -> Images:
    return Images(images.images[chosen], images.labels[chosen], images.names)


def on_both_sides(parts: Split) -> tuple[str, ...]:
    """What to say of private pictures that are public as well, pixel for pixel at this size.

    Raises:
      ValueError: if all pictures of somebody private are: a folder was linked or copied.
    """
    public = {hashlib.sha256(image).digest(): label for image, label in zip(parts.public.images, parts.public.labels)}
    found: dict[str, list[str]] = {}
    for name, images in zip(parts.train.names, _by_class(parts)):
        seen = [public.get(hashlib.sha256(image).digest()) for image in images]
        others = sorted({parts.public.names[label] for label in seen if label is not None})
        if None not in seen:
            raise ValueError(
                f"data: all {len(images)} pictures of {name}, who is private, are public too, as {', '.join(others)}; "
                "remove that link or copy, since an adversary who has seen the private people proves nothing"
            )
        if others:
            found[name] = others
    if not found:
        return ()
    named = "; ".join(f"{name} as {', '.join(others)}" for name, others in list(found.items())[:5])
    more = f" and {len(found) - 5} others" if len(found) > 5 else ""
    return (f"Private pictures are public too, which makes attacks look stronger than they are: of {named}{more}.",)


def _by_class(parts: Split) -> Iterator[np.ndarray]:
    """All pictures of each private class, class by class."""
    for c in range(len(parts.train.names)):
        yield np.concatenate([part.images[part.labels == c] for part in (parts.train, parts.validation, parts.test)])
