"""The latent space of a generator."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar

__all__ = ["latent"]


def latent(
    generate: Callable[[Float[Array, "1 d"]], Float[Array, "1 ..."]],
    dimensions: int,
    *,
    realism: Callable[[Float[Array, "1 ..."]], Float[Array, "1 ..."]] | None = None,
    bound: Scalar = 1.0,
) -> Prior:
    """z ~ N(0, I) decoded by a generator trained on public data.

    Args:
      generate: batch of latents to batch of candidates, parameters bound.
      dimensions: of z.
      realism: a critic's score of a batch of candidates, higher is more real; the penalty is its negative
        (GMI, Zhang et al. 2020, eq. 2); None believes nothing.
      bound: z is clipped to [-bound, bound]; infinity leaves it free.

    Raises:
      ValueError: for fewer than one dimension.
    """
    if dimensions < 1:
        raise ValueError(f"dimensions: {dimensions}; legal is 1 or more")

    def penalty(z: Any, candidate: Any) -> Float[Array, ""]:
        return -jnp.sum(realism(candidate[None])) if realism is not None else jnp.zeros(())

    return Prior(
        lambda key: jax.random.normal(key, (dimensions,)),
        lambda z: generate(z[None])[0],
        penalty,
        lambda z: jnp.clip(z, -bound, bound),
    )
