"""A small normalizing flow: a distribution over latents that can be drawn from, with its density."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["Flow", "flow"]


class Flow(NamedTuple):
    """A family of distributions.

    Attributes:
      init: `key -> parameters`; they start as N(0, I).
      push: `(parameters, noise [d] ~ N(0, I)) -> (draw [d], log density of the draw)`.
    """

    init: Callable[[Any], Any]
    push: Callable[[Any, Float[Array, " d"]], tuple[Float[Array, " d"], Float[Array, ""]]]


def flow(dimensions: int, *, layers: int = 10, hidden: int = 64) -> Flow:
    """Glow without images (Kingma & Dhariwal, NeurIPS 2018, as VMI uses it): every layer scales and shifts each number
    (act-norm), shuffles them by a permutation that is fixed, and adds to the second half a function of the first
    (additive coupling, a perceptron of one hidden layer that starts at zero).

    Only the scales change volumes: log q(draw) = log N(noise; 0, I) - sum of log scales.

    Args:
      dimensions: of a latent, 2 or more.
      layers: how many; 0 is N(0, I) whatever the parameters.
      hidden: units of the perceptrons.

    Raises:
      ValueError: for fewer than two dimensions, or negative layers.
    """
    if dimensions < 2 or layers < 0:
        raise ValueError(f"dimensions, layers: {dimensions}, {layers}; legal is 2 or more and 0 or more")
    half = dimensions // 2
    shuffles = [np.random.default_rng(layer).permutation(dimensions) for layer in range(layers)]

    def init(key: Any) -> Any:
        def layer(key: Any) -> dict[str, Array]:
            return {
                "log_scale": jnp.zeros(dimensions),
                "shift": jnp.zeros(dimensions),
                "inner": jax.random.normal(key, (half, hidden)) / np.sqrt(half),
                "inner_bias": jnp.zeros(hidden),
                "outer": jnp.zeros((hidden, dimensions - half)),
                "outer_bias": jnp.zeros(dimensions - half),
            }

        return tuple(map(layer, jax.random.split(key, max(layers, 1))[:layers]))

    def push(parameters: Any, noise: Float[Array, " d"]) -> tuple[Array, Array]:
        z, volume = noise, jnp.zeros(())
        for p, shuffle in zip(parameters, shuffles, strict=True):
            z = (z * jnp.exp(p["log_scale"]) + p["shift"])[shuffle]
            volume += jnp.sum(p["log_scale"])
            moved = jax.nn.relu(z[:half] @ p["inner"] + p["inner_bias"]) @ p["outer"] + p["outer_bias"]
            z = jnp.concatenate([z[:half], z[half:] + moved])
        return z, jnp.sum(jax.scipy.stats.norm.logpdf(noise)) - volume

    return Flow(init, push)
