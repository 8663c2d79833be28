"""A generator that can be entered between its blocks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior

__all__ = ["Blocks", "Feature", "cut"]


class Feature(NamedTuple):
    """What one block hands to the next, of one candidate.

    Attributes:
      map: what an attack may change.
      rest: what else the next block reads and no attack touches, such as the image that a StyleGAN2 has painted so far.
    """

    map: Float[Array, "..."]
    rest: Any = None


class Blocks(Prior):
    """A prior whose generator is a chain of blocks and shows them; it believes nothing and projects nowhere.

    Attributes:
      blocks: each `(Feature, latent) -> Feature`; the first is given None, the last gives the candidate. `decode` is all of
        them, one after the other.
    """

    blocks: tuple[Callable[[Any, Array], Any], ...]

    def __new__(cls, init: Callable[[Any], Array], blocks: Sequence[Callable[[Any, Array], Any]]) -> "Blocks":
        """Latents, one float array each, drawn by `init(key)`, through `blocks`; ValueError without a block."""
        if not blocks:
            raise ValueError("blocks: none; legal is 1 or more")

        def decode(latent: Any) -> Any:
            feature = None
            for block in blocks:
                feature = block(feature, latent)
            return feature

        self = super().__new__(cls, init, decode, lambda latent, candidate: jnp.zeros(()), lambda latent: latent)
        self.blocks = tuple(blocks)
        return self


def cut(prior: Prior) -> Blocks:
    """Any prior of vector latents as two blocks with the image between them; the second one clips it to [0, 1]."""
    return Blocks(
        lambda key: prior.project(prior.init(key)),
        (
            lambda feature, latent: Feature(prior.decode(latent)),
            lambda feature, latent: jnp.clip(feature.map, 0.0, 1.0),
        ),
    )
