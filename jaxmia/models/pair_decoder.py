"""What reads edges out of embeddings: nodes are joined where their codes have a large product."""

import flax.linen as nn
from jaxtyping import Array, Float

__all__ = ["NodeEncoder"]


class NodeEncoder(nn.Module):
    """One hidden layer with a ReLU, from rows to codes; it sees no edges.

    Attributes:
      width: units of the hidden layer.
      code: numbers of a code.
    """

    width: int = 32
    code: int = 16

    @nn.compact
    def __call__(self, rows: Float[Array, "n h"], train: bool = False) -> Float[Array, "n code"]:
        """Returns the codes, whose inner products are logits of edges."""
        del train
        rows = nn.relu(nn.Dense(self.width)(rows))
        return nn.Dense(self.code)(rows)
