"""A small network on vectors."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

__all__ = ["Perceptron"]


class Perceptron(nn.Module):
    """Two hidden layers, from vectors to vectors.

    Attributes:
      width: of the hidden layers.
      outputs: numbers of a result.
      activation: after each hidden layer.
      head: makes the last layer, `outputs -> module`.
    """

    width: int
    outputs: int
    activation: Callable[[Any], Any] = nn.relu
    head: Callable[[int], nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Float[Array, "*n inputs"], train: bool = False) -> Float[Array, "*n outputs"]:
        """Returns the last layer, which has no activation."""
        for _ in range(2):
            x = self.activation(nn.Dense(self.width)(x))
        return self.head(self.outputs)(x)
