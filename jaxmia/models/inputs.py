"""What stands before a classifier's first layer: fixed centering, or per-image standardization."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["CenteredInput", "StandardizedInput"]


class CenteredInput(nn.Module):
    """Feeds `scale * (x - 0.5)` to `inner`, so that the gray image is the origin.

    Training on uncentered pixels leaves a black image as the origin, from which an attacker's descent can only add
    light; Fredrikson et al. start theirs at the origin.
    """

    inner: nn.Module
    scale: float = 2.0

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        return self.inner(self.scale * (x - 0.5), train)


class StandardizedInput(nn.Module):
    """Feeds each image less its mean, over its standard deviation, to `inner`: blind to brightness and contrast."""

    inner: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        axes = tuple(range(1, x.ndim))
        mean, deviation = jnp.mean(x, axes, keepdims=True), jnp.std(x, axes, keepdims=True)
        return self.inner((x - mean) / (deviation + 1e-3), train)
