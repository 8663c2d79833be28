"""Random views of one image, differentiable: crop, aspect, mirror, rotation, brightness and contrast."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import PRNGKeyArray as Key

from jaxmia.core import Scalar

__all__ = ["jitter", "look"]

Image = Float[Array, "h w c"]


def look(
    key: Key,
    image: Image,
    *,
    scale: tuple[Scalar, Scalar] = (1.0, 1.0),
    ratio: tuple[Scalar, Scalar] = (1.0, 1.0),
    flip: Scalar = 0.0,
    rotation: Scalar = 0.0,
    rotation_chance: Scalar = 1.0,
) -> Image:
    """A window of the image, resized to the whole, by one bilinear interpolation.

    The window is of a uniform share of the area and a log-uniform aspect, cut where it would be larger than the image,
    at a uniform place inside; it is mirrored and turned around its middle. Beyond the edge the edge goes on.

    Args:
      key: draws the window.
      image: any range.
      scale: least and largest share of the area, in (0, 1].
      ratio: least and largest width per height, relative to the image's.
      flip: probability of a mirror image.
      rotation: most degrees, either way.
      rotation_chance: probability of a turn.
    """
    height, width, channels = image.shape
    area, aspect, down, right, mirror, turn = jax.random.split(key, 6)
    share = jax.random.uniform(area, minval=scale[0], maxval=scale[1])
    low, high = jnp.log(jnp.asarray(ratio, jnp.float32))
    root = jnp.exp(0.5 * jax.random.uniform(aspect, minval=low, maxval=high))
    tall, wide = jnp.minimum(jnp.sqrt(share) / root, 1.0), jnp.minimum(jnp.sqrt(share) * root, 1.0)
    middle_y = tall / 2 + (1 - tall) * jax.random.uniform(down)
    middle_x = wide / 2 + (1 - wide) * jax.random.uniform(right)
    sign = jnp.where(jax.random.bernoulli(mirror, flip), -1.0, 1.0)
    turned = jax.random.bernoulli(jax.random.fold_in(turn, 1), rotation_chance)
    angle = turned * jnp.deg2rad(rotation) * jax.random.uniform(turn, minval=-1.0)
    # Pixel middles of the result, from the middle of the window, in pixels of the image.
    y = ((jnp.arange(height) + 0.5) / height - 0.5) * tall * height
    x = ((jnp.arange(width) + 0.5) / width - 0.5) * wide * width * sign
    y, x = jnp.meshgrid(y, x, indexing="ij")
    rows = middle_y * height + jnp.cos(angle) * y - jnp.sin(angle) * x - 0.5
    columns = middle_x * width + jnp.sin(angle) * y + jnp.cos(angle) * x - 0.5
    # A compiler may compute a coordinate twice and round it up once and down once, so that a pixel's place and its
    # weight do not fit together where it is whole. A hair aside, some units in the last place, it is not.
    hair = 1e-6 * max(height, width, 100)
    places = [rows + hair, columns + hair]
    planes = [
        jax.scipy.ndimage.map_coordinates(image[:, :, channel], places, order=1, mode="nearest")
        for channel in range(channels)
    ]
    return jnp.stack(planes, -1)


def jitter(key: Key, image: Image, *, brightness: Scalar = 0.2, contrast: Scalar = 0.2, chance: Scalar = 1.0) -> Image:
    """With probability `chance`, the image of another brightness and contrast, clipped to [0, 1].

    Both factors are uniform in 1 +- their bound; contrast is stretched around the image's mean.

    Args:
      key: draws the factors.
      image: in [0, 1].
      brightness: bound.
      contrast: bound.
      chance: of any change.
    """
    light, stretch, change = jax.random.split(key, 3)
    bright = image * (1 + brightness * jax.random.uniform(light, minval=-1.0))
    mean = jnp.mean(bright)
    changed = mean + (bright - mean) * (1 + contrast * jax.random.uniform(stretch, minval=-1.0))
    return jnp.where(jax.random.bernoulli(change, chance), jnp.clip(changed, 0.0, 1.0), image)
