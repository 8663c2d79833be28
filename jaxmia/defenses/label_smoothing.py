"""Label smoothing: with a negative factor a defense, with a positive one a control that leaks more.

Struppek, Hintersdorf, Kersting, "Be Careful What You Smooth For: Label Smoothing Can Be a Privacy
Shield but Also a Catalyst for Model Inversion Attacks", ICLR 2024
(https://arxiv.org/abs/2310.06549). With C classes the one-hot label of a row becomes
(1 - alpha) onehot + alpha / C, for any alpha up to 1. The cross entropy with it is

    -log p_y + alpha * [mean_j(-log p_j) - (-log p_y)]  =  -log p_y + alpha * (l_y - mean_j l_j)

with logits l and probabilities p, since what turns logits into log-probabilities is the same for
all classes. The second form is what is added here to the loss that is given; so the defense goes
together with others that add terms of their own.

For alpha < 0 the loss has no lower bound: it falls by |alpha| for each unit that l_y - mean_j l_j
grows, and a gap of 1000 between logits of 5 classes costs -40 at alpha -0.05. Logits grow for as
long as training goes on; the schedule and the falling learning rate of the paper are what ends it.
Watch the size of the logits, and stop before float32 has no digits left for their differences.

What differs from the released code (LukasStruppek/Plug-and-Play-Attacks): it mixes the two losses,
(1 - alpha) and alpha, which is the same number. `schedule="released"` is its schedule by share of
training t: no smoothing for t < 0.5, alpha (t - 0.5) / 0.5 for t < 0.75, alpha from there on. So it
climbs to alpha / 2 and then jumps. `schedule="linear"` is ours: it climbs to alpha at 0.75. Two
re-implementations that were read train without the schedule, with a wrong mean, or without the
learning rate's schedule; numbers of those are no numbers of this defense.

What it costs and does not do. The paper reports two to four points of accuracy at alpha -0.05. It
acts on class-level attacks by scores and gradients. For what a client sends in split inference,
later work reports the opposite sign: there a positive factor protects. Whether it removes what a
model knows or hides its gradients is open: set attacks beside it that use no gradient of the
target (labels alone, a distilled copy), and losses on logits that are divided by their size.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Scalar
from jaxmia.objectives import counted_mean

__all__ = ["CARD", "label_smoothing", "smoothing_factor"]

CARD = Card(
    title="Negative label smoothing",
    paper="Struppek, Hintersdorf, Kersting. Be Careful What You Smooth For. ICLR 2024",
    url="https://arxiv.org/abs/2310.06549",
    year=2024,
    modality="any",
    hook="loss",
)

Schedule = Literal["released", "linear", "none"]


def label_smoothing(*, alpha: Scalar = -0.05, schedule: Schedule = "released") -> Defense:
    """The defense: the loss of training with the smoothing term added.

    Args:
      alpha: the smoothing factor, at most 1; the paper's -0.05 defends, a positive one is the
        control.
      schedule: "released", "linear" (see above) or "none", which has alpha from the first step.

    Raises:
      ValueError: for a factor above 1 or not finite, or another schedule.

    >>> defended = label_smoothing(schedule="none").loss(lambda outputs, batch: 0.0)
    >>> from jaxmia.oracle import Outputs
    >>> logits = jnp.array([[100.0, 0.0, 0.0, 0.0, 0.0]])
    >>> round(float(defended(Outputs(logits, {}), {"y": jnp.array([0])})), 3)
    -4.0
    """
    if not isinstance(alpha, jax.Array) and not -float("inf") < alpha <= 1:
        raise ValueError(f"alpha: {alpha}; legal is finite and at most 1")
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule: {schedule!r}; legal is 'released', 'linear' or 'none'")

    def loss(plain: Callable) -> Callable:
        def defended(outputs: Any, batch: Any) -> Any:
            logits, labels = outputs.logits, jnp.asarray(batch["y"])
            own = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
            rows = (own - jnp.mean(logits, -1)).reshape(len(labels), -1).mean(1)
            term = counted_mean(rows, batch)
            # A loss without a schedule needs no clock, so that it works outside of a training, too.
            now = alpha if schedule == "none" else smoothing_factor(alpha, schedule, batch["progress"])
            return plain(outputs, batch) + now * term

        return defended

    return Defense(loss=loss)


def smoothing_factor(alpha: Scalar, schedule: Schedule, progress: Scalar) -> Float[Array, ""]:
    """The factor when a share `progress` of the training is done, 0 to 1.

    >>> [round(float(smoothing_factor(-0.1, "released", t)), 3) for t in (0.4, 0.6, 0.75)]
    [-0.0, -0.02, -0.1]
    """
    since = jnp.clip(jnp.asarray(progress, jnp.float32) - 0.5, 0.0, 0.5)
    if schedule == "none":
        share = jnp.ones_like(since)
    elif schedule == "linear":
        share = jnp.minimum(since / 0.25, 1.0)
    else:
        share = jnp.where(since < 0.25, since / 0.5, 1.0)
    return alpha * share
