"""CEM: train the features that a client sends to vary little within the clusters of a class.

Xia, Yu, Yang, Ding, Chen, Duan, Kot, Jiang, "Theoretical Insights in Model Inversion Robustness and
Conditional Entropy Maximization for Collaborative Inference Systems", CVPR 2025
(https://arxiv.org/abs/2503.00383). The conditional entropy of inputs given the features that are
sent bounds the mean squared error of every adversary from below. With noise of variance s^2 on the
features, and features of a class as a mixture of clusters, what they tell of the input grows with
the variance within a cluster, measured in s^2; so that variance is made small:

    loss = cross entropy + weight * mean over classes c of  R_c
    R_c = sum over clusters k of  w_k * mean over dimensions d of
          max(0, log(v_kd + s^2 + 1e-4) - log(s^2)),        s^2 = noise_variance, 0.001

v_kd is the variance of dimension d around the center of cluster k, w_k the share of the class's
examples in k. If a class is one Gaussian cluster, R_c is twice the mutual information of a feature
number with its noisy version, in nats. The constants 0.0011 and 0.001 are those of the released
code (xiasong0501/CEM). So are weights of 8 to 16, but that code trains with noise on the features,
which have to stay above it; without noise the term is blind to their size and draws them to
zero. The default 0.1 is ours.

What differs. That code clusters the features of the whole training set anew in each epoch, from a
k-means++ start, and adds the gradient to the client's part alone. Here clusters are those of the
minibatch: the start is the first example of a class and then, one by one, the example that is
farthest from the centers so far, followed by a few steps of Lloyd's algorithm; assignments take no
gradient, centers do. The gradient reaches all that comes before the feature, which is the client's
part. A cluster of one example has no variance; with few examples of a class in a minibatch take few
clusters. One cluster is our default. Several named layers add up. Padding ("mask") counts nowhere.

What it costs and does not do. Alone it protects nothing: the bound is that of noise on what is
sent, for which `feature_noise` stands beside it, `distribution: gaussian`, with a standard
deviation of 0.01 to 0.15 in that code; `noise_variance` is the square of it. The measure is
Gaussian, and for clusters of a minibatch: it is no bound on what features of other shape tell. What
tells classes and clusters apart stays. A decoder that was trained on noisy features is the attack
to set beside it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmia.core import Card, Defense, Scalar
from jaxmia.models.features import named_features
from jaxmia.ranges import above_zero, at_least_zero

__all__ = ["CARD", "cem", "clusters_of", "told"]

CARD = Card(
    title="CEM",
    paper="Xia, Yu, Yang, Ding, Chen, Duan, Kot, Jiang. Conditional Entropy Maximization. CVPR 2025",
    url="https://arxiv.org/abs/2503.00383",
    year=2025,
    modality="any",
    hook="loss",
)

LLOYD = 5
"""Steps of Lloyd's algorithm in a minibatch."""


def cem(
    *,
    weight: Scalar = 0.1,
    clusters: int = 1,
    noise_variance: Scalar = 1e-3,
    layers: tuple[str, ...] | None = None,
) -> Defense:
    """The defense: the loss of training with the term above added.

    Args:
      weight: of the term, 0 or more; see above before going beyond 0.3.
      clusters: of each class in a minibatch, 1 or more.
      noise_variance: s^2, of the noise on what is sent, above 0.
      layers: the named features to constrain, such as the one that is sent; None takes all that the
        model sows.

    Raises:
      ValueError: for a number out of range; at the first step, for labels that are not one for each
        example, or if the model sows no such feature.

    >>> from jaxmia.oracle import Outputs
    >>> z = jnp.array([[0.0], [2.0]])
    >>> defended = cem(weight=10.0).loss(lambda outputs, batch: 1.0)
    >>> round(float(defended(Outputs(jnp.zeros((2, 3)), {"block1": z}), {"y": jnp.array([1, 1])})), 2)
    70.09
    """
    at_least_zero(weight=weight)
    above_zero(noise_variance=noise_variance)
    if clusters < 1:
        raise ValueError(f"clusters: {clusters}; legal is 1 or more")

    def loss(plain: Callable) -> Callable:
        def defended(outputs: Any, batch: Any) -> Any:
            labels = jnp.asarray(batch["y"])
            if labels.ndim != 1:
                raise ValueError(f"cem: y has shape {labels.shape}; legal is one label for each example")
            mask = jnp.asarray(batch.get("mask", jnp.ones(len(labels))), jnp.float32)
            classes = outputs.logits.shape[-1]
            members = jax.nn.one_hot(labels, classes, axis=0) * mask
            hidden = named_features(outputs.features, layers)
            terms = [told(z, members, clusters, noise_variance) for z in hidden]
            return plain(outputs, batch) + weight * sum(terms)

        return defended

    return Defense(loss=loss, couples=True)


