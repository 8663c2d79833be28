"""What an adversary knows of the labels of a graph, as attacks on node classifiers take it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmia.objectives import cross_entropy

__all__ = ["entropy_of_known", "labeled_nodes"]


def labeled_nodes(
    labels: Int[Any, " n"], nodes: int, answer: tuple[int, ...]
) -> tuple[Int[Array, " k"], Int[Array, " k"]]:
    """The nodes of known label, and their labels.

    Args:
      labels: of all nodes; negative where the adversary does not know it.
      nodes: how many there are, as rows of the features.
      answer: shape of what the target answers: `(nodes, classes)` for logits, `(nodes,)` for
        labels.

    Raises:
      ValueError: for shapes that do not agree, a label that is no class, or no known label.
    """
    labels = np.asarray(labels)
    if labels.shape != (nodes,):
        raise ValueError(f"labels: shape {labels.shape}; legal is ({nodes},), one for each row of the features")
    if answer[:1] != (nodes,) or len(answer) > 2:
        raise ValueError(f"oracle: answers {answer}; legal is [{nodes}, classes] or [{nodes}], of every node")
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise ValueError("labels: all are negative, which says unknown; the attack needs one label or more")
    if len(answer) == 2 and labels.max() >= answer[1]:
        raise ValueError(f"labels: {labels.max()}; legal is below {answer[1]}, the target's classes")
    return jnp.asarray(known), jnp.asarray(labels[known])


def entropy_of_known(
    logits: Float[Array, "n classes"], known: Int[Array, " k"], wanted: Int[Array, " k"]
) -> Float[Array, ""]:
    """Mean cross entropy of the nodes of known label."""
    return jnp.mean(jax.vmap(cross_entropy)(logits[known], wanted))
