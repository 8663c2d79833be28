"""GMI: descent in the latent space of a prior learned from public images.

Zhang, Jia, Pei, Wang, Li, Song, "The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
Networks", CVPR 2020 (https://arxiv.org/abs/1911.07135), section 3.2: z* = argmin L_prior(z) + lambda * L_id(z), with
L_prior = -D(G(z)) and L_id = -log f_y(G(z)); momentum descent, z clipped to the prior's box after every step; of
`restarts` random starts the one the target believes most is kept.

What differs. Released code averages the loss over its batch of 100 classes before stepping, so that its step depends on
who else is attacked; here the gradient of one case is divided by `reference_batch` = 100 and a case is the same alone.
Released selection reads the logit score[i, i] of the last latent (right only while the targets are 0, 1, 2 ...); here it is
the cross entropy of the case's own label, at the latent before the last. A start is clipped to the box as well; released
code clips after the first step.
The paper's prior is a WGAN-GP (`train.gan` with `priors.latent(generate, realism=critic)`); `priors.eigen` stands in
where there are too few public images to train one, with -log p(z) for L_prior. `nesterov=False` with an unbounded
prior is the plain momentum variant of later toolboxes.
"""

from typing import Any

import optax

from jaxmia.core import Attack, Card, Objective, Prior, Scalar
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import best_of, descend

__all__ = ["CARD", "gmi"]

CARD = Card(
    title="GMI",
    paper="Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer. CVPR 2020",
    url="https://arxiv.org/abs/1911.07135",
    year=2020,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, as the prior can draw it",
    knows="public images of other people",
)


def gmi(
    oracle: Oracle,
    prior: Prior,
    *,
    steps: int = 1500,
    rate: Scalar = 0.02,
    momentum: Scalar = 0.9,
    identity_weight: Scalar = 100.0,
    restarts: int = 5,
    reference_batch: int = 100,
    nesterov: bool = True,
    objective: Objective = cross_entropy,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: white-box access.
      prior: a latent prior; its penalty is L_prior, its projection the box.
      steps: iterations (the paper's 1500; later work uses 2400).
      rate: step size.
      momentum: in [0, 1).
      identity_weight: lambda.
      restarts: random starts, the most believed one is kept.
      reference_batch: the batch the paper's rate was set for.
      nesterov: the released code's form of momentum.
      objective: L_id; LOMMA puts its own here.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for restarts or reference_batch below 1.
    """
    view: Weights = lower(oracle, CARD.access, "image/gmi")
    if reference_batch < 1:
        raise ValueError(f"reference_batch: {reference_batch}; legal is 1 or more")
    optimizer = optax.sgd(rate / reference_batch, momentum, nesterov)

    def process(fitted: Any) -> Any:
        del fitted
        one = descend(view, objective, prior, optimizer, steps=steps, weight=identity_weight, keep="last")
        return best_of(one, restarts, rank=lambda state: state.identity)

    return Attack(process, observes=CARD.observes)