def told(
    z: Any, members: Float[Array | np.ndarray, "classes n"], clusters: int, noise_variance: Scalar
) -> Float[Array, ""]:
    """The mean of R_c over the classes that have members.

    Args:
      z: features `[n, ...]`.
      members: 1 where an example is of a class, else 0; an example of no class is padding.
      clusters: of each class.
      noise_variance: s^2.
    """
    flat = jnp.reshape(jnp.asarray(z, jnp.float32), (len(z), -1))
    flat = jnp.where(jnp.sum(members, 0)[:, None] > 0, flat, 0.0)

    def of_class(counted: Float[Array, " n"]) -> Float[Array, ""]:
        own = jax.nn.one_hot(clusters_of(jax.lax.stop_gradient(flat), counted, clusters), clusters, axis=0) * counted
        size = jnp.sum(own, 1)
        mean = own @ flat / jnp.maximum(size, 1.0)[:, None]
        squares = jnp.square(flat[None] - mean[:, None])  # not E z^2 - mean^2, which cancels in float32
        variance = jnp.einsum("kn,knd->kd", own, squares) / jnp.maximum(size, 1.0)[:, None]
        excess = jnp.log(variance + noise_variance + 1e-4) - jnp.log(noise_variance)
        share = size / jnp.maximum(jnp.sum(size), 1.0)
        return jnp.sum(share * jnp.mean(jnp.maximum(excess, 0.0), 1))

    there = jnp.sum(jnp.asarray(members), 1) > 0
    # One class after the other, since each holds [clusters, n, d] numbers.
    terms = jax.lax.map(jax.checkpoint(of_class), jnp.asarray(members, jnp.float32))
    return jnp.sum(terms * there) / jnp.maximum(jnp.sum(there), 1)


def clusters_of(z: Float[Array, "n d"], counted: Float[Array | np.ndarray, " n"], clusters: int) -> Int[Array, " n"]:
    """k-means of the rows that count, from a start of rows far apart; a cluster may stay empty.

    >>> z = jnp.array([[0.0], [9.0], [1.0], [8.0], [77.0]])
    >>> clusters_of(z, jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]), 2)[:4].tolist()
    [0, 1, 0, 1]
    """

    def distances(centers: Any) -> Any:
        return jnp.sum(jnp.square(z[:, None] - centers[None]), -1)

    centers = z[jnp.argmax(counted)][None]
    for _ in range(clusters - 1):
        far = jnp.where(jnp.asarray(counted) > 0, jnp.min(distances(centers), 1), -1.0)
        centers = jnp.concatenate([centers, z[jnp.argmax(far)][None]])
    if clusters == 1:
        return jnp.zeros(len(z), jnp.int32)
    for _ in range(LLOYD):
        own = jax.nn.one_hot(jnp.argmin(distances(centers), 1), clusters, axis=0) * counted
        size = jnp.sum(own, 1)[:, None]
        centers = jnp.where(size > 0, own @ z / jnp.maximum(size, 1.0), centers)
    return jnp.argmin(distances(centers), 1).astype(jnp.int32)
