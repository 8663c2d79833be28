"""Shape A with a generator of classes: optimize a latent of the class that is wanted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Prior, Process
from jaxmia.oracle import Outputs, Weights
from jaxmia.recipes.descend import descend
from jaxmia.recipes.swept import casewise

__all__ = ["conditional"]


def conditional(
    paint: Callable[[Any, Any], Any],
    loss: Callable[[Any, Any, Any], Any],
    optimizer: optax.GradientTransformation,
    *,
    dimensions: int,
    steps: int,
) -> Process:
    """min over z, from z ~ N(0, I), of loss(key, paint(z, y), y); a case is a class y, the output the last image.

    Args:
      paint: `(z [d], class) -> image`.
      loss: `(key, image, class) -> scalar`, differentiable.
      optimizer: any optax transformation.
      dimensions: of z.
      steps: the budget.
    """

    def search(wanted: Any) -> Process:
        prior = Prior(
            lambda key: jax.random.normal(key, (dimensions,)),
            lambda z: paint(z, wanted),
            lambda z, x: jnp.zeros(()),
            lambda z: z,
        )
        judge = Weights(lambda key, x: loss(key, x, wanted), lambda params, x: Outputs(x, {}), ())
        return descend(judge, lambda value, case: value, prior, optimizer, steps=steps, keep="last")

    return casewise(search, steps)
