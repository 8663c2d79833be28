"""NoPeek: train features that a client sends to have little distance correlation with its input.

Vepakomma, Singh, Gupta, Raskar, "NoPeek: Information Leakage Reduction to Share Activations in
Distributed Deep Learning", ICDM workshops 2020 (https://arxiv.org/abs/2008.09161). With a_ij the
distance of inputs i and j of a minibatch of n, b_ij that of their features, and A, B the two with
the means of rows and columns taken off (double centering):

    loss = cross entropy + alpha * dcor(x, z)
    dcor = sqrt(sum A_ij B_ij / sqrt(sum A_ij^2 * sum B_ij^2))

which is the distance correlation of Szekely, Rizzo, Bakirov (Annals of Statistics 2007), 0 to 1.

What differs from the released code. That of others (TTitcombe/Model-Inversion-SplitNN) takes
squared distances, `squared=True` here: then dcor is the square root of linear CKA, which is zero
for features that depend on the input, but not linearly. It also applies a softmax before a cross
entropy that applies another. Padding rows ("mask") count nowhere here. Several named layers add up.

The weight: ResSFL's code has 1 to 2, TTitcombe's 0.05 to 0.5, and the authors' CIFAR notebook 1000
against 0.1 for the classes; 1 is our choice.

What it costs and does not do. The distances are n^2 numbers a layer. For small n the measure is far
above zero for independent data: set beside it the number for inputs in another order. Known to be
bypassed by a server that steers the client's training (FSHA); and a low correlation is a bound on
nothing: a decoder trained from scratch on the features is the attack to set beside it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.models.features import named_features
from jaxmia.ranges import at_least_zero

__all__ = ["CARD", "distance_correlation", "nopeek"]

CARD = Card(
    title="NoPeek",
    paper="Vepakomma, Singh, Gupta, Raskar. NoPeek. ICDM workshops 2020",
    url="https://arxiv.org/abs/2008.09161",
    year=2020,
    modality="any",
    hook="loss",
)


def nopeek(*, alpha: Scalar = 1.0, layers: tuple[str, ...] | None = None, squared: bool = False) -> Defense:
    """The defense: the loss of training with the distance correlations added.

    Args:
      alpha: weight of the distance correlation of each layer with the input, 0 or more.
      layers: the named features to constrain, such as the one that is sent; None takes all that the
        model sows.
      squared: whether distances are squared, as in released code (see above).

    Raises:
      ValueError: for a negative weight; at the first step, if the model sows no such feature.

    >>> from jaxmia.oracle import Outputs
    >>> x = jnp.array([[0.0], [1.0], [3.0]])
    >>> defended = nopeek(alpha=2.0).loss(lambda outputs, batch: 0.5)
    >>> round(float(defended(Outputs(x, {"block1": 5 * x}), {"x": x})), 5)
    2.5
    """
    at_least_zero(alpha=alpha)

    def loss(plain: Callable) -> Callable:
        def defended(outputs: Any, batch: Any) -> Any:
            mask = jnp.asarray(batch.get("mask", jnp.ones(len(batch["x"]))), jnp.float32)
            hidden = named_features(outputs.features, layers)
            leaked = [distance_correlation(batch["x"], z, mask=mask, squared=squared) for z in hidden]
            return plain(outputs, batch) + alpha * sum(leaked)

        return defended

    return Defense(loss=loss, couples=True)


def distance_correlation(
    x: Any, z: Any, *, mask: Float[Array | np.ndarray, " n"] | None = None, squared: bool = False
) -> Float[Array, ""]:
    """Of two samples `[n, ...]` of paired rows: 0 to 1, and 0 where one sample is constant.

    Args:
      x: one sample; its other axes are flattened.
      z: the other.
      mask: 0 for rows that do not count; None counts all.
      squared: whether distances are squared; then it is the square root of linear CKA.

    >>> x = jnp.array([[0.0], [1.0], [2.0], [4.0]])
    >>> [round(float(distance_correlation(x, z)), 4) for z in (x, 1 - 3 * x, jnp.ones((4, 2)))]
    [1.0, 1.0, 0.0]
    """
    counted = jnp.ones(len(x)) if mask is None else jnp.asarray(mask, jnp.float32)
    a, b = (_centered(_distances(sample, counted, squared), counted) for sample in (x, z))
    # Scaled to size 1 each, so that the products of small distances do not vanish in float32.
    a, b = (c / jnp.sqrt(jnp.maximum(jnp.sum(c**2), 1e-12)) for c in (a, b))
    share = jnp.sum(a * b)
    positive = share > 1e-12  # the slope of the root is infinite at zero
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, share, 1.0)), 0.0)


def _distances(sample: Any, counted: Float[Array, " n"], squared: bool) -> Float[Array, "n n"]:
    flat = jnp.reshape(jnp.asarray(sample, jnp.float32), (len(sample), -1))
    # Less the mean, since what all rows share costs digits below.
    mean = counted @ flat / jnp.maximum(jnp.sum(counted), 1.0)
    flat = jnp.where(counted[:, None] > 0, flat - mean, 0.0)
    gram = jnp.matmul(flat, flat.T, precision="highest")
    squares = jnp.diagonal(gram)
    distances = jnp.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
    if squared:
        return distances
    apart = distances > 1e-7  # the slope of the root is infinite at zero
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, distances, 1.0)), 0.0)


def _centered(distances: Float[Array, "n n"], counted: Float[Array, " n"]) -> Float[Array, "n n"]:
    """Double centering over the rows that count; the others become zero."""
    count = jnp.maximum(jnp.sum(counted), 1.0)
    centering = jnp.diag(counted) - jnp.outer(counted, counted) / count
    inner = jnp.matmul(centering, distances, precision="highest")
    return jnp.matmul(inner, centering, precision="highest")
