"""Noise on what a client sends in split inference: Laplace or Gaussian, added to the features.

Titcombe, Hall, Papadopoulos, Romanini, "Practical Defences Against Model Inversion Attacks for
Split Neural Networks", ICLR 2021 workshop on distributed and private machine learning
(https://arxiv.org/abs/2104.05743):

    sent = z + b * e,   e from Laplace(0, 1)      or      sent = z + sigma * e,   e from N(0, 1)

for every number of the features z, drawn independently. The code of the authors, on features behind
a tanh, has b from 0.1 to 1; the default of 0.3 is from that range and our choice.

No (epsilon, delta) belongs to these numbers. Differential privacy needs a bound on how far one
input can move z, that is, clipping; without it noise of any scale guarantees nothing. Released code
of others computes a scale from an epsilon without a clip: report b or sigma, not an epsilon.

What differs. The noise is added at inference alone; the authors also train with it, which makes up
for part of the accuracy. The key is the target's own: equal inputs meet equal noise, so that asking
again averages nothing away (`noise="fresh"` of `Target` measures what it would).

What it costs and does not do. Accuracy of the server's part falls with the scale, and this depends
on the size of the features: a scale means nothing without the layer. A decoder that was trained on
noisy features is the attack to set beside it. Scores and labels are served as they are; weights,
too.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import at_least_zero

__all__ = ["CARD", "feature_noise"]

CARD = Card(
    title="Feature noise",
    paper="Titcombe, Hall, Papadopoulos, Romanini. Practical Defences for Split Networks. DPML 2021",
    url="https://arxiv.org/abs/2104.05743",
    year=2021,
    modality="any",
    hook="send",
)

DRAWS = {"laplace": jax.random.laplace, "gaussian": jax.random.normal}


def feature_noise(*, scale: Scalar = 0.3, distribution: Literal["laplace", "gaussian"] = "laplace") -> Defense:
    """The defense: noise on features that are sent.

    Args:
      scale: b of Laplace noise, whose standard deviation is sqrt(2) b, or the standard deviation of
        Gaussian noise; 0 sends the features as they are.
      distribution: "laplace" or "gaussian".

    Raises:
      ValueError: for a negative or infinite scale or another distribution.

    >>> z = jnp.array([0.5, -1.0])
    >>> feature_noise(scale=0.0).send(jax.random.key(0), z).tolist()
    [0.5, -1.0]
    """
    at_least_zero(scale=scale)
    if distribution not in DRAWS:
        raise ValueError(f"distribution: {distribution!r}; legal is 'laplace' or 'gaussian'")
    draw = DRAWS[distribution]

    def send(key: Any, feature: Any) -> Any:
        feature = jnp.asarray(feature)
        return feature + jnp.asarray(scale, feature.dtype) * draw(key, feature.shape, feature.dtype)

    return Defense(send=send)
