"""MIRROR, white box: descent in a generator's latents, kept where the generator's own latents lie.

An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang, "MIRROR: Model Inversion for Deep Learning Network with High Fidelity", NDSS 2022
(https://doi.org/10.14722/ndss.2022.24335), white-box variant: min over w of weight * CE(f(G(w)), y) by Adam, the image
mirrored at random; after every step w is clipped in P-space to mean +- `bound` deviations of it over many latents. It
starts from the latents of a pool that the target believes most; of their runs the most believed one is kept.

P-space undoes the last activation of a StyleGAN mapping network, p = LeakyReLU_5(w) (`slope`); give 1 for latents that are
Gaussian as they are.

What differs. The paper's pool is asked once for all classes; here each case draws its own, and one image of `starts` is
kept. A later toolbox applies only one side of the box and maps back with another slope; here both are as in the paper.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Prior, Process, Scalar
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import descend, moments, selected

__all__ = ["CARD", "mirror"]

CARD = Card(
    title="MIRROR",
    paper="An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang. MIRROR. NDSS 2022",
    url="https://doi.org/10.14722/ndss.2022.24335",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, as the prior can draw it",
    knows="public images of other people",
)


def mirror(
    oracle: Oracle,
    prior: Prior,
    *,
    steps: int = 20_000,
    rate: Scalar = 0.2,
    identity_weight: Scalar = 10.0,
    pool: int = 1000,
    starts: int = 8,
    moments_steps: int = 100,
    moments_draws: int = 1000,
    bound: Scalar = 1.0,
    slope: Scalar = 5.0,
    flip: Scalar = 0.5,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: white-box access.
      prior: vector latents, such as a StyleGAN's w; its penalty is not used.
      steps: of Adam.
      rate: Adam's learning rate (the released script's is 0.25).
      identity_weight: of the cross entropy.
      pool: latents of the initial selection.
      starts: of them that are optimized.
      moments_steps: the box is measured on moments_steps * moments_draws latents ...
      moments_draws: ... so many at a time.
      bound: half the width of the box in P-space, in standard deviations.
      slope: of the activation that leads to P-space, below zero.
      flip: probability that the target is shown the mirror image at a step.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: unless 1 <= starts <= pool.
    """
    view: Weights = lower(oracle, CARD.access, "image/mirror")

    def to_p(w: Any) -> Any:
        return jnp.where(w >= 0, w, slope * w)

    def from_p(p: Any) -> Any:
        return jnp.where(p >= 0, p, p / slope)

    def measure(fitted: Any) -> Process:
        del fitted

        def draw(key: Any, batch: Any) -> Any:
            del batch
            return jax.vmap(lambda k: to_p(prior.init(k)))(jax.random.split(key, moments_draws))

        return moments(draw, steps=moments_steps)

    def mirrored(key: Any, x: Any) -> Any:
        ask, turn = jax.random.split(key)
        return view.answer(ask, jnp.where(jax.random.bernoulli(turn, flip), x[:, ::-1], x))

    def doubt(state: Any, label: Any) -> Any:
        return cross_entropy(view.answer(jax.random.key(0), prior.decode(state.latent)), label)

    def solve(fitted: Any) -> Process:
        mean, deviation = fitted[0]

        def project(w: Any) -> Any:
            return from_p(jnp.clip(to_p(w), mean - bound * deviation, mean + bound * deviation))

        boxed = prior._replace(penalty=lambda latent, candidate: jnp.zeros(()), project=project)
        one = descend(
            view._replace(answer=mirrored), cross_entropy, boxed, optax.adam(rate),
            steps=steps, weight=identity_weight, keep="last",
        )  # fmt: skip
        return selected(one, pool=pool, starts=starts, first=doubt, last=doubt)

    return Attack(solve, (measure,), observes=CARD.observes)
