"""Adversarial training: a control, not a defense; robust models are known to be easier to invert.

Mejia, Gamble, Hampel-Arias et al., "Robust or Private? Adversarial Training Makes Models More
Vulnerable to Privacy Attacks", 2019 (https://arxiv.org/abs/1906.06449). Every step trains on the
worst images near those of the minibatch, in the way of Madry et al. (ICLR 2018):

    x_0 = x,   x_(k+1) = x_k + step * sign grad_x loss(x_k),
    cut back to |x_(k+1) - x| <= radius and to [0, 1]

and then takes the gradient of the loss by the parameters at the last x_k. In the words of the
abstract, the input space of an ordinary model is full of points that excite a class without looking
like it, which is what makes inversion hard; a robust model has fewer of them.

So its use here is as a positive control: an evaluation in which this looks like a defense measures
something else than what a model gives away.

What differs. The abstract was read, the paper's settings were not: five steps of 2/255 in a ball of
8/255 around the image, by the largest change of a pixel, are usual for images in [0, 1] and our
choice. The start is the image itself, without a random step. Dropout is the same in all steps of a
minibatch, and statistics of BatchNorm follow the last pass alone, although all passes normalize by
the minibatch. Gradients go through whatever the `data` hooks of other defenses made of the images.

What it costs and does not do. Each step costs `steps` + 1 passes forward and backward. Accuracy on
clean images falls with the radius.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.ranges import at_least_zero

__all__ = ["CARD", "adversarial_training", "worst_near"]

CARD = Card(
    title="Adversarial training (control)",
    paper="Mejia, Gamble, Hampel-Arias et al. Robust or Private? arXiv 2019",
    url="https://arxiv.org/abs/1906.06449",
    year=2019,
    modality="image",
    hook="grads",
)


def adversarial_training(
    *,
    radius: Scalar = 8 / 255,
    step: Scalar = 2 / 255,
    steps: int = 5,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Defense:
    """The control: gradients of the loss at the worst images near those of the minibatch.

    Args:
      radius: most change of a pixel; 0 is ordinary training.
      step: change of every pixel in one step.
      steps: steps of ascent for each minibatch, 1 or more.
      bounds: least and largest value of a pixel; None for data without bounds.

    Raises:
      ValueError: for a negative or infinite radius or step, fewer than 1 step, or bounds that are
        not in order; at the first step, for a minibatch of whole numbers, such as tokens.

    >>> square = lambda params, key, batch: (jnp.sum((batch["x"] - params) ** 2), None)
    >>> grads = adversarial_training(radius=0.25, step=0.25, steps=1).grads(square)
    >>> (value, _), slope = grads(0.0, jax.random.key(0), {"x": jnp.array([0.5])})
    >>> float(value), float(slope)
    (0.5625, -1.5)
    """
    at_least_zero(radius=radius, step=step)
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds: {bounds}; legal is None or (least, largest)")

    def grads(loss: Callable) -> Callable:
        def value_and_grad(params: Any, key: Any, batch: Any) -> Any:
            x = jnp.asarray(batch["x"])
            if not jnp.issubdtype(x.dtype, jnp.floating):
                raise ValueError(f"adversarial_training: x is {x.dtype}; legal is images of real numbers")
            uphill = jax.grad(lambda now: loss(params, key, {**batch, "x": now})[0])
            x = worst_near(uphill, x, radius, step, steps, bounds)
            return jax.value_and_grad(loss, has_aux=True)(params, key, {**batch, "x": x})

        return value_and_grad

    return Defense(grads=grads)


def worst_near(
    uphill: Callable[[Any], Any],
    x: Float[Array, "..."],
    radius: Scalar,
    step: Scalar,
    steps: int,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Float[Array, "..."]:
    """Sign steps along a gradient, in the cube of half width `radius` around x and within `bounds`.

    >>> worst_near(lambda x: x - 0.5, jnp.array([0.25, 0.75, 0.9]), 0.125, 0.0625, 5).tolist()
    [0.125, 0.875, 1.0]
    """
    now = x
    for _ in range(steps):  # not a loop of JAX, in which convolutions are slow on CPU
        now = jnp.clip(now + step * jnp.sign(uphill(now)), x - radius, x + radius)
        now = now if bounds is None else jnp.clip(now, *bounds)
    return now
