"""What an image audit runs on: data sets with their private and public split, and priors made from public images."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Array

from jaxmia import models, priors
from jaxmia.core import Prior
from jaxmia.data.splits import Split

__all__ = ["DATA", "PRIORS", "Scene"]


class Scene(NamedTuple):
    """A data set, split.

    Attributes:
      name: of the data set.
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


def mnist(*, size: int = 32, split_seed: int = 0) -> Scene:
    """MNIST as in GMI: digits 5-9 private, 0-4 public."""
    from jaxmia.data import mnist as source
    from jaxmia.data import mnist_manifest, split

    manifest = mnist_manifest(split_seed)
    return Scene("mnist", split(source.load(size), manifest), tuple(manifest.private), False)


def folder(*, root: str = "", size: int = 64, private: int = 100, split_seed: int = 0) -> Scene:
    """A folder with one subfolder of pictures per person (FaceScrub and the like): the first `private` names in a
    seeded order are private, the others public."""
    from jaxmia.data import identity_manifest, image_folder, split

    if not root or not os.path.isdir(root):
        raise FileNotFoundError(f"data.root: {root!r} is no folder; name one with a subfolder of pictures per person")
    images = image_folder(root, size)
    order = np.random.default_rng(split_seed).permutation(len(images.names))
    if not 0 < private < len(order):
        raise ValueError(f"data.private: {private}; legal is 1 to {len(order) - 1}, some people must stay public")
    chosen = [images.names[i] for i in order]
    manifest = identity_manifest(
        images.labels, images.names, dataset=f"folder:{os.path.basename(root)}", private=chosen[:private],
        public=chosen[private:], validation=0.1, test=0.2, seed=split_seed,
    )  # fmt: skip
    return Scene("folder", split(images, manifest), tuple(manifest.private), True)


DATA: dict[str, Callable[..., Scene]] = {"orl": orl, "mnist": mnist, "folder": folder}


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


PRIORS: dict[str, Callable[..., Prior]] = {"eigenfaces": eigenfaces, "wgan": wgan}
