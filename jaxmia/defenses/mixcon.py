"""MixCon: train hidden features of different classes to be neither far apart nor close together.

Li, Huang, Peng, Song, Li, "MixCon: Adjusting the Separability of Data Representations for Harder
Data Recovery", 2020 (https://arxiv.org/abs/2010.11463). The abstract: an objective adjusts how
separable hidden representations are, and there are sweet spots where data is hard to recover and
still useful.

This is a reconstruction. The abstract was read, the paper's formulas were not; as we understand it

    loss = cross entropy + lambda * mean over pairs (i, j) of different classes of (d + beta / d)
    d = |z_i - z_j|^2 / number of dimensions of z

which pulls features of different classes together until d reaches sqrt(beta), and pushes them apart
below. The mean over all pairs of rows of a minibatch whose labels differ, the defaults lambda 0.1
and beta 0.01, and 1e-4 added to d in the quotient, so that no gradient explodes where features
coincide, are choices of this project. Several named layers add up. Padding rows ("mask") count
nowhere.

What it costs and does not do. The distances are n^2 numbers a layer. A minibatch of one class adds
nothing. Features of one class may still tell its members apart, which is what an attack on single
inputs needs; a decoder trained from scratch on the features is the attack to set beside it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.models.features import named_features
from jaxmia.ranges import at_least_zero

__all__ = ["CARD", "mixcon", "separability"]

CARD = Card(
    title="MixCon",
    paper="Li, Huang, Peng, Song, Li. MixCon. arXiv 2020",
    url="https://arxiv.org/abs/2010.11463",
    year=2020,
    modality="any",
    hook="loss",
)

FLOOR = 1e-4
"""Added to a distance before beta is divided by it."""


def mixcon(*, weight: Scalar = 0.1, beta: Scalar = 0.01, layers: tuple[str, ...] | None = None) -> Defense:
    """The defense: the loss of training with the separability term added.

    Args:
      weight: lambda, 0 or more.
      beta: the square of the distance that features of different classes are drawn to, 0 or more.
      layers: the named features to constrain, such as the one that is sent; None takes all that the
        model sows.

    Raises:
      ValueError: for a negative number; at the first step, for labels that are not one for each
        example, or if the model sows no such feature.

    >>> from jaxmia.oracle import Outputs
    >>> z = jnp.array([[0.0, 0.0], [3.0, 1.0]])
    >>> defended = mixcon(weight=0.5, beta=0.0).loss(lambda outputs, batch: 1.0)
    >>> float(defended(Outputs(z, {"block1": z}), {"x": z, "y": jnp.array([0, 1])}))
    3.5
    """
    at_least_zero(weight=weight, beta=beta)

    def loss(plain: Callable) -> Callable:
        def defended(outputs: Any, batch: Any) -> Any:
            labels = jnp.asarray(batch["y"])
            if labels.ndim != 1:
                raise ValueError(f"mixcon: y has shape {labels.shape}; legal is one label for each example")
            mask = jnp.asarray(batch.get("mask", jnp.ones(len(labels))), jnp.float32)
            hidden = named_features(outputs.features, layers)
            return plain(outputs, batch) + weight * sum(separability(z, labels, beta, mask) for z in hidden)

        return defended

    return Defense(loss=loss, couples=True)


def separability(z: Any, labels: Any, beta: Scalar, mask: Float[Array | np.ndarray, " n"]) -> Float[Array, ""]:
    """The mean of d + beta / d over pairs of rows that count and differ in label; else 0.

    >>> z = jnp.array([[0.0], [2.0], [9.0]])
    >>> float(separability(z, jnp.array([0, 1, 1]), 0.0, jnp.array([1.0, 1.0, 0.0])))
    4.0
    """
    counted = jnp.asarray(mask, jnp.float32)
    flat = jnp.reshape(jnp.asarray(z, jnp.float32), (len(z), -1))
    mean = counted @ flat / jnp.maximum(jnp.sum(counted), 1.0)
    flat = jnp.where(counted[:, None] > 0, flat - mean, 0.0)
    gram = jnp.matmul(flat, flat.T, precision="highest")
    squares = jnp.diagonal(gram)
    d = jnp.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0) / flat.shape[1]
    pairs = jnp.outer(counted, counted) * (labels[:, None] != labels[None, :])
    return jnp.sum(pairs * (d + beta / (d + FLOOR))) / jnp.maximum(jnp.sum(pairs), 1.0)
