"""RoLSS and SSF: take the skip connections of the last stage away, or scale them down.

Koh, Ho, Nguyen, Cheung, "On the Vulnerability of Skip Connections to Model Inversion Attacks", ECCV
2024 (https://arxiv.org/abs/2409.01696). A residual block is y = F(x) + k x, with k = 1 in a ResNet.
Its Jacobian is F'(x) + k I: the identity carries the gradient of an attack past the block. The
paper finds that skips help inversion, those of the last stage most, and proposes

    RoLSS   k = 0 in the last stage: (1, 1, 1, 0) in a ResNet of four stages
    SSF     a small k in the last stage, in place of 0
    TTS     train with k = 1 first, then go on with k = 0 (as we understand it)

RoLSS is the default here, SSF is `share` above 0. TTS is two trainings: the undefended one, and one
with this defense that starts from the variables of the first; parameters are the same for every k.

What differs. The projection, where the block's input has another shape than its output, counts as
the skip and is removed with it. In the released code (Pillowkoh/RoLSS) the ResNet also removes the
skips of the last fifth of stage 3, whatever it is told; that is not offered here. Its DenseNets
keep a share of the input channels instead; no DenseNet is here.

What it costs and does not do. Nothing is added, and nothing at serving; a deep last stage without
skips is harder to train. The paper reports up to 70 % lower attack accuracy, and that it goes
together with other defenses. Weaker gradients are not less knowledge: set attacks beside it that
take more steps, average over augmentations, or use no gradient of the target.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from jaxmia.core import Card, Defense, Scalar
from jaxmia.models.parts import with_part
from jaxmia.ranges import fraction

__all__ = ["CARD", "rolss"]

CARD = Card(
    title="RoLSS and SSF",
    paper="Koh, Ho, Nguyen, Cheung. On the Vulnerability of Skip Connections. ECCV 2024",
    url="https://arxiv.org/abs/2409.01696",
    year=2024,
    modality="image",
    hook="model",
)

STAGES = 4
"""Of a residual network that does not tell its widths, as those for ImageNet."""


def rolss(*, share: Scalar = 0.0, stages: int = 1) -> Defense:
    """The defense: a residual network whose last stages have weaker skips, or none.

    Args:
      share: k, the weight of a block's input in its output; 0 removes the skips, 1 changes nothing.
      stages: how many of the last stages it is for; the paper's 1.

    Raises:
      ValueError: for a share outside of 0 to 1 or fewer than 1 stage; when applied, for a network
        without skips or with fewer stages.

    >>> from jaxmia.models import ResNet
    >>> rolss().model(ResNet(5)).skip, rolss(share=0.01, stages=2).model(ResNet(5)).skip
    ((1.0, 1.0, 0.0), (1.0, 0.01, 0.01))
    """
    fraction(share=share)
    if stages < 1:
        raise ValueError(f"stages: {stages}; legal is 1 or more")

    def model(module: nn.Module) -> nn.Module:
        network = _residual(module)
        if network is None:
            return with_part(module, "skip", None)  # which says what is missing
        before = _skip(network)
        if stages > len(before):
            raise ValueError(f"stages: {stages}; legal is 1 to the {len(before)} of {type(network).__name__}")
        return with_part(module, "skip", (*before[: len(before) - stages], *(share,) * stages))

    return Defense(model=model)


def _residual(module: Any) -> Any:
    """The network with skips in a module or its wrappers, searched in the order of `with_part`."""
    fields = [field.name for field in dataclasses.fields(module) if field.name != "parent"]
    if "skip" in fields:
        return module
    parts = (getattr(module, name) for name in fields)
    found = (_residual(part) for part in parts if isinstance(part, nn.Module))
    return next((network for network in found if network is not None), None)


def _skip(network: Any) -> tuple[Any, ...]:
    if network.skip is not None:
        return tuple(network.skip)
    return (1.0,) * len(getattr(network, "widths", range(STAGES)))
