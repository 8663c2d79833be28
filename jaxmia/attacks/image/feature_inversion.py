"""Feature inversion: the natural-looking image that a layer represents as it represented an unknown one.

Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015
(https://arxiv.org/abs/1412.0035), equations 1 to 4: for a representation Phi and what was observed, Phi_0,

    min_x |Phi(x) - Phi_0|^2 / |Phi_0|^2 + lambda_alpha R_alpha(x) + lambda_V R_V(x),
    R_alpha = |x|_alpha^alpha,   R_V = sum_ij ((x_i,j+1 - x_ij)^2 + (x_i+1,j - x_ij)^2)^(beta / 2),

alpha = 6, so that pixels stay in their range, and beta = 2. The image starts as noise.

What differs. Sums over pixels are means, per channel, of r = 2x - 1 for an image x in [0, 1], so that weights carry over
between image sizes. The paper lets lambda_V grow tenfold from shallow to middle to deep layers; the default is for shallow
ones. It descends with momentum and lowers the rate by hand; here Adam's falls as a cosine. Weights, rate and steps are
therefore not the paper's numbers. Only the result is clipped to [0, 1].
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Prior, Process, Scalar
from jaxmia.objectives import feature
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import descend

__all__ = ["CARD", "alpha_norm", "feature_inversion", "smooth_variation"]

CARD = Card(
    title="Feature inversion",
    paper="Mahendran, Vedaldi. Understanding Deep Image Representations by Inverting Them. CVPR 2015",
    url="https://arxiv.org/abs/1412.0035",
    year=2015,
    modality="image",
    access=Access.WEIGHTS,
    recovers="the image behind an observed representation",
    knows="the representation that a layer gave of it",
    observes="features",
)


def alpha_norm(r: Float[Array, "h w c"], alpha: Scalar) -> Float[Array, ""]:
    """R_alpha: mean of |r|^alpha.

    >>> float(alpha_norm(jnp.full((2, 2, 1), 2.0), 6.0))
    64.0
    """
    return jnp.mean(jnp.abs(r) ** alpha)


def smooth_variation(r: Float[Array, "h w c"], beta: Scalar) -> Float[Array, ""]:
    """R_V: mean over pixels that have a neighbor to the right and below of (across^2 + down^2)^(beta / 2)."""
    across, down = r[:-1, 1:] - r[:-1, :-1], r[1:, :-1] - r[:-1, :-1]
    # Without the offset a flat image has no slope where beta is below 2.
    return jnp.mean((across**2 + down**2 + 1e-12) ** (beta / 2.0))


def feature_inversion(
    oracle: Oracle,
    shape: tuple[int, int, int],
    *,
    steps: int = 2000,
    rate: Scalar = 0.05,
    bound: Scalar = 1e-3,
    variation: Scalar = 1e-3,
    alpha: Scalar = 6.0,
    beta: Scalar = 2.0,
    noise: Scalar = 0.1,
) -> Attack:
    """The attack; a case is an observed representation, the output an image of `shape` in [0, 1].

    Args:
      oracle: white-box access to what answers representations: logits, or a layer's (`Target.until`), of any shape.
      shape: (height, width, channels) of the image, at least 2 x 2.
      steps: iterations.
      rate: Adam's largest learning rate, in units of r.
      bound: lambda_alpha.
      variation: lambda_V.
      alpha: exponent of the bound.
      beta: exponent of the variation; 1 is sharper, 2 has no spikes.
      noise: deviation of the start from gray, in units of r.

    Raises:
      ThreatModelError: without white-box access.
    """
    view: Weights = lower(oracle, CARD.access, "image/feature_inversion")

    def penalty(r: Any, image: Any) -> Float[Array, ""]:
        del image
        return bound * alpha_norm(r, alpha) + variation * smooth_variation(r, beta)

    prior = Prior(lambda key: noise * jax.random.normal(key, shape), lambda r: (r + 1.0) / 2.0, penalty, lambda r: r)

    def schedule(count: Any) -> Any:
        return rate * (1.0 + jnp.cos(jnp.pi * jnp.minimum(count / max(steps, 1), 1.0))) / 2.0

    def process(fitted: Any) -> Process:
        del fitted
        free = descend(view, feature, prior, optax.adam(schedule), steps=steps)
        return free._replace(read=lambda state: jnp.clip(free.read(state), 0.0, 1.0))

    return Attack(process, observes=CARD.observes)
