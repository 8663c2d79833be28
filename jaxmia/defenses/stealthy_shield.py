"""Stealthy Shield (SSD): move every answer towards the mean answer of a class, within a budget.

Zhuang, Yu, Qiu, Fang, Chen, Xia, "Stealthy Shield Defense: A Conditional Mutual Information-Based
Approach against Black-Box Model Inversion Attacks", ICLR 2025
(https://openreview.net/forum?id=p0DjhjPXl3). What answers p tell of inputs beyond the label is the
mean over inputs of KL(p || q_y), with q_y the mean answer of class y. The released code serves

    y ~ softmax(p / temperature),  q = q_y,  e = epsilon * H(p),  H the entropy in nats
    served = argmin over p' of KL(p' || q)   where |p' - p|_1 <= e

with temperature 0.1 and epsilon 0.5; the scores themselves stand where logits would. By water
filling the minimum is q where |p - q|_1 <= e, and otherwise

    served = clip(p, a q, b q),   sum of max(a q - p, 0) = sum of max(p - b q, 0) = e / 2

Both levels follow from one sort of p / q (`nearest_within`).

What differs from the released code (ZhuangQu/Stealthy-Shield-Defense). It takes the table of q as
given; that its rows are the means over validation data of a class is our reading. Here the guard
fits them; entries below 1e-8 are raised to it, and rows sum to 1 again. A class that no validation
example has gets the one-hot row. Its entropy is NaN where a score is zero; here 0 log 0 is 0. There
every query draws another y, so that repeated queries average it out; here y is drawn from a secret
of the target and from the query (`jaxmia.target`), and equal queries get equal answers. How many
minibatches the guard sees is our number.

What it costs and does not do. Labels can change, since the class that is drawn need not be that
of the largest score: of two scores 0.5 and 0.4 the second is drawn in 27 % of the cases. A sure
answer has a small entropy and hence hardly moves. The table must be kept beside the model: it holds
means of scores, no record. Reviews of the paper point out that no attack was tried that knows of
the defense: set a majority over jittered copies beside it, and an inverse network that was trained
on served scores. White-box access is untouched.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Guard, Process, Scalar, info
from jaxmia.ranges import above_zero, at_least_zero

__all__ = ["CARD", "nearest_within", "stealthy_shield"]

CARD = Card(
    title="Stealthy Shield",
    paper="Zhuang, Yu, Qiu, Fang, Chen, Xia. Stealthy Shield Defense. ICLR 2025",
    url="https://openreview.net/forum?id=p0DjhjPXl3",
    year=2025,
    modality="any",
    hook="guard",
)

LEAST = 1e-8  # of an entry of the table


def stealthy_shield(
    *,
    epsilon: Scalar = 0.5,
    temperature: Scalar = 0.1,
    steps: int = 200,
) -> Defense:
    """The defense: a guard that fits the mean answers of classes, and answers moved towards them.

    Args:
      epsilon: share of an answer's entropy that it may move by, 0 or more; 0 changes nothing.
      temperature: how sharply the largest score is preferred when a class is drawn, above 0.
      steps: minibatches of validation data from which the means are taken; not the paper's number.

    Raises:
      ValueError: for a negative epsilon, a temperature that is not above 0, or no steps.

    >>> answer = stealthy_shield().guard.answer(jnp.eye(2))
    >>> answer(jax.random.key(0), jnp.array([1.0, 0.0])).tolist()
    [1.0, 0.0]
    """
    at_least_zero(epsilon=epsilon)
    above_zero(temperature=temperature)
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")

    def fit(scores: Callable[[Any, Any], Any]) -> Process:
        return _class_means(scores, steps)

    def answer(table: Any) -> Callable[[Any, Any], Any]:
        def shielded(key: Any, served: Any) -> Any:
            label = jax.random.categorical(key, served / temperature, axis=-1)
            budget = epsilon * jnp.sum(jax.scipy.special.entr(served), -1)
            return nearest_within(served, jnp.asarray(table)[label], budget)

        return shielded

    return Defense(guard=Guard(fit, answer))


def nearest_within(
    p: Float[Array, "*n c"], q: Float[Array, "*n c"], budget: Float[Array, "*n"]
) -> Float[Array, "*n c"]:
    """The distribution of the least KL(. || q) among those whose L1 distance to p is within budget.

    Args:
      p: distributions.
      q: distributions without zeros.
      budget: 0 or more; at 0 p itself comes back, to the bit.

    >>> p, q = jnp.array([0.75, 0.125, 0.125]), jnp.array([0.25, 0.25, 0.5])
    >>> nearest_within(p, q, jnp.array(0.25)).tolist()
    [0.625, 0.125, 0.25]
    """
    low = _level(p, q, budget / 2)
    high = -_level(-p, q, budget / 2)  # max(p - b q, 0) is max((-b) q - (-p), 0)
    # A level is the ratio p / q of an entry at budget 0, which rounding may put beyond that entry.
    moved = jnp.clip(p, low * q, high * q)
    inside = jnp.sum(jnp.abs(p - q), -1) <= budget
    return jnp.where(inside[..., None], q, jnp.where(budget[..., None] > 0, moved, p))


def _level(p: Any, q: Any, amount: Any) -> Any:
    """The w `[..., 1]` for which the sum of max(w q - p, 0) is the amount.

    The sum rises with w and is linear between two neighbors of the sorted ratios p / q.
    """
    order = jnp.argsort(p / q, -1)
    p, q = jnp.take_along_axis(p, order, -1), jnp.take_along_axis(q, order, -1)
    of_p, of_q = jnp.cumsum(p, -1), jnp.cumsum(q, -1)
    at_next = (p / q)[..., 1:] * of_q[..., :-1] - of_p[..., :-1]  # the sum at w = next ratio
    enough = jnp.concatenate([at_next > amount[..., None], jnp.ones_like(p[..., :1], bool)], -1)
    last = jnp.argmax(enough, -1, keepdims=True)  # of the entries below w
    at_last = jnp.take_along_axis(of_p, last, -1) + amount[..., None]
    return at_last / jnp.take_along_axis(of_q, last, -1)


def _class_means(scores: Callable[[Any, Any], Any], steps: int) -> Process:
    """Reads out the table `[classes, classes]`; the loss is what answers tell beyond the label."""

    def init(key: Any, batch: Any) -> Any:
        one = jax.eval_shape(scores, key, jax.tree.map(lambda leaf: leaf[0], batch["x"]))
        classes = one.shape[-1]
        return jnp.zeros((classes, classes), jnp.float32), jnp.zeros((classes,), jnp.float32)

    def step(key: Any, state: Any, batch: Any) -> Any:
        sums, counts = state
        labels = jnp.asarray(batch["y"])
        answers = jax.vmap(scores)(jax.random.split(key, len(labels)), batch["x"])
        mask = jnp.asarray(batch.get("mask", jnp.ones(len(labels))), jnp.float32)
        own = jax.nn.one_hot(labels, len(counts)) * mask[:, None]
        new = sums + jnp.matmul(own.T, answers, precision="highest"), counts + jnp.sum(own, 0)
        rows = jnp.sum(jax.scipy.special.rel_entr(answers, _table(*new)[labels]), -1)
        beyond = jnp.sum(mask * rows) / jnp.maximum(jnp.sum(mask), 1.0)
        return new, info(beyond)

    return Process(init, step, lambda state: _table(*state), steps)


def _table(sums: Any, counts: Any) -> Any:
    means = sums / jnp.maximum(counts, 1.0)[:, None]
    means = jnp.where(counts[:, None] > 0, means, jnp.eye(len(counts)))
    floored = jnp.maximum(means, LEAST)
    return floored / jnp.sum(floored, -1, keepdims=True)
