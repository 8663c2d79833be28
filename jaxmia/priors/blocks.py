"""A generator that can be entered between its blocks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior

__all__ = ["Feature", "chain", "cut"]


class Feature(NamedTuple):
    """What one block hands to the next, of one candidate.

    Attributes:
      map: what an attack may change.
      rest: what else the next block reads and no attack touches, such as the image that a StyleGAN2 has painted so far.
    """

    map: Float[Array, "..."]
    rest: Any = None


def chain(init: Callable[[Any], Array], blocks: Sequence[Callable[[Any, Array], Any]]) -> Prior:
    """A prior whose generator is a chain of blocks; it believes nothing and projects nowhere.

    Args:
      init: `key -> latent`, one float array.
      blocks: each `(Feature, latent) -> Feature`; the first is given None, the last gives the candidate.

    Raises:
      ValueError: without a block.
    """
    if not blocks:
        raise ValueError("blocks: none; legal is 1 or more")

    def decode(latent: Any) -> Any:
        feature = None
        for block in blocks:
            feature = block(feature, latent)
        return feature

    return Prior(init, decode, lambda latent, candidate: jnp.zeros(()), lambda latent: latent, tuple(blocks))


def cut(prior: Prior) -> Prior:
    """Any prior of vector latents as two blocks with the image between them; the second one clips it to [0, 1]."""
    return chain(
        lambda key: prior.project(prior.init(key)),
        (
            lambda feature, latent: Feature(prior.decode(latent)),
            lambda feature, latent: jnp.clip(feature.map, 0.0, 1.0),
        ),
    )
