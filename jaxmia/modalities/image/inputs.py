"""What an image audit supplies its attacks with: each input is made when an attack's signature asks for it, and once."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmia import config as configuration
from jaxmia import models
from jaxmia.adapters.linen import FirstLayers
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.networks import Minibatches
from jaxmia.audit.roles import keywords
from jaxmia.core import Prior
from jaxmia.data import minibatches, to_float
from jaxmia.identity import digest
from jaxmia.modalities.image.priors import PRIORS
from jaxmia.modalities.image.zoo import TARGETS
from jaxmia.priors import cut
from jaxmia.sections import within

__all__ = ["INPUTS", "TARGET_INPUTS", "attacked", "decoder_width", "networks"]


def decoder_width(*, width: int = 32) -> int:
    """Channels before the last layer of the inversion decoder."""
    if width < 1:
        raise ValueError(f"width: {width}; legal is 1 or more")
    return width


def networks(*, width: int = 64, surrogates: tuple[str, ...] = ("convnet", "resnet")) -> tuple[int, tuple[Any, ...]]:
    """Of attacks that train some: channels next to the image, and the architectures of what imitates the target."""
    if width < 1:
        raise ValueError(f"width: {width}; legal is 1 or more")
    unknown = ", ".join(name for name in surrogates if name not in TARGETS)
    if unknown or not surrogates:
        raise ValueError(f"surrogates: {unknown or 'none'}; legal is some of {', '.join(TARGETS)}")
    return width, tuple(TARGETS[name]() for name in surrogates)


def attacked(inputs: Inputs) -> Int[np.ndarray, " n"]:
    """The classes that are attacked."""
    return np.arange(inputs.config["attacked_classes"] or len(inputs.data.names), dtype=np.int32)


def _victims(given: Inputs) -> Float[np.ndarray, "n h w c"]:
    """One private training image for each candidate."""
    private, targets = given.data.split.train, given["targets"]
    rank = np.arange(len(targets)) // len(attacked(given))
    rows = np.array([np.resize(np.flatnonzero(private.labels == c), k + 1)[k] for c, k in zip(targets, rank)])
    return to_float(private.images[rows])


def _batches(given: Inputs) -> Callable[[int], dict[str, Float[np.ndarray, "b h w c"]]]:
    """Minibatches of public pictures in [0, 1], for the training stages of attacks."""
    pictures = given.data.split.public.images
    size = min(given.config["public_batch"], len(pictures))
    seed = given.config["seed"]
    batch = minibatches({"x": pictures}, size, seed)
    identity = digest([given.data.contents["public"], size, seed])
    # A minibatch at a time: no second copy of them all.
    return Minibatches(lambda step: {"x": to_float(batch(step)["x"])}, identity)


def _networks(given: Inputs) -> tuple[int, tuple[Any, ...]]:
    with within("networks"):
        return networks(**given.config["networks"])


def _prior(given: Inputs) -> Prior:
    section = given.config["prior"]
    if section is None:
        raise ValueError(f"prior: missing, and the attack asks for one; legal is one of {', '.join(PRIORS)}")

    def fit(process: Any, batches: Any, name: str) -> Any:
        # Runs that train the same targets may differ in their priors.
        return given.fit(process, batches, f"{name}-{configuration.digest(section)[:8]}")

    with within("prior"):
        return PRIORS[section["name"]](given["public"], fit, **keywords(section))


def _blocks(given: Inputs) -> Prior:
    prior = given["prior"]
    return prior if prior.blocks else cut(prior)


def _decoder(given: Inputs) -> models.InversionDecoder:
    with within("decoder"):
        return models.InversionDecoder(given["shape"], width=decoder_width(**given.config["decoder"]))


def _mask(given: Inputs) -> Bool[Array, "h w"]:
    """What SecretGen's adversary does not see: the middle half of rows and columns."""
    height, width, _ = given["shape"]
    hidden = np.zeros((height, width), bool)
    hidden[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return jnp.asarray(hidden)


def _embedding(given: Inputs, components: int = 50) -> Callable[[Any], Float[Array, " d"]]:
    """`image -> [d]`: coordinates on the principal components of public images, in deviations (Turk & Pentland 1991).

    No evaluator's, and it knows no private person.
    """
    public = given["public"]
    chosen = public[np.random.default_rng(0).permutation(len(public))[:1000]].reshape(-1, public[0].size)
    center = chosen.mean(0)
    _, sizes, axes = np.linalg.svd(chosen - center, full_matrices=False)
    kept = min(components, len(chosen) - 1, len(axes))
    scaled = axes[:kept] * np.sqrt(len(chosen)) / (sizes[:kept, None] + 1e-6)

    def embed(image: Any) -> Float[Array, " d"]:
        return jnp.asarray(scaled) @ (image.reshape(-1) - center)

    return embed


def _surrogates(given: Inputs) -> tuple[Any, ...]:
    _, recipes = given["networks"]
    return tuple(recipe.module(given["classes"], given["shape"]) for recipe in recipes)


INPUTS: dict[str, Callable[[Inputs], Any]] = {
    "shape": lambda given: given.data.split.public.images.shape[1:],
    "classes": lambda given: len(given.data.names),
    "public": lambda given: to_float(given.data.split.public.images),
    "targets": lambda given: np.tile(attacked(given), given.config["candidates"]),
    "victims": _victims,
    "batches": _batches,
    "networks": _networks,
    "prior": _prior,
    "blocks": _blocks,
    "decoder": _decoder,
    "gallery": lambda given: jnp.asarray(given["public"]),
    "embedding": _embedding,
    "explained_decoder": lambda given: models.ExplainedDecoder(given["shape"], given["decoder"].width),
    "mask": _mask,
    "inpainter": lambda given: models.InpaintingGenerator(given["networks"][0]),
    "critic": lambda given: models.WGANCritic(given["networks"][0]),
    "generator": lambda given: models.DCGenerator(given["shape"][0], given["shape"][2], given["networks"][0]),
    "discriminator": lambda given: models.InversionDiscriminator(given["classes"], given["networks"][0]),
    "conditional_generator": lambda given: models.ConditionalGenerator(
        given["classes"], given["shape"][0], given["shape"][2], given["networks"][0]
    ),
    "conditional_discriminator": lambda given: models.ProjectionDiscriminator(given["classes"], given["networks"][0]),
    "classifying_discriminator": lambda given: models.ClassifyingDiscriminator(given["classes"], given["networks"][0]),
    "denoiser": lambda given: models.Denoiser(given["classes"], given["networks"][0]),
    "surrogate": lambda given: given["surrogates"][0],
    "surrogates": _surrogates,
}
"""Name -> how an image audit makes it: parameters of attacks, and what several of these are made of."""


def _center(given: Inputs) -> float:
    """The gray that the target's own preprocessing takes to zero."""
    module = given.fitted.module
    return 0.5 if isinstance(module, models.CenteredInput) or getattr(module, "centered", False) else 0.0


def _parts(given: Inputs) -> tuple[tuple[str, ...], list[Any]]:
    """Of the client's part: its blocks before what is sent, and decoders that undo one each."""
    split, target = given.config["split"], given.fitted.target.until(given.config["split"])
    prefix, number = re.fullmatch(r"(.*?)(\d*)", split).groups()  # type: ignore[union-attr]
    image = jnp.zeros(given["shape"])
    features = jax.eval_shape(lambda: target.apply(target.params, image)).features  # type: ignore[misc]
    if len(features[split].shape) != 3:  # no maps: the whole is undone at once
        return (), [given["decoder"]]
    before = (f"{prefix}{i}" for i in range(1, int(number or 1)))  # block1, block2, ... of block3
    layers = tuple(name for name in before if name in features)
    shapes = [given["shape"], *(features[name].shape for name in layers)]
    return layers, [models.MapDecoder(shape, given["decoder"].width) for shape in shapes]


TARGET_INPUTS: dict[str, Callable[[Inputs], Any]] = {
    "center": _center,
    "client": lambda given: FirstLayers(given.fitted.module, given.config["split"]),
    "parts": _parts,
    "layers": lambda given: given["parts"][0],
    "inverses": lambda given: given["parts"][1],
}
"""The same of each target."""
