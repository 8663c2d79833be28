"""What an image audit runs on: data sets with their private and public split, and priors made from public images."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmia import models, priors
from jaxmia.core import Prior
from jaxmia.data import splits
from jaxmia.data.splits import Manifest, Split
from jaxmia.data.types import Images

__all__ = ["DATA", "MADE_UP", "PRIORS", "Scene"]

MADE_UP = "\0"
"""In place of a file of weights: zeros, where shapes alone count. No path can be this."""


class Scene(NamedTuple):
    """A data set, split.

    Attributes:
      name: of the data set, for pictures of the user's with the first digits of their manifest's digest.
      split: train, validation and locked test of the private classes, and public images of other classes.
      names: of the private classes.
      faces: whether the pretrained face embedding can judge.
    """

    name: str
    split: Split
    names: tuple[str, ...]
    faces: bool


def orl(*, height: int = 56, width: int = 46, split_seed: int = 0) -> Scene:
    """ORL/AT&T faces: people s1-s20 private, s21-s40 public."""
    from jaxmia.data import orl as source
    from jaxmia.data import orl_manifest, split

    manifest = orl_manifest(split_seed)
    return Scene("orl", split(source.load(height, width), manifest), tuple(manifest.private), True)


def mnist(*, size: int = 32, per_class: int | None = None, split_seed: int = 0) -> Scene:
    """MNIST as in GMI: digits 5-9 private, 0-4 public; `per_class` is the most images of a digit in each part."""
    from jaxmia.data import mnist as source
    from jaxmia.data import mnist_manifest, split

    manifest = mnist_manifest(split_seed)
    parts = split(source.load(size), manifest)
    if per_class is not None:
        parts = Split(*(_at_most(part, per_class, split_seed) for part in parts))
    return Scene("mnist", parts, tuple(manifest.private), False)


def _at_most(images: Images, per_class: int, seed: int) -> Images:
    """A seeded choice of `per_class` images of every class, all where there are fewer."""
    if per_class < 1:
        raise ValueError(f"data.per_class: {per_class}; legal is 1 or more")
    order = np.random.default_rng(seed).permutation(len(images.labels))
    rows = np.sort(np.concatenate([order[images.labels[order] == c][:per_class] for c in range(len(images.names))]))
    return Images(images.images[rows], images.labels[rows], images.names)


def folder(
    *,
    root: str = "",
    size: int = 64,
    crop: int | None = None,
    private: int = 100,
    most_frequent: bool = False,
    validation: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    manifest: str = "",
    sha256: str = "",
    public_root: str = "",
    public_crop: int | None = None,
    public_most: int | None = None,
) -> Scene:
    """A folder with one subfolder of pictures per person (FaceScrub and the like): the first `private` names in a
    seeded order (or the `most_frequent` ones) are private. Public are the others, or all pictures below `public_root`.

    Of every picture a centered square of `crop` pixels, else the largest one, is resized to `size`. `validation` and
    `test` are shares of each private person's photos. A `manifest` file replaces this division; `sha256` is the digest
    that either must have. `public_most` is the most public pictures.
    """
    from jaxmia.data import image_folder

    if not root or not os.path.isdir(root):
        raise FileNotFoundError(f"data.root: {root!r} is no folder; name one with a subfolder of pictures per person")
    images = image_folder(root, size, crop=crop)
    order = np.random.default_rng(split_seed).permutation(len(images.names))
    if not manifest and not 0 < private < len(order) + bool(public_root):
        least = "" if public_root else ", some people must stay public"
        raise ValueError(f"data.private: {private}; legal is 1 to {len(order) - (not public_root)}{least}")
    chosen = [images.names[i] for i in order]
    if most_frequent:
        first = splits.most_frequent(images.labels, images.names, private)
        chosen = [*first, *(name for name in chosen if name not in first)]
    made = _manifest(
        images, f"folder:{os.path.basename(root)}", chosen[:private], chosen[private:],
        validation=validation, test=test, seed=split_seed, path=manifest, sha256=sha256,
    )  # fmt: skip
    public = _public(public_root, size, public_crop, public_most, split_seed) if public_root else None
    return _scene("folder", images, made, public, public_most, split_seed)


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

    if not root or not os.path.isdir(root):
        raise FileNotFoundError(f"data.root: {root!r} is no folder; name the one that holds identity_CelebA.txt")
    images = source(root, size)
    if not manifest and not 0 < private < len(images.names):
        raise ValueError(f"data.private: {private}; legal is 1 to {len(images.names) - 1}")
    first = splits.most_frequent(images.labels, images.names, private)
    others = sorted(set(images.names) - set(first), key=int)
    made = _manifest(
        images, "celeba", first, others, validation=validation, test=test, seed=split_seed, path=manifest, sha256=sha256
    )
    public = _public(public_root, size, public_crop, public_most, split_seed) if public_root else None
    return _scene("celeba", images, made, public, public_most, split_seed)


def _manifest(
    images: Images,
    dataset: str,
    private: Sequence[str],
    public: Sequence[str],
    *,
    path: str,
    sha256: str,
    **shares: Any,
) -> Manifest:
    """The division of a file, else one made by shares and seed; either must have the digest, where one is given."""
    if path and not os.path.isfile(path):
        raise FileNotFoundError(f"data.manifest: {path!r} is no file; leave it out to divide by data.split_seed")
    made = (
        Manifest.read(path)
        if path
        else splits.identity_manifest(
            images.labels, images.names, dataset=dataset, private=private, public=public, **shares
        )
    )
    if sha256 and made.digest != sha256:
        raise ValueError(
            f"data.sha256: {sha256}; the division has {made.digest}: other pictures, another split_seed or another file"
        )
    return made


def _public(root: str, size: int, crop: int | None, most: int | None, seed: int) -> Images:
    from jaxmia.data.folders import loose_pictures

    if not os.path.isdir(root):
        raise FileNotFoundError(f"data.public_root: {root!r} is no folder; name one with public pictures below it")
    return loose_pictures(root, size, crop=crop, most=most, seed=seed)


def _scene(
    name: str, images: Images, manifest: Manifest, public: Images | None, public_most: int | None, seed: int
) -> Scene:
    """The parts, named with the digest of their division."""
    parts = splits.split(images, manifest._replace(public=()) if public else manifest)
    if public is None:
        public = parts.public
        if public_most is not None and public_most < len(public.labels):
            rows = np.sort(np.random.default_rng(seed).choice(len(public.labels), public_most, replace=False))
            public = Images(public.images[rows], public.labels[rows], public.names)
    if len(public.labels) == 0:
        raise ValueError("data: nobody is public; name fewer private people, or a data.public_root")
    for part in ("train", "test"):
        if len(getattr(parts, part).labels) == 0:
            raise ValueError(f"data: the division leaves no pictures to {part}")
    return Scene(f"{name} {manifest.digest[:12]}", parts._replace(public=public), manifest.private, True)


DATA: dict[str, Callable[..., Scene]] = {"orl": orl, "mnist": mnist, "folder": folder, "celeba": celeba}


def eigenfaces(public: Any, train: Any, *, components: int = 100, bound: float = 3.0, spread: float = 1.0) -> Prior:
    """Principal components of the public images (`priors.eigen`)."""
    del train
    return priors.eigen(public, components, bound=bound, spread=spread)


def wgan(
    public: Any, train: Any, *, dimensions: int = 100, steps: int = 2000, batch_size: int = 64, bound: float = 1.0
) -> Prior:
    """A DCGAN trained by WGAN-GP on the public images (32 or 64 pixels square), the prior of GMI.

    The paper trains 280 epochs; `steps` generator updates are what the config affords.
    """
    from jaxmia.data import minibatches
    from jaxmia.train import gan

    size, channels = public.shape[1], public.shape[3]
    generator, critic = models.DCGenerator(size=size, channels=channels), models.WGANCritic()
    process = gan(generator, critic, dimensions=dimensions, steps=steps)
    fitted = train(process, minibatches({"x": public}, 5 * batch_size, 0), "wgan")
    return priors.latent(
        lambda z: cast(Array, generator.apply(fitted["generator"], z)),
        dimensions,
        realism=lambda x: cast(Array, critic.apply(fitted["critic"], x)),
        bound=bound,
    )


def stylegan2(
    public: Any,
    train: Any,
    *,
    weights: str = "",
    layout: Literal["nvidia", "rosinality"] = "nvidia",
    resolution: int = 1024,
    latent: int = 512,
    mapping_layers: int = 8,
    channel_base: int = 32768,
    channel_max: int = 512,
    psi: float = 0.5,
    crop: int | None = 800,
) -> Prior:
    """A published StyleGAN2, whose w is searched: one for all layers, drawn with truncation `psi`, as in PPA.

    Of an image of `resolution` pixels the centered square of `crop` pixels is resized to that of the data, and clipped to
    [0, 1]. `weights` is a safetensors file in a `layout` of `models.pretrained`, which also says how to make one.
    """
    from jaxmia.models.pretrained import published, read
    from jaxmia.models.stylegan2 import Hidden, StyleGAN2

    del train
    if weights != MADE_UP and not os.path.isfile(weights):
        raise FileNotFoundError(f"prior.weights: {weights!r} is no file; name a safetensors file of a StyleGAN2")
    height, width, channels = public.shape[1:]
    cut = resolution if crop is None else crop
    if not 0 < cut <= resolution:
        raise ValueError(f"crop: {crop}; legal is 1 to the resolution, {resolution}")
    module = StyleGAN2(resolution, channels, latent, mapping_layers, channel_base, channel_max)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, latent))))
    if weights == MADE_UP:
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    else:
        variables = published(shapes, read(weights), layout)
    last, edge = int(np.log2(resolution)) - 2, (resolution - cut) // 2

    def init(key: Any) -> Array:
        z = jax.random.normal(key, (1, latent))
        return cast(Array, module.apply(variables, z, psi, method="to_w"))[0]

    def block(number: int, feature: Any, w: Array) -> Any:
        hidden = None if number == 0 else Hidden(feature.map[None], feature.rest[None])
        where = {"from_block": number, "to_block": number + 1, "feature": hidden, "method": "synthesize"}
        out: Any = module.apply(variables, w[None], **where)
        if number < last:
            return priors.Feature(out.map[0], out.image[0])
        square = out[0, edge : edge + cut, edge : edge + cut]
        return jnp.clip(jax.image.resize(square, (height, width, channels), "bilinear"), 0.0, 1.0)

    return priors.Blocks(init, [functools.partial(block, number) for number in range(last + 1)])


PRIORS: dict[str, Callable[..., Prior]] = {
    "eigenfaces": eigenfaces,
    "wgan": wgan,
    "stylegan2": stylegan2,
}
