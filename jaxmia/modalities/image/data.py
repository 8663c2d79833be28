"""What an image audit runs on: data sets with their private and public split."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from jaxmia.audit.modality import MadeUp
from jaxmia.data import splits
from jaxmia.data.folders import loose_pictures
from jaxmia.data.splits import Manifest, Split
from jaxmia.data.types import Images
from jaxmia.modalities.image.folders import folders
from jaxmia.modalities.image.priors import MADE_UP
from jaxmia.modalities.image.scene import Scene, existing_folder, on_both_sides, rows_of

__all__ = ["DATA", "made_up"]


def orl(*, height: int = 56, width: int = 46, split_seed: int = 0) -> Scene:
    """ORL/AT&T faces: people s1-s20 private, s21-s40 public."""
    from jaxmia.data import orl as source
    from jaxmia.data import orl_manifest, split

    manifest = orl_manifest(split_seed)
    parts = split(source.load(height, width), manifest)
    return Scene("orl", parts, tuple(manifest.private), True, splits.contents(parts))


def mnist(*, size: int = 32, per_class: int | None = None, split_seed: int = 0) -> Scene:
    """MNIST as in GMI: digits 5-9 private, 0-4 public; `per_class` is the most images of a digit in each part."""
    from jaxmia.data import mnist as source
    from jaxmia.data import mnist_manifest, split

    manifest = mnist_manifest(split_seed)
    parts = split(source.load(size), manifest)
    if per_class is not None:
        parts = Split(*(_at_most(part, per_class, split_seed) for part in parts))
    return Scene("mnist", parts, tuple(manifest.private), False, splits.contents(parts))


def _at_most(images: Images, per_class: int, seed: int) -> Images:
    """A seeded choice of `per_class` images of every class, all where there are fewer."""
    if per_class < 1:
        raise ValueError(f"data.per_class: {per_class}; legal is 1 or more")
    order = np.random.default_rng(seed).permutation(len(images.labels))
    of_class = [order[images.labels[order] == c][:per_class] for c in range(len(images.names))]
    return rows_of(images, np.sort(np.concatenate(of_class)))


def folder(
    *,
    root: str = "",
    size: int | tuple[int, int] = 64,
    channels: Literal[1, 3] = 3,
    crop: int | tuple[int, int] | None = None,
    broken: float = 0.0,
    faces: bool = False,
    private: int = 100,
    most_frequent: bool = False,
    validation: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    manifest: str = "",
    sha256: str = "",
    public_root: str = "",
    public_crop: int | tuple[int, int] | None = None,
    public_most: int | None = None,
) -> Scene:
    """A folder with one subfolder of pictures per person (FaceScrub and the like): the first `private` names in a
    seeded order (or the `most_frequent` ones) are private. Public are the others, or all pictures below `public_root`.

    Of every picture the middle, `crop` pixels or as much as there is, is resized to `size`; both
    are the side of a square or [height, width]. `channels` is 3 for color, 1 for gray. `broken` is
    the share of pictures that may be left out because they cannot be read. `faces: true` says that
    these are faces, which the pretrained face embedding then judges too. `validation` and `test`
    are shares of each private person's photos. A `manifest` file replaces this division; `sha256`
    is the digest that the pictures, cut, resized and divided, must have. `public_most` is the most public pictures.
    """
    from jaxmia.data import image_folder

    at = existing_folder("root", root, "a subfolder of pictures per person")
    images = image_folder(at, size, channels=channels, crop=crop, broken=broken)
    order = np.random.default_rng(split_seed).permutation(len(images.names))
    _check_private(private, len(order), bool(public_root), manifest)
    chosen = [images.names[i] for i in order]
    if most_frequent:
        first = splits.most_frequent(images.labels, images.names, private)
        chosen = [*first, *(name for name in chosen if name not in first)]
    made = _manifest(
        images, f"folder:{os.path.basename(root)}", chosen[:private], chosen[private:],
        validation=validation, test=test, seed=split_seed, path=manifest,
    )  # fmt: skip
    public = None
    if public_root:
        how = {"channels": channels, "broken": broken, "most": public_most, "seed": split_seed}
        public = _public(public_root, size, crop=public_crop, **how)
    return _scene("folder", images, made, public, public_most, split_seed, faces, sha256)


def celeba(
    *,
    root: str = "",
    size: int = 64,
    private: int = 1000,
    validation: float = 0.0,
    test: float = 0.1,
    split_seed: int = 0,
    manifest: str = "",
    sha256: str = "",
    public_root: str = "",
    public_crop: int | None = None,
    public_most: int | None = 30000,
) -> Scene:
    """CelebA in the crop of GMI: the `private` people with most photos are private, `public_most` photos of the others
    (or of those below `public_root`) public.

    The other keywords are those of `folder`; `root` holds the official lists, see `data.celeba`.
    """
    from jaxmia.data import celeba as source

    images = source(existing_folder("root", root, "identity_CelebA.txt in it"), size)
    _check_private(private, len(images.names), False, manifest)
    first = splits.most_frequent(images.labels, images.names, private)
    others = sorted(set(images.names) - set(first), key=int)
    made = _manifest(images, "celeba", first, others, validation=validation, test=test, seed=split_seed, path=manifest)
    public = None
    if public_root:
        public = _public(public_root, size, crop=public_crop, most=public_most, seed=split_seed)
    return _scene("celeba", images, made, public, public_most, split_seed, True, sha256)


def _check_private(private: int, people: int, elsewhere: bool, manifest: str) -> None:
    """At least two, which an interval over people needs; a manifest says itself who is private."""
    most = people if elsewhere else people - 1
    if not manifest and not 2 <= private <= most:
        legal = f"2 to {most}" if most >= 2 else f"2 or more, and there are {people} people"
        rest = "" if elsewhere else ", some people must stay public"
        raise ValueError(f"data.private: {private}; legal is {legal}{rest}")


def _manifest(
    images: Images,
    dataset: str,
    private: Sequence[str],
    public: Sequence[str],
    *,
    path: str,
    **shares: Any,
) -> Manifest:
    """The division of a file, else one made by shares and seed."""
    file = os.path.expanduser(path)
    if path and not os.path.isfile(file):
        raise FileNotFoundError(f"data.manifest: {path!r} is no file; leave it out to divide by data.split_seed")
    if path:
        return Manifest.read(file)
    return splits.identity_manifest(
        images.labels, images.names, dataset=dataset, private=private, public=public, **shares
    )


def _public(root: str, size: Any, **how: Any) -> Images:
    return loose_pictures(existing_folder("public_root", root, "public pictures below it"), size, **how)


def _scene(
    name: str,
    images: Images,
    manifest: Manifest,
    public: Images | None,
    public_most: int | None,
    seed: int,
    faces: bool,
    sha256: str,
) -> Scene:
    """The parts, named with their digest, which must be `sha256` where that is given."""
    parts = splits.split(images, manifest._replace(public=()) if public else manifest)
    notes = images.notes + (public.notes if public else ())
    if public is None:
        public = parts.public
        if public_most is not None and public_most < len(public.labels):
            rows = np.sort(np.random.default_rng(seed).choice(len(public.labels), public_most, replace=False))
            public = rows_of(public, rows)
    if len(public.labels) == 0:
        raise ValueError("data: nobody is public; name fewer private people, or a data.public_root")
    for part in ("train", "test"):
        if len(getattr(parts, part).labels) == 0:
            raise ValueError(f"data: the division leaves no pictures to {part}")
    parts = parts._replace(public=public)
    scene = Scene(name, parts, manifest.private, faces, splits.contents(parts), notes + on_both_sides(parts))
    if sha256 and scene.digest != sha256:
        raise ValueError(
            f"data.sha256: {sha256}; the pictures have {scene.digest}: others, cut, resized or divided otherwise"
        )
    return scene._replace(name=f"{name} {scene.digest[:12]}")


DATA: dict[str, Callable[..., Scene]] = {
    "orl": orl,
    "mnist": mnist,
    "folder": folder,
    "folders": folders,
    "celeba": celeba,
}


PRIVATE, PUBLIC = 1024, 512  # made-up pictures, at most: programs see minibatches of them alone


def made_up(config: dict[str, Any], public: int) -> MadeUp:
    """Zeros in the shapes of the data of a configuration; of one number for all, so that they take no room.

    `public` is the number of public pictures where the configuration does not say.
    """
    data = config["data"]
    if data["name"] == "orl":
        shape, classes, train, public = (data["height"], data["width"], 1), 20, 140, 200
    elif data["name"] == "mnist":
        most = data["per_class"] or 6000
        shape, classes, train, public = (data["size"], data["size"], 1), 5, PRIVATE, 5 * min(most, 6100)
    else:
        sides = data["size"] if isinstance(data["size"], tuple | list) else (data["size"],) * 2
        shape, classes = (*sides, data.get("channels", 3)), data["private"]
        train = max(PRIVATE, classes)
        public = data["public_most"] or public

    def images(n: int, names: int) -> Images:
        return Images(np.broadcast_to(np.uint8(0), (n, *shape)), np.arange(n) % names, tuple(map(str, range(names))))

    private = images(train, classes)
    parts = Split(private, images(classes, classes), images(classes, classes), images(min(public, PUBLIC), 1))
    scene = Scene("made up", parts, private.names, False, dict.fromkeys(parts._fields, "made up"))
    # Weights are made up, so that none are read: as if each network began at random.
    for name in ("targets", "evaluators"):
        sections = config[name] if isinstance(config[name], list) else [config[name]]
        unread = [{k: v for k, v in section.items() if k not in ("weights", "frozen")} for section in sections]
        config = {**config, name: unread}
    if (config["prior"] or {}).get("name") == "stylegan2":
        config = {**config, "prior": {**config["prior"], "weights": MADE_UP}}
    # A gallery is not there until it is touched, and victims are one number.
    victims = np.broadcast_to(np.float32(0), ((config["attacked_classes"] or classes) * config["candidates"], *shape))
    return MadeUp(config, scene, {"gallery": np.zeros((public, *shape), np.float32), "victims": victims})
