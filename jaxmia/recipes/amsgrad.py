"""AMSGrad as PyTorch has it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxmia.core import Scalar

__all__ = ["Moments", "amsgrad"]


class Moments(NamedTuple):
    """Trees like the parameters: running means of the gradients and of their squares, and the largest of the latter."""

    count: Int[Array, ""]
    mean: Any
    square: Any
    largest: Any


def amsgrad(rate: Any, b1: Scalar = 0.9, b2: Scalar = 0.999, *, eps: Scalar = 1e-8) -> optax.GradientTransformation:
    """x <- x - rate * (m / (1 - b1^t)) / (sqrt(max over steps of v) / sqrt(1 - b2^t) + eps).

    Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, in the form of `torch.optim.Adam(amsgrad=True)`:
    the maximum is taken over v itself, and corrected for its start afterwards. `optax.amsgrad` corrects v first, so that a
    large first gradient keeps the steps small for good: up to sqrt(1000 / n) times smaller after n large ones.

    Args:
      rate: a number, or a schedule `count -> number`.
      b1: decay of the mean of the gradients, in [0, 1).
      b2: decay of the mean of their squares, in [0, 1).
      eps: added to the root of the second moment.
    """

    def init(params: Any) -> Any:
        return Moments(jnp.zeros((), jnp.int32), *(jax.tree.map(jnp.zeros_like, params) for _ in range(3)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        count: Any = optax.safe_increment(state.count)
        mean = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, updates, state.mean)
        square = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * g**2, updates, state.square)
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        first, root = 1 - b1**count, jnp.sqrt(1 - b2**count)
        moved = jax.tree.map(lambda m, v: m / first / (jnp.sqrt(v) / root + eps), mean, largest)
        return moved, Moments(count, mean, square, largest)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(rate))
