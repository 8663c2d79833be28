"""What an image audit supplies its attacks with: each input is made when an attack's signature asks
for it, and once."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmia import models, zoo
from jaxmia.audit.classifiers import Minibatches, keywords
from jaxmia.audit.scenes import PRIORS, Scene
from jaxmia.core import Prior, Process
from jaxmia.data import minibatches, to_float
from jaxmia.identity import digest
from jaxmia.priors import cut
from jaxmia.sections import within

__all__ = ["INPUTS", "Inputs", "decoder_width", "networks"]


def decoder_width(*, width: int = 32) -> int:
    """Channels before the last layer of the inversion decoder."""
    if width < 1:
        raise ValueError(f"width: {width}; legal is 1 or more")
    return width


def networks(*, width: int = 64, surrogates: tuple[str, ...] = ("convnet", "resnet")) -> tuple[int, tuple[Any, ...]]:
    """Of attacks that train some: channels next to the image, and the architectures of what
    imitates the target."""
    if width < 1:
        raise ValueError(f"width: {width}; legal is 1 or more")
    unknown = ", ".join(name for name in surrogates if name not in zoo.TARGETS)
    if unknown or not surrogates:
        raise ValueError(f"surrogates: {unknown or 'none'}; legal is some of {', '.join(zoo.TARGETS)}")
    return width, tuple(zoo.TARGETS[name]() for name in surrogates)


class Inputs(Mapping[str, Any]):
    """Inputs by the parameter name that attacks ask for them with; `INPUTS` says how each is made.

    Args:
      config: a resolved configuration.
      scene: its data.
      fit: `(process, batches, name) -> output`, trains a prior.
      given: inputs by name, in place of those that would be made.

    Raises:
      ValueError: when an input is made that its section does not fit, naming the section.
    """

    def __init__(self, config: dict[str, Any], scene: Scene, fit: Callable[[Process, Any, str], Any], **given: Any):
        self.config, self.scene, self.fit = config, scene, fit
        self._made: dict[str, Any] = given

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = INPUTS[name](self)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in INPUTS

    def __iter__(self) -> Iterator[str]:
        return iter(INPUTS)

    def __len__(self) -> int:
        return len(INPUTS)

    @property
    def classes(self) -> int:
        return len(self.scene.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return self.scene.split.public.images.shape[1:]

    @functools.cached_property
    def public(self) -> Float[np.ndarray, "n h w c"]:
        """The public pictures in [0, 1]."""
        return to_float(self.scene.split.public.images)

    @functools.cached_property
    def batches(self) -> Callable[[int], dict[str, Float[np.ndarray, "b h w c"]]]:
        """Minibatches of public pictures in [0, 1], for the training stages of attacks."""
        pictures = self.scene.split.public.images
        size = min(self.config["public_batch"], len(pictures))
        seed = self.config["seed"]
        batch = minibatches({"x": pictures}, size, seed)
        identity = digest([self.scene.contents["public"], size, seed])
        # A minibatch at a time: no second copy of them all.
        return Minibatches(lambda step: {"x": to_float(batch(step)["x"])}, identity)

    @functools.cached_property
    def networks(self) -> tuple[int, tuple[Any, ...]]:
        with within("networks"):
            return networks(**self.config["networks"])


def _prior(given: Inputs) -> Prior:
    section = given.config["prior"]
    if section is None:
        raise ValueError(f"prior: missing, and the attack asks for one; legal is one of {', '.join(PRIORS)}")
    with within("prior"):
        return PRIORS[section["name"]](given.public, given.fit, **keywords(section))


def _blocks(given: Inputs) -> Prior:
    prior = given["prior"]
    return prior if prior.blocks else cut(prior)


def _decoder(given: Inputs) -> models.InversionDecoder:
    with within("decoder"):
        return models.InversionDecoder(given.shape, width=decoder_width(**given.config["decoder"]))


def _mask(given: Inputs) -> Bool[Array, "h w"]:
    """What SecretGen's adversary does not see: the middle half of rows and columns."""
    height, width, _ = given.shape
    hidden = np.zeros((height, width), bool)
    hidden[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return jnp.asarray(hidden)


def _embedding(given: Inputs, components: int = 50) -> Callable[[Any], Float[Array, " d"]]:
    """`image -> [d]`: coordinates on the principal components of public images, in deviations (Turk
    & Pentland 1991).

    No evaluator's, and it knows no private person.
    """
    public = given.public
    chosen = public[np.random.default_rng(0).permutation(len(public))[:1000]].reshape(-1, public[0].size)
    center = chosen.mean(0)
    _, sizes, axes = np.linalg.svd(chosen - center, full_matrices=False)
    kept = min(components, len(chosen) - 1, len(axes))
    scaled = axes[:kept] * np.sqrt(len(chosen)) / (sizes[:kept, None] + 1e-6)

    def embed(image: Any) -> Float[Array, " d"]:
        return jnp.asarray(scaled) @ (image.reshape(-1) - center)

    return embed


def _surrogates(given: Inputs) -> tuple[Any, ...]:
    _, recipes = given.networks
    return tuple(recipe.module(given.classes, given.shape) for recipe in recipes)


INPUTS: dict[str, Callable[[Inputs], Any]] = {
    "shape": lambda given: given.shape,
    "classes": lambda given: given.classes,
    "prior": _prior,
    "blocks": _blocks,
    "decoder": _decoder,
    "gallery": lambda given: jnp.asarray(given.public),
    "embedding": _embedding,
    "explained_decoder": lambda given: models.ExplainedDecoder(given.shape, given["decoder"].width),
    "mask": _mask,
    "inpainter": lambda given: models.InpaintingGenerator(given.networks[0]),
    "critic": lambda given: models.WGANCritic(given.networks[0]),
    "generator": lambda given: models.DCGenerator(given.shape[0], given.shape[2], given.networks[0]),
    "discriminator": lambda given: models.InversionDiscriminator(given.classes, given.networks[0]),
    "conditional_generator": lambda given: models.ConditionalGenerator(
        given.classes, given.shape[0], given.shape[2], given.networks[0]
    ),
    "conditional_discriminator": lambda given: models.ProjectionDiscriminator(given.classes, given.networks[0]),
    "classifying_discriminator": lambda given: models.ClassifyingDiscriminator(given.classes, given.networks[0]),
    "denoiser": lambda given: models.Denoiser(given.classes, given.networks[0]),
    "surrogate": lambda given: given["surrogates"][0],
    "surrogates": _surrogates,
}
"""Parameter name of an attack's factory -> how an image audit makes it."""
