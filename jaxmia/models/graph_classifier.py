"""A classifier of whole graphs, small ones, padded to the same number of nodes."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.models.features import expose
from jaxmia.models.graph import MeanConvolution, neighbor_mean

__all__ = ["GraphClassifier"]


class GraphClassifier(nn.Module):
    """Three layers of GraphSAGE, the mean of all three over the nodes, and a classifier on it.

    The target of Zhang et al., "Inference Attacks Against Graph Neural Networks", USENIX Security 2022, with mean
    pooling. A layer is the mean aggregator, ReLU and BatchNorm. BatchNorm and the pooling count real nodes alone.

    Sows into "features" the layers, `[b, n, width]`, as "layer1", "layer2", "layer3", and the embedding of each graph,
    `[b, 3 * width]`, as "embedding".

    Attributes:
      classes: number of classes.
      width: units of each layer.
      padded: whether the pooling runs over padding as well, as in the released code: an embedding then grows with the
        number of real nodes, and tells it.
    """

    classes: int
    width: int = 64
    padded: bool = False

    @nn.compact
    def __call__(self, graphs: Mapping[str, Float[Array, "b ..."]], train: bool = False) -> Float[Array, "b classes"]:
        """Returns the logits of every graph.

        Args:
          graphs: "adjacency" `[b, n, n]` in [0, 1] with a zero diagonal, zero where a node is padding; "features"
            `[b, n, d]`; "mask" `[b, n]`, 1 for real nodes and 0 for padding.
          train: whether BatchNorm takes the statistics of this batch, and keeps a running mean of them.
        """
        real = graphs["mask"][..., None] > 0
        mean, x, layers = neighbor_mean(graphs["adjacency"]), graphs["features"], []
        for layer in range(1, 4):
            x = nn.relu(MeanConvolution(self.width, name=f"convolution{layer}")(x, mean))
            # Running statistics follow within tens of steps, as trainings on a few hundred small graphs are short.
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"norm{layer}")(x, mask=real)
            expose(self, f"layer{layer}", x)
            layers.append(x)
        nodes = jnp.concatenate(layers, axis=-1)
        counted = jnp.ones_like(real) if self.padded else real
        x = jnp.sum(nodes * counted, axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1)
        expose(self, "embedding", x)
        x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)
