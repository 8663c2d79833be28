"""Purifier: pass every score vector through a small network that was fitted to reproduce others.

Yang, Wang, Yang, Wan, Zhao, Chang, Zhang, Ren, "Purifier: Defending Data Inference Attacks via
Transforming Confidence Scores", AAAI 2023 (https://arxiv.org/abs/2212.00612), after a report of
2020 with an autoencoder. What is peculiar to a training example shall not pass the narrow middle of
a network G that has seen scores of held-out examples alone. With c the class of the largest score:

    autoencoder   G(p) = softmax(decode(encode(p)))
                  loss = mean of |G(p) - p|^2 + label_weight * cross entropy of G(p) with c
    cvae          G(p, u) = softmax(decode(u, c)),  u ~ q = N(mu, sigma^2) from encode(p, c)
                  loss = the above + KL(q || N(0, I)),  served with u = 0

Then the largest entry of G(p) and that at c change places, so that no label moves. The two losses
and the weight 0.2 are those of a re-implementation of the autoencoder (Koukyosyumei/AIJack) and our
reading of the paper, whose abstract could be read and whose text could not.

What differs. There is no label swapper. The paper exchanges the two largest scores of some training
examples, so that training accuracy falls to that on held-out data; to know these examples again it
keeps an index of their scores beside the model, which is a store of private data, and no guard
here is shown training examples. Membership inference by labels is hence not defended. Networks are
our choice: layers of 64 ReLU units, two on each side, a middle of half as many numbers as there are
classes (2 or more), no batch normalization where that re-implementation has it, Adam. So is u = 0:
the paper may draw u or encode it. The guard is fitted to the answers of validation data.

What it costs and does not do. With "cvae" the answer depends on the label alone, one vector for
each class: it tells what `label_only` tells, and confidences are gone for honest clients. With
"autoencoder" it depends on the whole of p, and with few classes the middle is wide enough to let
most of it pass. The paper reports inversion errors that are four times as large on FaceScrub; say
of such a number whether the inverse was trained on raw or on purified scores, since one that was
trained on what is served knows of the defense. Attacks by labels see no difference, and white-box
access is untouched.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Guard, Process, Scalar, info
from jaxmia.objectives import counted_mean
from jaxmia.ranges import above_zero, at_least_zero
from jaxmia.recipes.exchanged import exchanged

__all__ = ["CARD", "Reformer", "purifier", "purifier_loss"]

CARD = Card(
    title="Purifier",
    paper="Yang, Wang, Yang, Wan, Zhao, Chang, Zhang, Ren. Purifier. AAAI 2023",
    url="https://arxiv.org/abs/2212.00612",
    year=2023,
    modality="any",
    hook="guard",
)

Variant = Literal["autoencoder", "cvae"]


class Reformer(nn.Module):
    """The network G, from score vectors to the logarithms of purified ones.

    Attributes:
      classes: how many scores there are.
      variational: whether it is the "cvae".
      width: units of a hidden layer.
    """

    classes: int
    variational: bool = False
    width: int = 64

    def setup(self) -> None:
        size = max(2, self.classes // 2)
        self.encoder = _Layers(self.width, 2 * size if self.variational else size)
        self.decoder = _Layers(self.width, self.classes)

    def __call__(self, scores: Float[Array, "*n c"], key: Any = None) -> tuple[Any, Any]:
        """Returns log-scores, and the divergence of the code from N(0, I), `[*n]`.

        Without a key a variational code is 0.
        """
        if not self.variational:
            return nn.log_softmax(self.decoder(self.encoder(scores))), jnp.zeros(scores.shape[:-1])
        label = jax.nn.one_hot(jnp.argmax(scores, -1), self.classes)
        mean, raw = jnp.split(self.encoder(jnp.concatenate([scores, label], -1)), 2, -1)
        deviation = jnp.exp(raw / 2)
        code = jnp.zeros_like(mean)
        if key is not None:
            code = mean + deviation * jax.random.normal(key, mean.shape)
        logits = self.decoder(jnp.concatenate([code, label], -1))
        return nn.log_softmax(logits), 0.5 * jnp.sum(mean**2 + deviation**2 - 1 - raw, -1)


class _Layers(nn.Module):
    width: int
    out: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.out)(x)


def purifier(
    *,
    variant: Variant = "autoencoder",
    label_weight: Scalar = 0.2,
    width: int = 64,
    rate: Scalar = 1e-3,
    steps: int = 1000,
) -> Defense:
    """The defense: a guard that fits the network, and answers that went through it.

    Args:
      variant: "autoencoder" or "cvae", see above.
      label_weight: of the cross entropy with the class of the largest score, 0 or more.
      width: units of a hidden layer.
      rate: Adam's learning rate.
      steps: minibatches of validation data.

    Raises:
      ValueError: for another variant, a negative weight, a width or steps below 1.

    >>> purifier(variant="cvae").keeps_label
    True
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant: {variant!r}; legal is 'autoencoder' or 'cvae'")
    at_least_zero(label_weight=label_weight)
    above_zero(rate=rate)
    for name, value in (("width", width), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")

    def reformer(classes: int) -> Reformer:
        return Reformer(classes, variant == "cvae", width)

    def fit(scores: Callable[[Any, Any], Any]) -> Process:
        return _fitting(reformer, scores, optax.adam(rate), label_weight, steps)

    def answer(params: Any) -> Callable[[Any, Any], Any]:
        def purified(key: Any, served: Any) -> Any:
            del key
            logs, _ = reformer(served.shape[-1]).apply({"params": params}, served)
            return exchanged(jnp.exp(logs), served)

        return purified

    return Defense(guard=Guard(fit, answer), keeps_label=True)


def purifier_loss(
    logs: Float[Array, "n c"],
    divergences: Float[Array, " n"],
    scores: Float[Array, "n c"],
    mask: Float[Array, " n"],
    label_weight: Scalar,
) -> Float[Array, ""]:
    """The loss above: a mean over the rows that are no padding.

    >>> one = jnp.array([[1.0, 0.0]])
    >>> float(purifier_loss(one - 1, jnp.array([2.0]), jnp.exp(one - 1), jnp.ones(1), 0.5))
    2.0
    """
    error = jnp.sum((jnp.exp(logs) - scores) ** 2, -1)
    own = jnp.take_along_axis(logs, jnp.argmax(scores, -1)[:, None], -1)[:, 0]
    rows = error - label_weight * own + divergences
    return counted_mean(rows, {"mask": mask})


def _fitting(
    reformer: Callable[[int], Reformer],
    scores: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation,
    label_weight: Scalar,
    steps: int,
) -> Process:
    """Reads out the parameters."""

    def init(key: Any, batch: Any) -> Any:
        first = jax.tree.map(lambda leaf: leaf[0], batch["x"])
        one = jax.eval_shape(scores, key, first)
        params = reformer(one.shape[-1]).init(key, jnp.zeros(one.shape, one.dtype))["params"]
        return params, optimizer.init(params)

    def step(key: Any, state: Any, batch: Any) -> Any:
        params, opt = state
        ask, draw = jax.random.split(key)
        n = len(batch["y"])
        answers = jax.vmap(scores)(jax.random.split(ask, n), batch["x"])
        mask = jnp.asarray(batch.get("mask", jnp.ones(n)), jnp.float32)

        def loss(params: Any) -> Any:
            module = reformer(answers.shape[-1])
            made: Any = module.apply({"params": params}, answers, draw)
            logs, divergences = made
            return purifier_loss(logs, divergences, answers, mask, label_weight)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt = optimizer.update(gradient, opt, params)
        return (optax.apply_updates(params, updates), opt), info(value)

    return Process(init, step, lambda state: state[0], steps)
