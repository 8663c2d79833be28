"""The pictures of a model that is there already, in folders that the user divided."""

import os
from typing import Literal

import numpy as np

from jaxmia.data import splits
from jaxmia.data.folders import loose_pictures
from jaxmia.data.splits import Split
from jaxmia.data.types import Images
from jaxmia.modalities.image.scene import Scene, existing_folder, on_both_sides, rows_of

__all__ = ["folders"]


def folders(
    *,
    private: str = "",
    held_out: str = "",
    public: str = "",
    size: int | tuple[int, int] = 64,
    channels: Literal[1, 3] = 3,
    crop: int | tuple[int, int] | None = None,
    broken: float = 0.0,
    faces: bool = False,
    classes: str = "",
    public_most: int | None = None,
) -> Scene:
    """The pictures of a model that is there: those it was trained on and others of the same classes, each in a subfolder
    per class, and public ones anywhere below a folder.

    `classes` is a file with the names of the classes, one in a line, as the model counts them; without it they are the
    subfolders in sorted order, as torchvision's ImageFolder counts them. Every second held-out picture of a class is for
    validation, the others are the test. The other keywords are those of `folder`.
    """
    from jaxmia.data import image_folder

    how = {"channels": channels, "crop": crop, "broken": broken}
    parts = {}
    for key, root in (("private", private), ("held_out", held_out)):
        parts[key] = image_folder(existing_folder(key, root, "a subfolder of pictures per class"), size, **how)
    names = _class_names(classes) if classes else parts["private"].names
    train, held = (_renamed(key, images, names) for key, images in parts.items())
    second = np.array([np.count_nonzero(held.labels[:i] == label) % 2 == 1 for i, label in enumerate(held.labels)])
    there = existing_folder("public", public, "public pictures below it")
    others = loose_pictures(there, size, **how, most=public_most, seed=0)
    made = Split(train, rows_of(held, second), rows_of(held, ~second), others)
    notes = train.notes + held.notes + others.notes + on_both_sides(made)
    scene = Scene("folders", made, names, faces, splits.contents(made), notes)
    return scene._replace(name=f"folders {scene.digest[:12]}")


def _class_names(file: str) -> tuple[str, ...]:
    path = os.path.expanduser(file)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"data.classes: {file!r} is no file; name one with a class in each line")
    with open(path, encoding="utf-8") as lines:
        return tuple(line.strip() for line in lines if line.strip())


def _renamed(key: str, images: Images, names: tuple[str, ...]) -> Images:
    """The same pictures with labels that count `names`."""
    strange = sorted(set(images.names) - set(names))
    missing = sorted(set(names) - set(images.names))
    if strange or missing:
        raise ValueError(
            f"data.{key}: has {', '.join(strange) or 'nothing'} besides the classes, and lacks "
            f"{', '.join(missing) or 'nothing'}; legal is a subfolder for each of {', '.join(names)}"
        )
    order = np.array([names.index(name) for name in images.names])
    return Images(images.images, order[images.labels], names, images.notes)
