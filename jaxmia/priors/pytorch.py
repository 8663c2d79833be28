"""The latent space of a generator that was published for PyTorch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Prior, Scalar
from jaxmia.priors.latent import latent
from jaxmia.torch_modules import check_channels, functional, to_channels_last

__all__ = ["latent_from_torch"]


def latent_from_torch(
    generator: Any,
    dimensions: int | Sequence[int],
    *,
    output: tuple[float, float] = (-1.0, 1.0),
    channels: str = "first",
    realism: Callable[[Float[Array, "1 ..."]], Float[Array, "1 ..."]] | None = None,
    bound: Scalar = math.inf,
) -> Prior:
    """z ~ N(0, I) decoded by a PyTorch generator in evaluation mode, which torchax computes on JAX; it stays as it is.

    Its numbers go from `output` to [0, 1] and are cut off there. It is copied, in float32, and compared with itself in
    PyTorch, as `from_torch` does.

    Args:
      generator: a torch.nn.Module whose call takes z and returns images `[n, channels, height, width]`. It must draw no
        noise of its own.
      dimensions: of z: `d` where the generator reads `[n, d]`, or a shape such as `(d, 1, 1)` where it reads
        `[n, d, 1, 1]`. The latent is flat, `[d]`, in either case.
      output: what the generator calls black and white: (-1, 1) after tanh, (0, 1) after a sigmoid.
      channels: "last" for a generator that returns `[n, height, width, channels]`.
      realism: a critic's score of a batch of candidates, as in `latent`.
      bound: z is clipped to [-bound, bound]; infinity leaves it free.

    Raises:
      ImportError: without torch or torchax, or with versions that do not fit together.
      ValueError: for fewer than one dimension, an output whose end is not above its start, and what `from_torch` refuses
        of a module.
    """
    sizes = (dimensions,) if isinstance(dimensions, int) else tuple(dimensions)
    low, high = output
    if not sizes or any(size < 1 for size in sizes):
        raise ValueError(f"dimensions: {dimensions}; legal is 1 or more, or a shape of such")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"output: {output}; legal is two finite numbers, the second one larger")
    check_channels(channels)
    ask, params = functional(generator, "generator")

    def generate(z: Any) -> Any:
        answer = ask(params, z.reshape(-1, *sizes)).outputs
        if not hasattr(answer, "shape"):
            raise ValueError(f"generator: returns a {type(answer).__name__}; legal is one tensor, the images")
        image = to_channels_last(answer) if channels == "first" else answer
        return jnp.clip((image - low) / (high - low), 0.0, 1.0)

    return latent(generate, math.prod(sizes), realism=realism, bound=bound)
