"""A string of soft tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar

__all__ = ["tokens"]


def tokens(length: int, vocabulary: int, *, temperature: Scalar = 1.0) -> Prior:
    """Each position is a distribution over the vocabulary, softmax(latent / temperature), as in CanaryEx
    (Parikh et al., ACL 2022) and white-box embedding inversion (Song & Raghunathan, CCS 2020, section 4.2).

    Args:
      length: positions.
      vocabulary: words or characters.
      temperature: low is close to one-hot.

    Raises:
      ValueError: for a length or vocabulary below one.
    """
    if length < 1 or vocabulary < 1:
        raise ValueError(f"length, vocabulary: {length}, {vocabulary}; legal is 1 or more")

    def decode(latent: Float[Array, "length vocabulary"]) -> Float[Array, "length vocabulary"]:
        return jax.nn.softmax(latent / temperature, axis=-1)

    return Prior(
        lambda key: 0.01 * jax.random.normal(key, (length, vocabulary)),
        decode,
        lambda latent, candidate: jnp.zeros(()),
        lambda latent: latent,
    )
