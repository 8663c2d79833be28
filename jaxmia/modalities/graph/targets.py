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
from jaxmia.composing import compose
from jaxmia.data.rewire import rewired
from jaxmia.identity import digest
from jaxmia.metrics.estimate import bootstrap
from jaxmia.metrics.graph_shape import adjacency_of
from jaxmia.modalities.graph.data import Nodes
from jaxmia.models.graph import GAT, GCN, SAGE, NodeMLP
from jaxmia.oracle import Access, Outputs, sown_features
from jaxmia.target import Target

__all__ = ["NETWORKS", "TARGETS", "OverNodes", "accuracy", "fit", "layer"]

NETWORKS: dict[str, type[nn.Module]] = {"gcn": GCN, "sage": SAGE, "gat": GAT, "mlp": NodeMLP}
"""Networks `(hidden, classes)` on `(adjacency, features)`, by the name of the target."""


class Recipe(NamedTuple):
    """A network of two layers, and how it is trained on the whole graph at once."""

    width: int
    steps: int
    rate: float
    weight_decay: float
    network: str = "gcn"


def gcn(*, width: int = 16, steps: int = 200, rate: float = 0.01, weight_decay: float = 5e-4) -> Recipe:
    """Two graph convolutions (Kipf, Welling 2017), without dropout."""
    return Recipe(width, steps, rate, weight_decay)


def sage(*, width: int = 16, steps: int = 200, rate: float = 0.01, weight_decay: float = 5e-4) -> Recipe:
    """Two layers of GraphSAGE (Hamilton et al. 2017): the mean over all neighbors, without dropout."""
    return Recipe(width, steps, rate, weight_decay, "sage")


def gat(*, width: int = 8, steps: int = 200, rate: float = 5e-3, weight_decay: float = 5e-4) -> Recipe:
    """Two layers of graph attention (Velickovic et al. 2018): 8 heads of `width`, then 1, with dropout of features."""
    return Recipe(width, steps, rate, weight_decay, "gat")


def mlp(*, width: int = 16, steps: int = 200, rate: float = 0.01, weight_decay: float = 5e-4) -> Recipe:
    """Two layers that never see an edge: what is found in this target does not come from the edges."""
    return Recipe(width, steps, rate, weight_decay, "mlp")


TARGETS: dict[str, Callable[..., Recipe]] = {"gcn": gcn, "sage": sage, "gat": gat, "mlp": mlp}


class OverNodes(nn.Module):
    """The network on fixed features `[n, d]`: adjacencies `[b, n, n]` to logits `[b, n, classes]`.

    Attributes:
      features: of the nodes.
      classes: of the nodes.
      width: units of the hidden layer.
      network: a name of `NETWORKS`; what it sows is shown as "name/embedding".
    """

    features: Any
    classes: int
    width: int
    network: str = "gcn"

    @nn.compact
    def __call__(self, adjacencies: Float[Array, "b n n"], train: bool = False) -> Float[Array, "b n classes"]:
        batched = nn.vmap(
            NETWORKS[self.network],
            in_axes=(0, None, None),  # pyright: ignore[reportArgumentType]
            variable_axes={"params": None, "features": 0},
            split_rngs={"params": False, "dropout": False},
        )
        return batched(self.width, self.classes, name=self.network)(adjacencies, self.features, train)


def fit(recipe: Recipe, data: Nodes, how: Training) -> Fitted:
    """A target; a minibatch is the graph.

    Its views are the "adjacency" that it learned, which a defense or the control "rewired" may have made of the true one;
    the target of "features", which answers `[n, d]` for that graph, since it holds it, and so never grants its weights;
    and what its defense makes of what it sends, "send".
    """
    graph, labeled, nodes = data.graph, data.labeled, len(data.graph.labels)
    labels, edges = graph.labels, graph.edges
    if how.control == "shuffled":
        labels = labels.copy()
        labels[labels >= 0] = np.random.default_rng((how.seed, 1)).permutation(labels[labels >= 0])
    if how.control == "rewired":
        edges = rewired(edges, nodes, seed=how.seed)
    changes = compose(networks.parts_of(how.defense, 1)).graph
    edges = np.asarray(changes(jax.random.fold_in(jax.random.key(how.seed), 2), edges, nodes), np.int32)
    adjacency = adjacency_of(edges, nodes)

    def cross_entropy(outputs: Outputs, batch: dict[str, Any]) -> Float[Array, ""]:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch["y"])
        return jnp.mean(losses[:, labeled])

    network = Network(
        OverNodes(jnp.asarray(graph.features), len(graph.names), recipe.width, recipe.network),
        optax.chain(optax.add_decayed_weights(recipe.weight_decay), optax.adam(recipe.rate)),
        recipe.steps,
        batch_size=1,
        loss=cross_entropy,
    )
    arrays = {"x": adjacency[None], "y": labels[None]}
    if len(edges):
        arrays["edges"] = edges[None]
    contents = data.contents if np.array_equal(edges, graph.edges) else {**data.contents, "learned": digest(edges)}
    module, variables, defense, spent = networks.train(network, arrays, contents, how)
    served: dict[str, Any] = {"defense": defense, "secret": (how.seed + 3000) % 2**32}
    target = from_linen(
        module, variables, classes=len(graph.names), **served, example=adjacency[None] if how.real else None
    )
    features = _of_features(module, target.params, adjacency, len(graph.names), served)
    return Fitted(
        target, module, spent, labels, views={"adjacency": adjacency, "features": features, "send": defense.send}
    )


def _of_features(
    module: Any, variables: Any, adjacency: Float[np.ndarray, "n n"], classes: int, served: dict[str, Any]
) -> Target:
    """The same network as a target of features: whoever asks has them, and the target has the graph.

    The graph is among its parameters, so that its digest tells one graph from another.
    """

    def apply(held: Any, features: Float[Array, "n d"]) -> Outputs:
        asked = module.clone(features=features)
        logits, sown = asked.apply(held["variables"], held["adjacency"][None], mutable=["features"])
        shown = {name: jnp.squeeze(value, 0) for name, value in sown_features(sown).items()}
        return Outputs(logits[0], shown)

    held = {"variables": variables, "adjacency": jnp.asarray(adjacency)}
    # Features that differ in any bit meet other noise: the small step of LinkTeller is no repeated query.
    return Target(apply, held, classes=classes, granted=Access.SCORES, grid=None, **served)


def layer(fitted: Fitted) -> str:
    """The name under which a target shows its hidden features, such as "gcn/embedding"; longer behind a defense."""
    n, target = len(fitted.labels), fitted.target
    assert target.apply is not None, "a target of a Linen module"
    shown = jax.eval_shape(target.apply, target.params, jnp.zeros((n, n)))
    return next(name for name in shown.features if name.rsplit("/", 1)[-1] == "embedding")


def accuracy(fitted: Fitted, data: Nodes) -> dict[str, Any]:
    """Of the labels that it serves for the test nodes."""
    learned = jnp.asarray(fitted.views["adjacency"])
    answered = fitted.target.view(Access.LABELS).answer(jax.random.key(0), learned)
    right = np.asarray(answered)[data.test] == data.graph.labels[data.test]
    return {**bootstrap(right.astype(float))._asdict(), "unit": "share"}
