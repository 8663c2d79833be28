"""Inverse network: trained on public images to undo the client's part of a split network, which it may only query.

He, Zhang, Lee, "Model Inversion Attacks Against Collaborative Inference", ACSAC 2019
(https://doi.org/10.1145/3359789.3359824), black-box attack: min over theta of E_x |g_theta(f_1(x)) - x|^2
over images that the adversary sends through the client's part f_1; then g_theta(v) for an observed v.

What differs. The paper's adversary has images like the client's; here they are whatever public data the experiment
gives. Images stay in [0, 1] instead of less their mean over their deviation. As released: AMSGrad in PyTorch's form
(`recipes.amsgrad`), halved every fifth of the training, batches of the experiment's size (theirs: 32). TB-MIA is the same
idea for truncated scores.
"""

from typing import Any

import optax

from jaxmia.core import Attack, Card, Process, Scalar
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import amsgrad, regress, score

__all__ = ["CARD", "inverse_network"]

CARD = Card(
    title="Inverse network",
    paper="He, Zhang, Lee. Model Inversion Attacks Against Collaborative Inference. ACSAC 2019",
    url="https://doi.org/10.1145/3359789.3359824",
    year=2019,
    modality="image",
    access=Access.SCORES,
    recovers="the image whose smashed features a client sent",
    knows="public images, which the client's part is asked about",
    observes="features",
)


def inverse_network(
    oracle: Oracle,
    decoder: Any,
    *,
    steps: int = 78_125,
    rate: Scalar = 1e-3,
    epsilon: Scalar = 1e-3,
) -> Attack:
    """The attack; a case is what the client's part answered for one image, the output what `decoder` makes of it.

    Args:
      oracle: query access to the client's part, which answers smashed features of any shape (`Target.until`).
      decoder: a Linen module from batches of such features to images `[n, h, w, c]`.
      steps: training minibatches (50 epochs of 50,000 images by 32).
      rate: AMSGrad's learning rate at the start.
      epsilon: AMSGrad's, added to the root of the second moment.

    Raises:
      ThreatModelError: without score access.
    """
    view: Scores = lower(oracle, CARD.access, "image/inverse_network")
    falling = optax.exponential_decay(1.0, max(steps // 5, 1), 0.5, staircase=True)

    def train(fitted: Any) -> Process:
        del fitted
        optimizer = amsgrad(lambda count: rate * falling(count), eps=epsilon)
        return regress(decoder, view.answer, optimizer, steps=steps)

    def solve(fitted: Any) -> Process:
        (variables,) = fitted
        return score(lambda key, features: decoder.apply(variables, features[None], train=False)[0])

    return Attack(solve, (train,), observes=CARD.observes)
