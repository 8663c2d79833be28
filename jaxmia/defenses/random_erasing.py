"""MIDRE: erase a random square of every training image, so that the model never sees a whole one.

Tran, Nguyen, Mai, Vandierendonck, Assent, Kot, Cheung, "Random Erasing vs. Model Inversion: A
Promising Defense or a False Hope?", TMLR 2025 (https://arxiv.org/abs/2409.01062). For each image
and each time that it is in a minibatch:

    a ~ U(0.1, 0.4),   side = sqrt(a h w) pixels,   the square at a uniform place takes one color

In the words of the abstract, the share that is erased gives the privacy, and the random place keeps
the utility. Training only: at serving time the model gets whole images.

What differs from the released code (ngoc-nguyen-0/MIDRE_TMLR, its configuration files for
ResNet-18; the paper's text was not read). It erases with torchvision's RandomErasing, probability
1, scale 0.1 to 0.4 (0.1 to 0.8 in a second file), and fills with ImageNet's mean color; those are
the defaults here. It draws sides again, up to ten times, where the square is larger than the image;
here the side is cut to the image's shorter one, which matters for images that are far from square.
Images of another number of channels than three are filled with the mean of that color. Two controls
of the paper's claims are ours: `place="center"` erases at a fixed place, `place="pixels"` erases as
many single pixels.

What it costs and does not do. One pass over the images; accuracy falls with the share. Reviewers
asked for the control with single pixels, and found a table in which another defense is better.
An attack that knows of the squares erases its candidate, too, at random places, and takes the mean
of the gradients. Images of a defense or an attack that looks at "x" after this one are erased ones.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmia.core import Card, Defense, Key, Scalar

__all__ = ["CARD", "erased", "random_erasing"]

CARD = Card(
    title="MIDRE (random erasing)",
    paper="Tran, Nguyen, Mai, Vandierendonck et al. Random Erasing vs. Model Inversion. TMLR 2025",
    url="https://arxiv.org/abs/2409.01062",
    year=2025,
    modality="image",
    hook="data",
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
PLACES = ("random", "center", "pixels")


def random_erasing(
    *,
    largest: Scalar = 0.4,
    smallest: Scalar = 0.1,
    probability: Scalar = 1.0,
    fill: float | tuple[float, ...] | None = None,
    place: Literal["random", "center", "pixels"] = "random",
) -> Defense:
    """The defense: training images with a square erased.

    Args:
      largest: share of the image's area that is erased at most.
      smallest: share that is erased at least.
      probability: of an image to be erased at all.
      fill: the color, one number or one for each channel; None takes ImageNet's mean color, as
        released.
      place: "random"; or the controls "center" and "pixels" (see above).

    Raises:
      ValueError: for shares that are not 0 <= smallest <= largest <= 1, a probability outside of 0
        to 1, or another place; at the first step, for a minibatch that is no images, or colors of
        another number.

    >>> defense = random_erasing(smallest=0.25, largest=0.25, fill=0.0)
    >>> batch = defense.data(jax.random.key(0), {"x": jnp.ones((2, 4, 4, 1))})
    >>> batch["x"].sum((1, 2, 3)).tolist()
    [12.0, 12.0]
    """
    low, high = _known(smallest, 0.0), _known(largest, 1.0)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"smallest, largest: {smallest}, {largest}; legal is 0 <= smallest <= largest <= 1")
    if not 0 <= _known(probability, 1.0) <= 1:
        raise ValueError(f"probability: {probability}; legal is 0 to 1")
    if place not in PLACES:
        raise ValueError(f"place: {place!r}; legal is {', '.join(PLACES)}")

    def data(key: Any, batch: Any) -> Any:
        x = jnp.asarray(batch["x"])
        if x.ndim != 4:
            raise ValueError(f"random_erasing: x has shape {x.shape}; legal is images [n, h, w, channels]")
        color = _color(fill, x.shape[-1])

        def one(row: Array, image: Array) -> Array:
            # A key from the row's number: the other rows do not change what is erased.
            meet, draw = jax.random.split(jax.random.fold_in(key, row))
            hole = erased(draw, image.shape[0], image.shape[1], smallest, largest, place)
            hole = hole & jax.random.bernoulli(meet, probability)
            return jnp.where(hole[..., None], color.astype(image.dtype), image)

        return {**batch, "x": jax.vmap(one)(jnp.arange(len(x)), x)}

    return Defense(data=data)


def erased(
    key: Key, height: int, width: int, smallest: Scalar, largest: Scalar, place: str = "random"
) -> Bool[Array, "h w"]:
    """Which pixels of one image are erased.

    >>> int(erased(jax.random.key(0), 10, 10, 0.25, 0.25).sum())
    25
    """
    share_key, row_key, column_key = jax.random.split(key, 3)
    share = jax.random.uniform(share_key, (), minval=smallest, maxval=jnp.maximum(smallest, largest))
    side = jnp.round(jnp.sqrt(share * height * width)).astype(jnp.int32)
    side = jnp.minimum(side, min(height, width))
    if place == "pixels":
        order = jax.random.permutation(row_key, height * width)
        return (order < side**2).reshape(height, width)
    if place == "center":
        top, left = (height - side) // 2, (width - side) // 2
    else:
        top = jax.random.randint(row_key, (), 0, height - side + 1)
        left = jax.random.randint(column_key, (), 0, width - side + 1)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= top) & (rows < top + side)
    return inside & (columns >= left) & (columns < left + side)


def _color(fill: float | tuple[float, ...] | None, channels: int) -> Float[Array, " c"]:
    if fill is None:
        fill = IMAGENET_MEAN if channels == 3 else sum(IMAGENET_MEAN) / 3
    color = jnp.asarray(fill, jnp.float32)
    if color.shape not in ((), (channels,)):
        raise ValueError(f"fill: {fill}; legal is one number or one for each of {channels} channels")
    return jnp.broadcast_to(color, (channels,))


def _known(value: Any, otherwise: float) -> Any:
    """A swept value may be traced, without a number to look at."""
    return otherwise if isinstance(value, jax.Array) else value
