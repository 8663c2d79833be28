"""Feature pruning: a client in split inference sends its largest features and zeros for the rest.

A baseline in the released code of Li, Rakin, Chen, He, Fan, Chakrabarti, "ResSFL: A Resistance
Transfer Framework for Defending Model Inversion Attack in Split Federated Learning", CVPR 2022
(https://arxiv.org/abs/2205.04007; zlijingtao/ResSFL). Of the n numbers of a feature the `share` * n
smallest are set to zero: smallest with their sign, so that negative ones go first. That code has
shares of 0.5 to 0.7; 0.6 is our choice between them.

What differs from the released code. It takes the smallest numbers of the whole minibatch, so that
what one client's picture loses depends on the pictures beside it; here every feature that is sent
is pruned by itself, as one query is served. Between equal numbers the first ones go.

What it costs and does not do. Behind a ReLU many features are zero already; they count, so that a
share below theirs changes nothing at all. What stays is sent to the last digit, and which features
are the largest tells something, too: a decoder that was trained on pruned features is the attack to
set beside it. Scores, labels and weights are served as they are.
"""

from typing import Any

import jax.numpy as jnp

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import fraction

__all__ = ["CARD", "feature_pruning"]

CARD = Card(
    title="Feature pruning",
    paper="Li, Rakin, Chen, He, Fan, Chakrabarti. ResSFL (a baseline of its code). CVPR 2022",
    url="https://arxiv.org/abs/2205.04007",
    year=2022,
    modality="any",
    hook="send",
)


def feature_pruning(*, share: Scalar = 0.6) -> Defense:
    """The defense: of the feature that is sent, the smallest numbers are set to zero.

    Args:
      share: of a feature's numbers that are set to zero, rounded down to whole ones; 0 sends it as
        it is.

    Raises:
      ValueError: for a share outside of 0 to 1.

    >>> import jax
    >>> z = jnp.array([2.0, -3.0, 1.0, 5.0])
    >>> feature_pruning(share=0.5).send(jax.random.key(0), z).tolist()
    [2.0, 0.0, 0.0, 5.0]
    """
    fraction(share=share)

    def send(key: Any, feature: Any) -> Any:
        del key
        feature = jnp.asarray(feature)
        order = jnp.argsort(feature.reshape(-1), stable=True)
        rank = jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))
        # A little more than the product: 0.6 of 10 is 6 in float32, too.
        pruned = rank < jnp.floor(share * order.size * (1 + 1e-6))
        return jnp.where(pruned.reshape(feature.shape), jnp.zeros_like(feature), feature)

    return Defense(send=send)
