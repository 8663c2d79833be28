"""Eigenfaces: a linear Gaussian prior (probabilistic PCA) of a few public images, for sets too small for a GAN."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar
from jaxmia.priors.unit import check_images

__all__ = ["eigen"]


def eigen(public: Float[np.ndarray, "n ..."], components: int, *, bound: Scalar = 3.0, spread: Scalar = 1.0) -> Prior:
    """x = clip(mean + sum_k z_k sigma_k e_k, 0, 1) with z ~ N(0, 1) (Tipping & Bishop 1999; Turk & Pentland 1991).

    The penalty is -log p(z) without its constant, |z|^2 / 2; z is kept within `bound` standard deviations.

    Args:
      public: images in [0, 1], all of one shape.
      components: how many principal directions, 1 to n - 1.
      bound: of each standardized coordinate.
      spread: standard deviation of a starting point's coordinates; 0 starts at the mean image.

    Raises:
      ValueError: if there are too few images for that many components; for images outside of [0, 1].
    """
    check_images("public", public)
    n, shape = len(public), public.shape[1:]
    if not 1 <= components <= min(n - 1, int(np.prod(shape))):
        raise ValueError(f"components: {components}; legal is 1 to {min(n - 1, int(np.prod(shape)))} with {n} images")
    flat = np.asarray(public, np.float64).reshape(n, -1)
    mean = flat.mean(0)
    _, singular, directions = np.linalg.svd(flat - mean, full_matrices=False)
    scaled = (directions * (singular / np.sqrt(n - 1))[:, None])[:components]
    basis, center = jnp.asarray(scaled, jnp.float32), jnp.asarray(mean, jnp.float32)

    def decode(latent: Float[Array, " components"]) -> Array:
        return jnp.clip(center + latent @ basis, 0.0, 1.0).reshape(shape)

    return Prior(
        lambda key: spread * jax.random.normal(key, (components,)),
        decode,
        lambda latent, candidate: 0.5 * jnp.sum(latent**2),
        lambda latent: jnp.clip(latent, -bound, bound),
    )
