"""MID: a noisy bottleneck before the last layer, and a price on what passes through it.

Wang, Zhang, Jia, "Improving Robustness to Model Inversion Attacks via Mutual Information
Regularization", AAAI 2021 (https://arxiv.org/abs/2009.05241). The information that predictions hold
on the input is bounded by that of a Gaussian bottleneck, as in the variational information
bottleneck. From the penultimate layer phi of d numbers, with k = d / 2:

    s = W phi + b  [2k],   mu = s[:k],   sigma = softplus(s[k:] - 5)
    logits = V u + c,      u = mu + sigma * N(0, I) in training, u = mu when served
    loss = cross entropy + beta * mean over rows of sum_k (mu^2 + sigma^2 - 1 - 2 log sigma) / 2

The last is beta times the divergence of N(mu, sigma^2) from N(0, I). The logarithm is that of
sigma + 1e-7. The head and beta = 0.003 are those of Jiachen-T-Wang/mi-defense (SGD, rate 0.01,
momentum 0.9, weight decay 1e-4, minibatches of 64, 50 epochs).

What differs from the released code. There the noise stays on when the model is tested, and the
epoch that is best on test data is kept; here the served answer is that of the mean, so that one
query tells as much as many. Some of its networks apply a softmax before the cross entropy, which
applies another; here none does. A later re-implementation sums the loss over rows and takes beta =
0.03 with it: its beta is not this one. Further label axes (`y` of shape [n, t]) and padding rows
("mask") are ours: the price is a mean over the former and leaves out the latter.

What it costs and does not do. That code reports 77.6 % accuracy of a VGG16 on CelebA at beta 0.003
and 67.7 % at 0.01. The penultimate layer itself stays as it was: an attack on that layer does not
meet the bottleneck, and one that reads the weights takes mu without noise. Compare with beta = 0,
which has the same head and the same noise.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.models.features import expose
from jaxmia.models.parts import with_part
from jaxmia.objectives import counted_mean
from jaxmia.ranges import at_least_zero

__all__ = ["CARD", "Bottleneck", "divergence", "mid"]

CARD = Card(
    title="MID",
    paper="Wang, Zhang, Jia. Robustness via Mutual Information Regularization. AAAI 2021",
    url="https://arxiv.org/abs/2009.05241",
    year=2021,
    modality="any",
    hook="model, loss",
)


class Bottleneck(nn.Module):
    """The last layer of MID; sows "_mean" and "_deviation", draws noise if there is rng "dropout".

    Attributes:
      classes: number of classes.
      width: k, numbers in the bottleneck; None takes half of the inputs, and at least 1.
    """

    classes: int
    width: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n classes"]:
        """Returns logits."""
        width = max(1, x.shape[-1] // 2) if self.width is None else self.width
        mean, raw = jnp.split(nn.Dense(2 * width, name="statistics")(x), 2, axis=-1)
        deviation = nn.softplus(raw - 5)
        expose(self, "_mean", mean)
        expose(self, "_deviation", deviation)
        code = mean
        if self.has_rng("dropout") and not self.is_initializing():  # that is, in training
            code = mean + deviation * jax.random.normal(self.make_rng("dropout"), mean.shape, mean.dtype)
        return nn.Dense(self.classes, name="logits")(code)


def mid(*, beta: Scalar = 0.003, width: int | None = None) -> Defense:
    """The defense: the model with another head, and the loss with the divergence added.

    Args:
      beta: price of the divergence, 0 or more; released runs try 0.001 to 0.03.
      width: k, numbers in the bottleneck; None takes half of the penultimate layer, as released.

    Raises:
      ValueError: for a negative beta or a width below 1; where the model has no head to exchange;
        at the first step, if the model does not have the head of this defense.

    >>> from jaxmia.models import MLP
    >>> mid(width=3).model(MLP(5)).head(5)
    Bottleneck(
        # attributes
        classes = 5
        width = 3
    )
    """
    at_least_zero(beta=beta)
    if width is not None and width < 1:
        raise ValueError(f"width: {width}; legal is None or 1 or more")
    head = functools.partial(Bottleneck, width=width)  # once, so that two such models are equal

    def model(module: nn.Module) -> nn.Module:
        return with_part(module, "head", head)

    def loss(plain: Callable) -> Callable:
        def defended(outputs: Any, batch: Any) -> Any:
            mean, deviation = _sown(outputs.features, "_mean"), _sown(outputs.features, "_deviation")
            rows = divergence(mean, deviation).reshape(len(mean), -1).mean(1)
            term = counted_mean(rows, batch)
            return plain(outputs, batch) + beta * term

        return defended

    return Defense(model=model, loss=loss)


def divergence(mean: Float[Array, "*n k"], deviation: Float[Array, "*n k"]) -> Float[Array, "*n"]:
    """Of N(mean, deviation^2) from N(0, I), in nats.

    >>> float(divergence(jnp.array([3.0, 4.0]), jnp.ones(2)))
    12.5
    """
    terms = mean**2 + deviation**2 - 1 - 2 * jnp.log(deviation + 1e-7)
    return 0.5 * jnp.sum(terms, -1)


def _sown(features: dict[str, Any], name: str) -> Any:
    """A wrapper such as `CenteredInput` puts its own name before that of a feature."""
    found = [value for path, value in features.items() if path.rsplit("/", 1)[-1] == name]
    if not found:
        raise ValueError(f"mid: the model sows no {name!r}; legal is what its `model` hook returns")
    return found[0]
