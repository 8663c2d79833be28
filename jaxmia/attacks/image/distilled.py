"""Distilled student: copy what the target serves into a network of one's own, and invert the copy.

No paper proposes it as an attack of its own. It is the check that Athalye, Carlini, Wagner, "Obfuscated Gradients Give a
False Sense of Security", ICML 2018 (https://arxiv.org/abs/1802.00420), section 3, ask of every defense: where an attack
through a substitute does better than one on the model itself, the defense hides its gradients and not what it knows. In two
stages:

    student   min over theta of the mean over public x of KL(served(x), softmax S_theta(x))
    attack    any white-box attack on S_theta alone

Not a gradient of the target is used, nor its weights, and what it serves is asked for as the public would: through every
serving-time defense. LOMMA keeps the target in its ensemble, and LOKT learns from labels of its own generator; neither
tells a masked gradient from a missing one.

What is this library's own: Adam at 1e-3, 2,000 minibatches, and no augmentation. A student of public images alone knows
private classes from what the target says of strangers; a floor for what the target gives away, no ceiling.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Process, Scalar
from jaxmia.oracle import Access, Oracle, Outputs, Scores, Weights, lower, sown_features
from jaxmia.recipes import distill

__all__ = ["CARD", "distilled"]

CARD = Card(
    title="Distilled student",
    paper="Athalye, Carlini, Wagner. Obfuscated Gradients Give a False Sense of Security. ICML 2018",
    url="https://arxiv.org/abs/1802.00420",
    year=2018,
    modality="image",
    access=Access.SCORES,
    recovers="a face of a class, as the prior of its base can draw it",
    knows="public images of other people",
)


def distilled(
    oracle: Oracle,
    base: Callable[..., Attack],
    surrogate: Any,
    shape: tuple[int, ...],
    *,
    steps: int = 2000,
    rate: Scalar = 1e-3,
) -> Attack:
    """The attack; cases and output are those of its base.

    Args:
      oracle: score access, queried with public images while the student learns.
      base: `(oracle) -> Attack`, a white-box attack with its other inputs bound, such as GMI's with its prior.
      surrogate: the student, a Linen module `(x [n, ...], train) -> logits [n, classes]`.
      shape: of an image.
      steps: public minibatches that the student sees.
      rate: of Adam.

    Raises:
      ThreatModelError: without score access.
      ValueError: for what the base refuses of the student.
    """
    view: Scores = lower(oracle, CARD.access, "image/distilled")

    def student(variables: Any) -> Weights:
        def apply(variables: Any, x: Any) -> Outputs:
            logits, sown = surrogate.apply(variables, x[None], mutable=["features"])
            return Outputs(logits[0], {name: value[0] for name, value in sown_features(sown).items()})

        return Weights(lambda key, x: apply(variables, x).logits, apply, variables)

    def teach(key: Any, x: Any) -> Any:
        served = jnp.maximum(view.answer(key, x), 0.0)  # rounded or truncated scores need not sum to one
        total = jnp.sum(served)
        return jnp.where(total > 0, served / jnp.maximum(total, 1e-30), 1.0 / len(served))

    def learns(fitted: Any) -> Process:
        del fitted
        return distill(surrogate, teach, optax.adam(rate), steps=steps)

    def stage(number: int) -> Callable[[Any], Any]:
        return lambda fitted: base(student(fitted[0])).train[number](fitted[1:])

    shapes = jax.eval_shape(surrogate.init, jax.random.key(0), jnp.zeros((1, *shape)))
    untaught = student(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    own = base(untaught)  # says how many stages there are, and refuses now what it will refuse
    return Attack(
        lambda fitted: base(student(fitted[0])).solve(fitted[1:]),
        (learns, *(stage(number) for number in range(len(own.train)))),
        observes=own.observes,
        check=own.check,
    )
