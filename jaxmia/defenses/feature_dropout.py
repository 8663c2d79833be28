"""Feature dropout: a client in split inference sends features with some of them set to zero.

He, Zhang, Lee, "Attacking and Protecting Data Privacy in Edge-Cloud Collaborative Inference
Systems", IEEE Internet of Things Journal 8(12), 2021 (https://doi.org/10.1109/JIOT.2020.3022358):

    sent_k = z_k * m_k,   m_k = 0 with probability `rate`, independently, else 1

The abstract says that noise fails against the authors' attacks and that two other defenses work;
that dropout at inference is one of them is how we understand it, as the article's body could not be
read. Rates of 0.15 to 0.25 are those of zlijingtao/ResSFL, which has it among its baselines; 0.2 is
our choice between them.

What differs. What is left is not divided by 1 - rate, as dropout in training is; so in that code.
The key is the target's own: equal inputs lose equal features, so that asking again shows no others
(`noise="fresh"` of `Target` measures what it would).

What it costs and does not do. The server's part was trained on whole features, and its accuracy
falls with the rate. A decoder that was trained on features with holes is the attack to set beside
it: where features repeat one another, it fills them in. Scores, labels and weights are served as
they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import fraction

__all__ = ["CARD", "feature_dropout"]

CARD = Card(
    title="Feature dropout",
    paper="He, Zhang, Lee. Data Privacy in Edge-Cloud Collaborative Inference. IoT-J 2021",
    url="https://doi.org/10.1109/JIOT.2020.3022358",
    year=2021,
    modality="any",
    hook="send",
)


def feature_dropout(*, rate: Scalar = 0.2) -> Defense:
    """The defense: features that are sent with some of them set to zero.

    Args:
      rate: probability of each number to be set to zero; 0 sends the features as they are.

    Raises:
      ValueError: for a rate outside of 0 to 1.

    >>> sent = feature_dropout(rate=0.5).send(jax.random.key(0), 3.0 * jnp.ones(1000))
    >>> sorted(set(sent.tolist())), 400 < int((sent == 0).sum()) < 600
    ([0.0, 3.0], True)
    """
    fraction(rate=rate)

    def send(key: Any, feature: Any) -> Any:
        feature = jnp.asarray(feature)
        dropped = jax.random.uniform(key, feature.shape) < rate
        return jnp.where(dropped, jnp.zeros_like(feature), feature)

    return Defense(send=send)
