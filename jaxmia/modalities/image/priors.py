"""Priors that a configuration can name: made of public images, or published."""

import functools
import os
from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxmia import models, priors
from jaxmia.audit.code import function_of
from jaxmia.core import Prior

__all__ = ["MADE_UP", "PRIORS"]

MADE_UP = "\0"
"""In place of a file of weights: zeros, where shapes alone count. No path can be this."""


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
    cutoff: int | None = None,
    crop: int | None = 800,
) -> Prior:
    """A published StyleGAN2, whose w is searched: one for all layers, drawn with truncation `psi`, as in PPA.

    With a `cutoff` w is drawn and searched as it is, and its first `cutoff` layers are truncated by `psi` as the image is
    painted, as in MIRROR.

    Of an image of `resolution` pixels the centered square of `crop` pixels is resized to that of the data, and clipped to
    [0, 1]. `weights` is a safetensors file in a `layout` of `models.pretrained`, which also says how to make one.
    """
    from jaxmia.models.pretrained import published, read
    from jaxmia.models.stylegan2 import Hidden, StyleGAN2

    del train
    if weights != MADE_UP and not os.path.isfile(os.path.expanduser(weights)):
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
        return cast(Array, module.apply(variables, z, psi if cutoff is None else 1.0, method="to_w"))[0]

    def block(number: int, feature: Any, w: Array) -> Any:
        hidden = None if number == 0 else Hidden(feature.map[None], feature.rest[None])
        where = {"from_block": number, "to_block": number + 1, "feature": hidden, "method": "synthesize"}
        shown = w[None] if cutoff is None else module.apply(variables, w[None], psi, cutoff, method="truncate")
        out: Any = module.apply(variables, shown, **where)
        if number < last:
            return priors.Feature(out.map[0], out.image[0])
        square = out[0, edge : edge + cut, edge : edge + cut]
        return jnp.clip(jax.image.resize(square, (height, width, channels), "bilinear"), 0.0, 1.0)

    return priors.chain(init, [functools.partial(block, number) for number in range(last + 1)])


def python(public: Any, train: Any, *, make: str = "") -> Prior:
    """A function of the user's, `file.py:function`, that takes the public images `[n, h, w, c]` and returns a prior.

    A generator that was published for PyTorch: `jaxmia.priors.latent_from_torch`.
    """
    del train
    made = function_of("make", make)(public)
    if not isinstance(made, Prior):
        raise ValueError(
            f"make: {make} returned a {type(made).__name__}; legal is a jaxmia.Prior, such as jaxmia.priors make"
        )
    return made


PRIORS: dict[str, Callable[..., Prior]] = {
    "eigenfaces": eigenfaces,
    "wgan": wgan,
    "stylegan2": stylegan2,
    "python": python,
}
