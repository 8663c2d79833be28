"""MI-Face: gradient descent on pixels from nothing but the white-box target.

Fredrikson, Jha, Ristenpart, "Model Inversion Attacks that Exploit Confidence Information and Basic Countermeasures",
CCS 2015, Algorithm 1 (https://doi.org/10.1145/2810103.2813677). From x = 0, at most alpha times:
x <- PROCESS(x - lambda * grad c(x)), c(x) = 1 - f_label(x); stop when c(x) is no better than the worst of the last
beta costs, or when the cost is low enough; return the x of least cost.

What differs. The paper prints gamma = 0.99 as a bound on the *cost*, which every start of an untrained guess passes at
once; it is read here as the confidence that is good enough, c(x) <= 1 - gamma. The paper lets pixels run free and only
the pictures are clipped; here x is kept in [0, 1] after every step, as in every released code. AuxTerm is zero, as in
the paper's experiments. Known faults of released code that are not repeated: an inverted stop rule, returning the last
instead of the best image, a window of all costs instead of the last beta.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import WORST, Attack, Card, Process, Scalar, info
from jaxmia.objectives import one_minus_confidence
from jaxmia.oracle import Access, Oracle, Weights, lower

__all__ = ["CARD", "mi_face"]

CARD = Card(
    title="MI-Face",
    paper="Fredrikson, Jha, Ristenpart. Model Inversion Attacks that Exploit Confidence Information. CCS 2015",
    url="https://doi.org/10.1145/2810103.2813677",
    year=2015,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, pixel by pixel",
    knows="nothing",
)


class State(NamedTuple):
    image: Float[Array, "..."]
    best: Float[Array, "..."]
    cost: Float[Array, ""]  # of best
    window: Float[Array, " beta"]  # the last beta costs, oldest first


def mi_face(
    oracle: Oracle,
    shape: tuple[int, ...],
    *,
    alpha: int = 5000,
    beta: int = 100,
    gamma: Scalar = 0.99,
    rate: Scalar = 0.1,
    start: Scalar = 0.0,
    process: Callable[[Any], Any] | None = None,
) -> Attack:
    """The attack; a case is a class index, the output an image of `shape` in [0, 1].

    Args:
      oracle: white-box access.
      shape: of the image.
      alpha: most steps.
      beta: how many past costs the stop rule compares with.
      gamma: confidence that is good enough, in (0, 1).
      rate: lambda, the step size.
      start: gray level of the first image: the origin of the paper's input space. A target that centers its pixels
        has its origin at 0.5.
      process: image -> image after every step; for the autoencoder target the paper's Process-DAE (encode, sharpen,
        decode). None is the identity.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: if alpha or beta is below 1.
    """
    view: Weights = lower(oracle, CARD.access, "image/mi_face")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")
    clean = process or (lambda image: image)

    def init(key: Any, label: Any) -> State:
        del key, label
        first = jnp.full(shape, start, jnp.float32)
        return State(first, first, jnp.asarray(WORST, jnp.float32), jnp.full(beta, WORST, jnp.float32))

    def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
        def cost_of(image: Any) -> Any:
            return one_minus_confidence(view.answer(key, image), label)

        cost, gradient = jax.value_and_grad(cost_of)(state.image)
        better = cost < state.cost
        new = State(
            image=jnp.clip(clean(state.image - rate * gradient), 0.0, 1.0),
            best=jnp.where(better, state.image, state.best),
            cost=jnp.where(better, cost, state.cost),
            window=jnp.append(state.window[1:], cost),
        )
        done = (cost >= jnp.max(state.window)) | (cost <= 1.0 - gamma)
        return new, info(cost, done=done, confidence=1.0 - new.cost)

    return Attack(
        lambda fitted: Process(init, step, lambda state: state.best, alpha),
        observes=CARD.observes,
    )
