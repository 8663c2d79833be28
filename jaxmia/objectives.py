"""Identity losses L_id of ONE example: logits `[classes]` and a class give a scalar, lower is better; batch by vmap.

Also a distance between sets."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["counted_mean", "cross_entropy", "feature", "logit", "margin", "mmd", "one_minus_confidence", "poincare"]

Logits = Float[Array, " classes"]
Label = Int[Array, ""]
Loss = Float[Array, ""]


def counted_mean(rows: Float[Array, " n"], batch: Mapping[str, Any]) -> Float[Array, ""]:
    """Mean over the examples of a minibatch that count: where it has a "mask" `[n]`, padding has 0 there."""
    mask = jnp.asarray(batch.get("mask", jnp.ones(len(rows))), jnp.float32)
    return jnp.sum(mask * rows) / jnp.maximum(jnp.sum(mask), 1.0)


def cross_entropy(logits: Logits, label: Label) -> Loss:
    """-log softmax(logits)[label], the identity loss of GMI (Zhang et al., CVPR 2020, eq. 3); in [0, inf).

    >>> round(float(cross_entropy(jnp.zeros(4), jnp.asarray(1))), 4)
    1.3863
    """
    return -jax.nn.log_softmax(logits)[label]


def one_minus_confidence(logits: Logits, label: Label) -> Loss:
    """c(x) = 1 - f_label(x) of Fredrikson et al. (CCS 2015, Algorithm 1); in [0, 1].

    >>> round(float(one_minus_confidence(jnp.zeros(4), jnp.asarray(1))), 4)
    0.75
    """
    return 1.0 - jax.nn.softmax(logits)[label]


def logit(logits: Logits, label: Label) -> Loss:
    """-logits[label], the logit loss of LOMMA (Nguyen et al., CVPR 2023, eq. 5); unbounded."""
    return -logits[label]


def margin(logits: Logits, label: Label) -> Loss:
    """-logits[label] + the largest other logit, the max-margin loss of PLG-MI (Yuan et al., AAAI 2023, eq. 4).

    >>> float(margin(jnp.asarray([3.0, 1.0, 0.0]), jnp.asarray(0)))
    -2.0
    """
    others = jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, logits)
    return jnp.max(others) - logits[label]


def poincare(logits: Logits, label: Label, xi: float = 1e-4) -> Loss:
    """Poincare distance of PPA (Struppek et al., ICML 2022, eq. 3) between logits / |logits|_1 and the label's corner.

    The corner is the one-hot vector less `xi`. Both ends of arccosh and of the ball are guarded by 1e-7, which no
    released code does: without it the gradient at a perfect match is nan.
    """
    u = logits / (jnp.sum(jnp.abs(logits)) + 1e-7)
    v = jnp.clip(jax.nn.one_hot(label, logits.shape[0]) - xi, 0.0, 1.0)
    inside = jnp.maximum((1.0 - jnp.sum(u**2)) * (1.0 - jnp.sum(v**2)), 1e-7)
    return jnp.arccosh(jnp.maximum(1.0 + 2.0 * jnp.sum((u - v) ** 2) / inside, 1.0 + 1e-7))


def feature(features: Float[Array, "..."], wanted: Float[Array, "..."]) -> Loss:
    """|features - wanted|^2 / |wanted|^2 (Mahendran & Vedaldi, CVPR 2015, eq. 1): embedding and feature inversion."""
    return jnp.sum((features - wanted) ** 2) / jnp.maximum(jnp.sum(wanted**2), 1e-12)


def mmd(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, ""]:
    """Squared maximum mean discrepancy, biased, of five Gaussian kernels exp(-|x - y|^2 / s).

    s is 1/4, 1/2, 1, 2 and 4 times the mean squared distance of different rows, held constant.
    """
    rows = jnp.concatenate([a, b])
    apart = jnp.sum((rows[:, None] - rows[None]) ** 2, -1)
    scale = jnp.maximum(jax.lax.stop_gradient(jnp.sum(apart)) / (len(rows) * (len(rows) - 1)), 1e-12)
    kernel = sum((jnp.exp(-apart / (scale * 2.0**power)) for power in range(-2, 3)), jnp.zeros(()))
    n = len(a)
    return jnp.mean(kernel[:n, :n]) + jnp.mean(kernel[n:, n:]) - 2 * jnp.mean(kernel[:n, n:])
