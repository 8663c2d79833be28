"""rMLE: the image whose smashed features are those that were observed, and which is smooth.

He, Zhang, Lee, "Model Inversion Attacks Against Collaborative Inference", ACSAC 2019
(https://doi.org/10.1145/3359789.3359824), white-box attack, "regularized maximum likelihood estimation". A client
computes the first layers f_1 of a network and sends v = f_1(x) to a server; the adversary knows f_1 and v:

    min_x |f_1(x) - v|^2 + lambda_TV TV(x) + lambda_2 |x|^2.

What differs. The paper writes sums and an exponent beta in TV; its published weights belong to the released code, which
takes means over features and over pixels and beta = 2, so this does. They also belong to pixels less their mean over their
deviation: u is optimized, from zero, and the client's part sees `center + deviation * u`. As released, pixels run free
and only the result is clipped, and the last iterate is kept. The defaults are those for the fourth convolution of its
six (ReLU22); the layer decides them: lambda_TV 0 after the first convolution, 1e3 after the sixth; after the first
affine layer 1e4 (rate 1e-3, 5,000 steps) or 1e5 (5e-2, 1,000), after the second 5e2 with lambda_2 1e2 (0.1, 500).
AMSGrad is PyTorch's (`recipes.amsgrad`); the version of 2019, 1.0, added epsilon before the correction for the start, which
makes steps shorter at first.
"""

import jax.numpy as jnp

from jaxmia.core import Attack, Card, Process, Scalar
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.priors import standardized
from jaxmia.recipes import amsgrad, descend

__all__ = ["CARD", "rmle"]

CARD = Card(
    title="rMLE",
    paper="He, Zhang, Lee. Model Inversion Attacks Against Collaborative Inference. ACSAC 2019",
    url="https://doi.org/10.1145/3359789.3359824",
    year=2019,
    modality="image",
    access=Access.WEIGHTS,
    recovers="the image whose smashed features a client sent",
    knows="the client's part of the network",
    observes="features",
)


def rmle(
    oracle: Oracle,
    shape: tuple[int, int, int],
    *,
    steps: int = 5000,
    rate: Scalar = 0.01,
    epsilon: Scalar = 1e-3,
    variation: Scalar = 10.0,
    norm: Scalar = 0.0,
    center: Scalar = 0.45,
    deviation: Scalar = 0.225,
) -> Attack:
    """The attack; a case is what the client's part answered for one image, the output an image in [0, 1].

    Args:
      oracle: white-box access to the client's part, which answers smashed features of any shape (`Target.until`).
      shape: (height, width, channels) of the image.
      steps: iterations.
      rate: AMSGrad's learning rate, in units of u.
      epsilon: AMSGrad's, added to the root of the second moment.
      variation: lambda_TV.
      norm: lambda_2.
      center: image at u = 0.
      deviation: image units of one unit of u.

    Raises:
      ThreatModelError: without white-box access.
    """
    view: Weights = lower(oracle, CARD.access, "image/rmle")
    prior = standardized(shape, variation=variation, norm=norm, center=center, deviation=deviation)

    def process(fitted: tuple) -> Process:
        del fitted
        free = descend(
            view,
            lambda features, observed: jnp.mean((features - observed) ** 2),
            prior,
            amsgrad(rate, eps=epsilon),
            steps=steps,
            keep="last",
        )
        return free._replace(read=lambda state: jnp.clip(free.read(state), 0.0, 1.0))

    return Attack(process, observes=CARD.observes)
