"""TB-MIA: train the inverse of the target on public images, then decode the scores it served for a private one.

Yang, Zhang, Chang, Liang, "Neural Network Inversion in Adversarial Setting via Background Knowledge Alignment",
CCS 2019 (https://arxiv.org/abs/1902.08552), sections 4.1-4.3: min over theta of E_x |I_theta(trunc_m(f(x))) - x|^2 on
auxiliary images that share no class with the private ones; trunc_m keeps the m largest scores.

What differs. Raw scores of a confident target are all but one-hot, so the inverse is fed log-scores here: by default less
their mean and over 5, which recovers logits near one from a softmax (`transform="centered"`). The released code shifts
log-scores by 50, raises all of them where the least is below zero then, and leaves zero where they were truncated
(`transform="log"`): what tells images apart is then a few percent of what all have in common, and on a few hundred public
images the inverse does not get beyond the mean face. `transform="none"` is the paper's text. Adam as released, without its
amsgrad. 3,000 steps are this library's own number, for a few hundred public images; the released code trains 100 epochs of
CelebA in minibatches of 128.
"""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Scalar
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import regress, score
from jaxmia.recipes.raised_logs import raised_logs

__all__ = ["CARD", "tb_mia", "truncate"]

CARD = Card(
    title="TB-MIA",
    paper="Yang, Zhang, Chang, Liang. Neural Network Inversion in Adversarial Setting. CCS 2019",
    url="https://arxiv.org/abs/1902.08552",
    year=2019,
    modality="image",
    access=Access.SCORES,
    recovers="the image behind a served score vector",
    knows="public images of other people, and the scores of the victim's image",
    observes="scores",
)


def truncate(scores: Float[Array, " classes"], keep: int | None, transform: str) -> Float[Array, " classes"]:
    """The `keep` largest scores (None: all), transformed.

    "none": the others are zero. "log": log p + 50, all raised where the least is negative until it is zero, the others
    zero (`recipes.raised_logs`). "centered": log p less its mean, over 5, where the others count as the least score that
    is shown.

    >>> truncate(jnp.asarray([0.1, 0.6, 0.3]), 2, "none").tolist()
    [0.0, 0.6000000238418579, 0.30000001192092896]
    """
    if transform == "log":
        return raised_logs(scores, keep)
    least = scores.min() if keep is None else jnp.sort(scores)[-min(keep, scores.shape[0])]
    if transform == "centered":
        logs = jnp.log(jnp.maximum(jnp.maximum(scores, least), 1e-30))
        return (logs - logs.mean()) / 5.0
    return scores if keep is None else jnp.where(jnp.argsort(jnp.argsort(-scores)) < keep, scores, 0.0)


def tb_mia(
    oracle: Oracle,
    decoder: Any,
    *,
    steps: int = 3000,
    rate: Scalar = 2e-4,
    momentum: tuple[float, float] = (0.5, 0.999),
    keep: int | None = None,
    transform: str = "centered",
) -> Attack:
    """The attack; a case is a served score vector `[classes]`, the output what `decoder` makes of it.

    Args:
      oracle: score access, queried with public images while training.
      decoder: a Linen module from score vectors `[n, classes]` to images `[n, h, w, c]`.
      steps: training minibatches; not the paper's number, see above.
      rate: Adam's learning rate.
      momentum: Adam's betas.
      keep: m, how many scores the target shows or the adversary keeps; None is all.
      transform: "centered", "log" or "none", see `truncate`.

    Raises:
      ThreatModelError: without score access.
      ValueError: for an unknown transform or keep below 1.
    """
    view: Scores = lower(oracle, CARD.access, "image/tb_mia")
    if transform not in ("centered", "log", "none"):
        raise ValueError(f"transform: {transform!r}; legal is centered, log or none")
    if keep is not None and keep < 1:
        raise ValueError(f"keep: {keep}; legal is 1 or more, or None for all")

    def observe(key: Any, image: Any) -> Any:
        return truncate(view.answer(key, image), keep, transform)

    def train(fitted: Any) -> Any:
        del fitted
        return regress(decoder, observe, optax.adam(rate, *momentum), steps=steps)

    def solve(fitted: Any) -> Any:
        (variables,) = fitted
        return score(lambda key, scores: decoder.apply(variables, truncate(scores, keep, transform)[None])[0])

    return Attack(solve, (train,), observes=CARD.observes)
