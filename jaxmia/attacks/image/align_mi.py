"""AlignMI: any gradient attack, with the gradient of its identity loss averaged around the candidate.

Peng, Han, Yu, Liu, Liu, Zhou, "Generative Model Inversion Through the Lens of the Manifold Hypothesis", NeurIPS 2025
(https://arxiv.org/abs/2509.20177), the training-free section: gradients of the target are noisy, and what is left of them
on the generator's manifold is little more than chance. In place of dL/dx at x = G(z), (1/K) sum_k dL/dx at x_k is sent
back through G, once. Perturbation-averaged alignment (PAA): x_k = x + e_k, e_k ~ N(0, (sigma * range of x)^2);
transformation-averaged (TAA): x_k a random crop, mirror image and rotation of x, and the gradient runs through it.

A combinator: the step of the base runs in K + 1 lanes that share their state, and so one generator pass. The target is
shown all x_k, in slices, and lane k gets its answer to x_k; on the way back the lanes' gradients by their answers are put
together, of which follows the mean of the gradients by x, so that all lanes take the same step. Lane 0 has the answer to x
itself: losses, and what a base keeps by them, are the candidate's own; its gradient does not count. What a base does
before and after its steps (selections) is done once, without lanes.

The defaults are the released ones over KED-MI. Over GMI the released code has sigma 0.003, crops from 0.9, turns of 3
degrees, and 30 copies for TAA.

What differs. Over GMI the released code leaves out the prior loss and rescales every x_k to [0, 1]; over KED-MI it averages
the gradient of the discriminator over the copies as well. Here the base's prior loss is that of x, as for every base.
What a base reads with the oracle's `apply` (LOMMA's features) stays that of x, too. A turned copy repeats the edge in its
corners, which are black in the released code.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmia.core import Attack, Card, Process, Scalar
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import sliced
from jaxmia.recipes.augment import look

__all__ = ["CARD", "align_mi"]

CARD = Card(
    title="AlignMI",
    paper="Peng, Han, Yu, Liu, Liu, Zhou. Generative Model Inversion Through the Lens of the Manifold Hypothesis. "
    "NeurIPS 2025",
    url="https://arxiv.org/abs/2509.20177",
    year=2025,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, as the prior of its base can draw it",
    knows="public images of other people",
)
LANES = "neighbors"


@jax.custom_vjp
def _of_this_lane(answers: Any) -> Any:
    """The lane's row of `[K + 1, ...]`; backwards every row gets the gradient of its lane over K, and row 0 nothing."""
    return answers[jax.lax.axis_index(LANES)]


def _backward(_: None, gradient: Any) -> tuple[Any]:
    every = jax.lax.all_gather(gradient, LANES)
    return ((every / (len(every) - 1)).at[0].set(0.0),)


_of_this_lane.defvjp(lambda answers: (_of_this_lane(answers), None), _backward)


def align_mi(
    oracle: Oracle,
    base: Callable[..., Attack],
    *,
    neighbors: int = 50,
    average: Literal["transformation", "perturbation"] = "transformation",
    spread: Scalar = 0.05,
    smallest: Scalar = 0.8,
    aspect: tuple[Scalar, Scalar] = (0.9, 1.1),
    flip: Scalar = 0.5,
    rotation: Scalar = 5.0,
) -> Attack:
    """The attack; cases and output are those of its base.

    Args:
      oracle: white-box access.
      base: `(oracle) -> Attack` by gradients, a factory with its other inputs bound, such as GMI's with its prior.
      neighbors: K; the paper finds 20 nearly as good.
      average: over transformed (TAA) or perturbed (PAA) copies.
      spread: sigma of PAA, as a share of the candidate's range.
      smallest: least share of the area that a crop of TAA shows, in (0, 1].
      aspect: least and largest width per height of such a crop, relative to the image's.
      flip: probability of a mirror image in TAA.
      rotation: most degrees of a turn in TAA.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for fewer than one neighbor, or another average.
    """
    view: Weights = lower(oracle, CARD.access, "image/align_mi")
    if neighbors < 1:
        raise ValueError(f"neighbors: {neighbors}; legal is 1 or more")
    if average not in ("transformation", "perturbation"):
        raise ValueError(f"average: {average!r}; legal is transformation or perturbation")

    def near(key: Any, x: Any) -> Any:
        if average == "transformation":
            return look(key, x, scale=(smallest, 1.0), ratio=aspect, flip=flip, rotation=rotation)
        scale = jax.lax.stop_gradient(spread * (jnp.max(x) - jnp.min(x)))
        return x + scale * jax.random.normal(key, x.shape)

    def answer(key: Any, x: Any) -> Any:
        def shown(lane: Any) -> Any:
            return view.answer(key, jnp.where(lane == 0, x, near(jax.random.fold_in(key, lane), x)))

        return _of_this_lane(sliced(shown, jnp.arange(neighbors + 1), gradient=True))

    def solve(fitted: Any) -> Process:
        inner = base(view._replace(answer=answer)).solve(fitted)

        def step(*arguments: Any) -> Any:
            lanes = jax.vmap(lambda _: inner.step(*arguments), axis_name=LANES)(jnp.arange(neighbors + 1))
            return jax.tree.map(lambda leaf: leaf[0], lanes)

        return base(view).solve(fitted)._replace(step=step)

    return Attack(solve, base(view).train, observes=CARD.observes)
