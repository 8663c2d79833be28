"""LoFt: a last layer of low rank, with a tanh in the middle that starves gradients.

Yu, Qiu, Fang, Zhuang et al., "Rank Matters: Understanding and Defending Model Inversion Attacks via
Low-Rank Feature Filtering", KDD 2026 (https://arxiv.org/abs/2410.05814; its first versions are
called CALoR). From the penultimate layer phi, with r numbers in the middle:

    logits = W2 tanh(W1 phi)

The argument of the abstract: features of higher rank leak more. Where tanh is flat, little of a
gradient comes through.

What differs. Abstract and training scripts were read (Chrisqcwx/LoFt: FaceScrub with 530 classes, a
ResNet-152, r = 50, tanh, Adam 1e-3, minibatches of 96, 100 epochs, from weights of a pre-training
on other faces); the paper's text and the module itself were not, so that biases in both maps are
our choice. By default r is a quarter of the classes, at least 2 and fewer than the classes: the
choice of this project, where the scripts have about a tenth. The authors' second part, confidence
adaptation, is another loss for a few epochs of fine-tuning, a E[p_y^b log p_y], that is lowest at
p_y = exp(-1/b). It replaces the loss, so that it is a second training and not part of this defense.

What it costs and does not do. Fewer weights than before. With r = C - 1 and activation "none" it is
an ordinary linear head, in two factors: compare with it, and with tanh at full rank, to tell what
the rank does from what the tanh does. The penultimate layer is not protected: an attack on phi, or
on "_low_rank" = W1 phi, which is sown here, goes past the tanh. Weak gradients are not less
knowledge: set attacks beside it that use no gradient of the target.
"""

import functools
from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense
from jaxmia.models.features import expose
from jaxmia.models.parts import with_part

__all__ = ["CARD", "LowRankHead", "loft"]

CARD = Card(
    title="LoFt",
    paper="Yu, Qiu, Fang, Zhuang et al. Rank Matters: Low-Rank Feature Filtering. KDD 2026",
    url="https://arxiv.org/abs/2410.05814",
    year=2026,
    modality="any",
    hook="model",
)


class LowRankHead(nn.Module):
    """The last layer of LoFt; it sows "_low_rank", the numbers before the activation.

    Attributes:
      classes: number of classes.
      rank: numbers in the middle; None takes a quarter of the classes, at least 2, fewer than all.
      activation: "tanh", or "none" for a linear head.
    """

    classes: int
    rank: int | None = None
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n classes"]:
        """Returns logits."""
        quarter = max(1, min(max(2, self.classes // 4), self.classes - 1))
        low = nn.Dense(quarter if self.rank is None else self.rank, name="down")(x)
        expose(self, "_low_rank", low)
        return nn.Dense(self.classes, name="up")(nn.tanh(low) if self.activation == "tanh" else low)


def loft(*, rank: int | None = None, activation: Literal["tanh", "none"] = "tanh") -> Defense:
    """The defense: the model with a head of low rank.

    Args:
      rank: r, numbers in the middle; None takes a quarter of the classes, at least 2, fewer than
        all.
      activation: "tanh", or "none" for the control without it.

    Raises:
      ValueError: for a rank below 1 or another activation; when applied, for a model without a
        head.

    >>> from jaxmia.models import MLP
    >>> loft(rank=3).model(MLP(20)).head(20).rank
    3
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank: {rank}; legal is None or 1 or more")
    if activation not in ("tanh", "none"):
        raise ValueError(f"activation: {activation!r}; legal is 'tanh' or 'none'")
    # Made once, so that two such models are equal.
    head = functools.partial(LowRankHead, rank=rank, activation=activation)
    return Defense(model=lambda module: with_part(module, "head", head))
