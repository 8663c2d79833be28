"""The targets of an audit of graphs: networks that classify its nodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxmia.adapters.linen import from_linen
from jaxmia.audit import networks
from jaxmia.audit.modality import Fitted, Training
from jaxmia.audit.networks import Network
from jaxmia.metrics.estimate import bootstrap
from jaxmia.modalities.graph.data import Nodes
from jaxmia.models.graph import GCN
from jaxmia.oracle import Access, Outputs

__all__ = ["LAYER", "TARGETS", "OverNodes", "accuracy", "fit"]

LAYER = "gcn/embedding"
"""The hidden features of a target, by name."""


class Recipe(NamedTuple):
    """A network of two layers, and how it is trained on the whole graph at once."""

    width: int
    steps: int
    rate: float
    weight_decay: float


def gcn(*, width: int = 16, steps: int = 200, rate: float = 0.01, weight_decay: float = 5e-4) -> Recipe:
    """Two graph convolutions (Kipf, Welling 2017), without dropout."""
    return Recipe(width, steps, rate, weight_decay)


TARGETS: dict[str, Callable[..., Recipe]] = {"gcn": gcn}


class OverNodes(nn.Module):
    """The network on fixed features `[n, d]`: adjacencies `[b, n, n]` to logits `[b, n, classes]`.

    Attributes:
      features: of the nodes.
      classes: of the nodes.
      width: units of the hidden layer.
    """

    features: Any
    classes: int
    width: int

    @nn.compact
    def __call__(self, adjacencies: Float[Array, "b n n"], train: bool = False) -> Float[Array, "b n classes"]:
        del train
        batched = nn.vmap(
            GCN,
            in_axes=(0, None),  # pyright: ignore[reportArgumentType]
            variable_axes={"params": None, "features": 0},
            split_rngs={"params": False},
        )
        return batched(self.width, self.classes, name="gcn")(adjacencies, self.features)


def fit(recipe: Recipe, data: Nodes, how: Training) -> Fitted:
    """A target; a minibatch is the graph."""
    graph, labeled = data.graph, data.labeled
    labels = graph.labels
    if how.control == "shuffled":
        labels = np.random.default_rng((how.seed, 1)).permutation(labels)

    def cross_entropy(outputs: Outputs, batch: dict[str, Any]) -> Float[Array, ""]:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch["y"])
        return jnp.mean(losses[:, labeled])

    network = Network(
        OverNodes(jnp.asarray(graph.features), len(graph.names), recipe.width),
        optax.chain(optax.add_decayed_weights(recipe.weight_decay), optax.adam(recipe.rate)),
        recipe.steps,
        batch_size=1,
        loss=cross_entropy,
    )
    arrays = {"x": data.adjacency[None], "y": labels[None]}
    module, variables, defense, spent = networks.train(network, arrays, data.contents, how)
    target = from_linen(
        module, variables, classes=len(graph.names), defense=defense, secret=(how.seed + 3000) % 2**32,
        example=data.adjacency[None] if how.real else None,
    )  # fmt: skip
    return Fitted(target, module, spent, labels)


def accuracy(fitted: Fitted, data: Nodes) -> dict[str, Any]:
    """Of the labels that it serves for the test nodes."""
    answered = fitted.target.view(Access.LABELS).answer(jax.random.key(0), jnp.asarray(data.adjacency))
    right = np.asarray(answered)[data.test] == data.graph.labels[data.test]
    return {**bootstrap(right.astype(float))._asdict(), "unit": "share"}
