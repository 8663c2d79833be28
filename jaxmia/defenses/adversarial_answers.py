"""Adversarial answers: move every answer to where an inverse network of one's own is misled most.

Wen, Yiu, Hui, "Defending Against Model Inversion Attack by Adversarial Examples", IEEE CSR 2021
(https://doi.org/10.1109/CSR51186.2021.9527945). Its abstract: the defender trains an inversion
model as an adversary would, moves an answer along this model's gradient so that its error grows,
and restores the label; training and private data are not touched. Only the abstract could be read;
what follows is a reconstruction, helped by public code of others. From l = log p, with an inverse I
and a reference r, `moves` times

    l <- l + rate * sign of the gradient of |I(softmax l) - r|^2

Then the label is lifted to the largest entry, l_y <- max(l_y, max l), the change d of l is
scaled to the budget, d <- d min(1, budget / |d|_1), and softmax(l + d) is served. A score of 0
counts as 1e-30.

What differs. The paper takes for r the query x. A defense here is shown the scores and not the
query, hence r = I(p), held fixed: answers go where the inverse shows something else than it would
show. The gradient is zero at p itself, so the walk starts 0.01 N(0, I) beside it; that noise is
drawn from a secret of the target and from the query (`jaxmia.target`), and equal queries get equal
answers. Code that was read lifts the label to 1.01 times the maximum, which lowers it where
log-scores are negative; here it is lifted to the maximum itself, and once more after scaling,
against rounding. A label that was lifted may share the largest score with another class.

I reads log-scores less their mean, over 5 (as in TB-MIA here), and has two hidden layers of ReLU
units, on flat images; the guard trains it on validation images by the mean squared error. moves =
10 and rate = 0.5 are those of the code that was read. The budget 1, in units of log-scores, and the
inverse's size and training are choices of this library.

What it costs and does not do. Every answer takes `moves` gradients of the inverse, and confidences
change by up to the budget in their logarithms. How much it protects rests on whether the
adversary's inverse is misled by the same answers as the defender's. The authors report adaptive
tests; set beside it an inverse of another width that was trained on served answers. Attacks by
labels see no difference, and white-box access is untouched.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Guard, Key, Process, Scalar, info
from jaxmia.objectives import counted_mean
from jaxmia.ranges import above_zero, at_least_zero

__all__ = ["CARD", "Inverse", "adversarial_answers", "misled"]

CARD = Card(
    title="Adversarial answers",
    paper="Wen, Yiu, Hui. Defending Against Model Inversion by Adversarial Examples. CSR 2021",
    url="https://doi.org/10.1109/CSR51186.2021.9527945",
    year=2021,
    modality="image",
    hook="guard",
)

LEAST = 1e-30  # of a score, before its logarithm is taken
START = 0.01  # deviation of the noise from which a walk starts


class Inverse(nn.Module):
    """Score vectors to flat images.

    Attributes:
      pixels: numbers in an image.
      width: units of a hidden layer.
    """

    pixels: int
    width: int = 128

    @nn.compact
    def __call__(self, scores: Float[Array, "*n classes"]) -> Float[Array, "*n pixels"]:
        """Returns images, not bounded to any range."""
        logs = jnp.log(jnp.maximum(scores, LEAST))
        x = (logs - jnp.mean(logs, -1, keepdims=True)) / 5.0
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.pixels, name="image")(x)


def adversarial_answers(
    *,
    budget: Scalar = 1.0,
    moves: int = 10,
    rate: Scalar = 0.5,
    width: int = 128,
    learning_rate: Scalar = 1e-3,
    steps: int = 1000,
) -> Defense:
    """The defense: a guard that trains the inverse, and answers that were moved against it.

    Args:
      budget: the most that log-scores of an answer change, in sum, 0 or more; 0 changes nothing.
      moves: gradient steps for an answer, 1 or more.
      rate: how far a step moves each log-score, above 0.
      width: units of a hidden layer of the inverse.
      learning_rate: Adam's, of the inverse.
      steps: minibatches of validation data for the inverse.

    Raises:
      ValueError: for a negative budget, rates not above 0, or moves, width or steps below 1.

    >>> adversarial_answers().keeps_label
    True
    """
    at_least_zero(budget=budget)
    above_zero(rate=rate, learning_rate=learning_rate)
    for name, value in (("moves", moves), ("width", width), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")

    def fit(scores: Callable[[Any, Any], Any]) -> Process:
        return _fitting(scores, width, optax.adam(learning_rate), steps)

    def answer(variables: Any) -> Callable[[Any, Any], Any]:
        inverse = Inverse(variables["params"]["image"]["bias"].shape[0], width)

        def show(scores: Any) -> Any:
            return inverse.apply(variables, scores)

        return lambda key, served: misled(show, key, served, budget, moves=moves, rate=rate)

    return Defense(guard=Guard(fit, answer), keeps_label=True)


def misled(
    inverse: Callable[[Any], Any],
    key: Key,
    scores: Float[Array, "*n classes"],
    budget: Scalar,
    *,
    moves: int = 10,
    rate: Scalar = 0.5,
) -> Float[Array, "*n classes"]:
    """Scores moved within the budget against an inverse, their label kept.

    Args:
      inverse: `[*n, classes]` scores to `[*n, pixels]`.
      key: of the noise from which the walk starts.
      scores: what would be served.
      budget: the most that log-scores change, in sum.
      moves: gradient steps.
      rate: of each.
    """
    first = jnp.log(jnp.maximum(scores, LEAST))
    shown = jax.lax.stop_gradient(inverse(scores))
    at_label = jax.nn.one_hot(jnp.argmax(scores, -1), scores.shape[-1], dtype=bool)

    def error(logs: Any) -> Any:  # a sum over rows, of which each has its own gradient
        return jnp.sum((inverse(jax.nn.softmax(logs)) - shown) ** 2)

    def move(_: Any, logs: Any) -> Any:
        return logs + rate * jnp.sign(jax.grad(error)(logs))

    def lifted(logs: Any) -> Any:
        return jnp.where(at_label, jnp.max(logs, -1, keepdims=True), logs)

    start = first + START * jax.random.normal(key, first.shape, first.dtype)
    change = lifted(jax.lax.fori_loop(0, moves, move, start)) - first
    size = jnp.sum(jnp.abs(change), -1, keepdims=True)
    scaled = change * jnp.minimum(1.0, budget / jnp.maximum(size, 1e-12))
    return jnp.where(budget > 0, jax.nn.softmax(lifted(first + scaled)), scores)


def _fitting(
    scores: Callable[[Any, Any], Any],
    width: int,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> Process:
    """Reads out the inverse's variables."""

    def inverse(batch: Any) -> Inverse:
        return Inverse(batch["x"][0].size, width)

    def init(key: Any, batch: Any) -> Any:
        one = jax.eval_shape(scores, key, batch["x"][0])
        params = inverse(batch).init(key, jnp.zeros(one.shape, one.dtype))["params"]
        return params, optimizer.init(params)

    def step(key: Any, state: Any, batch: Any) -> Any:
        params, opt = state
        n = len(batch["x"])
        answers = jax.vmap(scores)(jax.random.split(key, n), batch["x"])

        def loss(params: Any) -> Any:
            shown: Any = inverse(batch).apply({"params": params}, answers)
            rows = jnp.mean((shown - batch["x"].reshape(n, -1)) ** 2, -1)
            return counted_mean(rows, batch)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt = optimizer.update(gradient, opt, params)
        return (optax.apply_updates(params, updates), opt), info(value)

    return Process(init, step, lambda state: {"params": state[0]}, steps)
