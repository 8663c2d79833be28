"""A small classifier with dropout, of the features of a pair of nodes, or of a node."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["PairClassifier"]


class PairClassifier(nn.Module):
    """Fully connected layers with dropout after each hidden one; in training it needs the rng "dropout".

    Attributes:
      widths: of the hidden layers.
      classes: number of classes.
      dropout: share of the hidden units that a step of training leaves out, in [0, 1); it may be traced.
    """

    widths: tuple[int, ...] = (32, 32)
    classes: int = 2
    dropout: float | Float[Array, ""] = 0.5

    @nn.compact
    def __call__(self, x: Float[Array, "*n inputs"], train: bool = False) -> Float[Array, "*n classes"]:
        """Returns the logits."""
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
            if train:
                kept = 1.0 - self.dropout
                x = jnp.where(jax.random.bernoulli(self.make_rng("dropout"), kept, x.shape), x / kept, 0.0)
        return nn.Dense(self.classes)(x)
