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


def flow(dimensions: int, *, levels: int = 3, layers: int = 10, hidden: int = 100) -> Flow:
    """Glow without images (Kingma & Dhariwal, NeurIPS 2018), as VMI draws from it.

    The last level has all numbers of a latent, each level before it half of those of the next. A level has `layers` steps:
    a function of the first half of the numbers is added to the second half (additive coupling), a fixed permutation
    shuffles them, and each is scaled and shifted (act-norm). Between two levels as many numbers again are drawn from a
    Gaussian whose mean and deviation are linear in what is there.

    The function is a perceptron of two hidden layers of ELU units, with act-norm for biases, that starts at zero. Scales
    alone change volumes: log q(draw) = log N(noise; 0, I) - sum of log scales - sum of log deviations.

    Args:
      dimensions: of a latent, 2 ** levels or more.
      levels: how many.
      layers: steps of a level; 0 with one level is N(0, I) whatever the parameters.
      hidden: units of both hidden layers.

    Raises:
      ValueError: for fewer than one level, fewer than 2 ** levels dimensions, or negative layers.
    """
    if levels < 1 or dimensions < 2**levels or layers < 0:
        legal = "legal is 2 ** levels or more, 1 or more, and 0 or more"
        raise ValueError(f"dimensions, levels, layers: {dimensions}, {levels}, {layers}; {legal}")
    sizes = [dimensions // 2**level for level in reversed(range(levels))]
    shuffles = [
        np.stack([np.random.default_rng([size, layer]).permutation(size) for layer in range(layers)])
        if layers
        else np.zeros((0, size), int)
        for size in sizes
    ]

    def init(key: Any) -> Any:
        def step(key: Any, size: int) -> dict[str, Any]:
            one, two, three = jax.random.split(key, 3)
            seen = jax.random.normal(three, (100, size // 2))
            inner, seen = _start(one, seen, hidden)
            middle, _ = _start(two, jax.nn.elu(seen), hidden)
            return {
                "inner": inner,
                "middle": middle,
                "outer": _zeros(hidden, size - size // 2),
                "shift": jnp.zeros(size),
                "log_scale": jnp.zeros(size),
            }

        keys = jax.random.split(key, (levels, max(layers, 1)))[:, :layers]
        steps = [jax.vmap(lambda k, size=size: step(k, size))(row) for row, size in zip(keys, sizes)]
        splits = [_zeros(few, 2 * (more - few)) for few, more in zip(sizes, sizes[1:])]
        return {"steps": steps, "splits": splits}

    def push(parameters: Any, noise: Float[Array, " d"]) -> tuple[Array, Array]:
        def step(z: Any, layer: Any) -> tuple[Any, None]:
            p, shuffle = layer
            half = len(z) // 2
            moved = jax.nn.elu(_normed(p["middle"], jax.nn.elu(_normed(p["inner"], z[:half]))))
            z = jnp.concatenate([z[:half], z[half:] + _scaled(p["outer"], moved)])[shuffle]
            return z * jnp.exp(p["log_scale"]) + p["shift"], None

        z, volume = noise[: sizes[0]], jnp.zeros(())
        for level, (steps, shuffle) in enumerate(zip(parameters["steps"], shuffles)):
            if level:
                fresh = noise[len(z) : sizes[level]]
                mean, log_deviation = jnp.split(_scaled(parameters["splits"][level - 1], z), 2)
                z = jnp.concatenate([z, mean + jnp.exp(log_deviation) * fresh])
                volume += jnp.sum(log_deviation)
            z, _ = jax.lax.scan(step, z, (steps, shuffle))
            volume += jnp.sum(steps["log_scale"])
        return z, jnp.sum(jax.scipy.stats.norm.logpdf(noise)) - volume

    return Flow(init, push)


def _start(key: Any, seen: Float[Array, "n i"], size: int) -> tuple[Any, Float[Array, "n o"]]:
    """A linear layer and act-norm that make of `seen` what has mean 0 and deviation 1, and what they make.

    In the released code the scales of act-norm see to that; with many inputs they start near 1, with few anywhere, and a
    large one lengthens every step of its unit. Here they start at 1, and the weights see to it.
    """
    weights = jax.random.normal(key, (seen.shape[1], size))
    weights /= jnp.std(seen @ weights, 0) + 1e-6
    p = {"weights": weights, "shift": -jnp.mean(seen @ weights, 0), "log_scale": jnp.zeros(size)}
    return p, _normed(p, seen)


def _normed(p: Any, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
    return (x @ p["weights"] + p["shift"]) * jnp.exp(p["log_scale"])


def _zeros(inputs: int, outputs: int) -> dict[str, Array]:
    return {"weights": jnp.zeros((inputs, outputs)), "bias": jnp.zeros(outputs), "log_scale": jnp.zeros(outputs)}


def _scaled(p: Any, x: Float[Array, " i"]) -> Float[Array, " o"]:
    return (x @ p["weights"] + p["bias"]) * jnp.exp(3.0 * p["log_scale"])
