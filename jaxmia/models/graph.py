"""Graph convolution on a dense adjacency, so that the gradient with respect to every possible edge exists."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxmia.models.features import expose

__all__ = ["GCN", "normalize_adjacency"]


def normalize_adjacency(adjacency: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Returns `D^-1/2 (A + I) D^-1/2` with `D = diag(sum_j (A + I)_ij)` (Kipf and Welling 2017, section 2.2).

    Differentiable in `adjacency`, whose entries lie in [0, 1] and whose diagonal is zero; each node then has a
    degree of at least 1, and no division needs a guard.

    >>> normalize_adjacency(jnp.array([[0.0, 1.0], [1.0, 0.0]])).round(4).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    looped = adjacency + jnp.eye(adjacency.shape[0], dtype=adjacency.dtype)
    scale = lax.rsqrt(jnp.sum(looped, axis=1))
    return scale[:, None] * looped * scale[None, :]


class GCN(nn.Module):
    """Two-layer graph convolutional network, `A' relu(A' X W1) W2` (Kipf and Welling 2017, eq. 9), without dropout.

    Sows the hidden layer, `[n, hidden]`, into "features" as "embedding".

    Attributes:
      hidden: units of the hidden layer.
      classes: number of classes.
    """

    hidden: int
    classes: int

    @nn.compact
    def __call__(
        self, adjacency: Float[Array, "n n"], features: Float[Array, "n d"], train: bool = False
    ) -> Float[Array, "n classes"]:
        """Returns the logits of every node; `adjacency` is neither normalized nor looped, see `normalize_adjacency`."""
        scale = lax.rsqrt(jnp.sum(adjacency, axis=1) + 1)[:, None]

        def spread(x: Float[Array, "n k"]) -> Float[Array, "n k"]:
            # A' x without A', through which gradients on CPU take five times as long under vmap.
            return scale * (adjacency @ (scale * x) + scale * x)

        x = spread(nn.Dense(self.hidden, use_bias=False)(features))
        x = nn.relu(x + self.param("bias1", nn.initializers.zeros_init(), (self.hidden,)))
        expose(self, "embedding", x)
        x = spread(nn.Dense(self.classes, use_bias=False)(x))
        return x + self.param("bias2", nn.initializers.zeros_init(), (self.classes,))
