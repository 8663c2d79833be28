"""LOMMA: another identity loss for a generative attack, and surrogates beside the target.

Nguyen, Chandrasegaran, Abdollahzadeh, Cheung, "Re-thinking Model Inversion Attacks Against Deep Neural Networks", CVPR
2023 (https://arxiv.org/abs/2304.01669). LOM, section 3.1: L_logit(x; y) = -l_y + lambda * |p - p_reg|^2 with l the logits,
p the penultimate activations and p_reg ~ N(mu, sigma^2), their moments over public images. MA, section 3.2: surrogates
distilled from the target on public images, min KL(softmax T(x), softmax S(x)); the identity loss is its mean over target
and surrogates. Everything else is the base attack's: GMI and KED-MI in the paper. Without surrogates this is LOM alone.

The loss is put together in an oracle: it answers (1/|M|) sum_m l^m - lambda * |p - p_reg|^2, which the base, told to
maximize a logit, descends on.

What differs. lambda = 1 belongs to the mean over the entries of p, as released; the paper writes the squared norm. The
released code draws p_reg and then overwrites it by mu (`sampled=False`). The regularizer is of the target alone and not
divided by |M|, as released. The paper's surrogates are EfficientNets that saw ImageNet before. Of its bases, KED-MI clips z
to [-1, 1] before the generator (`bound=1.0`), and GMI takes 2,400 steps from one start at the rate of a batch of 60
(`steps=2400, restarts=1, reference_batch=60`); neither is the base's own default.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Process, Scalar
from jaxmia.objectives import logit
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.recipes import distill, moments

__all__ = ["CARD", "lomma"]

CARD = Card(
    title="LOMMA",
    paper="Nguyen, Chandrasegaran, Abdollahzadeh, Cheung. Re-thinking Model Inversion Attacks. CVPR 2023",
    url="https://arxiv.org/abs/2304.01669",
    year=2023,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, as the prior of its base can draw it",
    knows="public images of other people",
)


def lomma(
    oracle: Oracle,
    base: Callable[..., Attack],
    surrogates: Sequence[Any],
    *,
    regularizer_weight: Scalar = 1.0,
    sampled: bool = True,
    feature: str = "penultimate",
    moments_steps: int = 79,
    distill_steps: int = 9375,
    rate: Scalar = 0.01,
    momentum: Scalar = 0.9,
    decay: Scalar = 1e-4,
) -> Attack:
    """The attack; cases and output are those of its base.

    Args:
      oracle: white-box access, with the named feature.
      base: `(oracle, objective=...) -> Attack`, a factory with its other inputs bound, such as GMI's with its prior.
      surrogates: Linen modules `(x [n, ...], train) -> logits [n, classes]`; the paper has three.
      regularizer_weight: lambda, of the feature regularizer.
      sampled: draw p_reg at every step; False takes its mean, as released.
      feature: the target's name of p.
      moments_steps: public minibatches for the moments of p (5,000 images of the paper in minibatches of 64).
      distill_steps: public minibatches to distill on (20 epochs of 30,000 images).
      rate: of SGD, for distilling.
      momentum: of SGD, in [0, 1).
      decay: weight decay, added to the gradient.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a base that takes no objective; where the target does not show the feature.
    """
    view: Weights = lower(oracle, CARD.access, "image/lomma")
    if "objective" not in inspect.signature(base).parameters:
        raise ValueError("base: it takes no objective; legal is image/gmi, image/ked_mi, or what takes one")
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum))
    own = base(view, objective=logit)

    def activations(x: Any) -> Any:
        return shown_feature(view.apply(view.params, x).features, feature).reshape(-1)

    def reads(fitted: Any) -> Process:
        del fitted
        return moments(lambda key, batch: jax.vmap(activations)(batch["x"]), steps=moments_steps)

    def teach(key: Any, x: Any) -> Any:
        return jax.nn.softmax(view.answer(key, x))

    def distills(module: Any) -> Callable[[Any], Process]:
        return lambda fitted: distill(module, teach, optimizer, steps=distill_steps)

    def solve(fitted: Any) -> Process:
        count = len(own.train)
        (mean, deviation), variables = fitted[count], fitted[count + 1 :]

        def answer(key: Any, x: Any) -> Any:
            ask, draw = jax.random.split(key)
            logits = [view.answer(ask, x)]
            logits += [module.apply(known, x[None])[0] for module, known in zip(surrogates, variables)]
            wanted = mean + deviation * jax.random.normal(draw, mean.shape) if sampled else mean
            far = jnp.mean((activations(x) - wanted) ** 2)
            return jnp.mean(jnp.stack(logits), 0) - regularizer_weight * far

        return base(view._replace(answer=answer), objective=logit).solve(fitted[:count])

    return Attack(solve, (*own.train, reads, *map(distills, surrogates)), observes=CARD.observes)
