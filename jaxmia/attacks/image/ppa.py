"""Plug & Play: a generator that knows nothing of the target, a loss that does not vanish, and views that must agree.

Struppek, Hintersdorf, Correia, Adler, Kersting, "Plug & Play Attacks: Towards Robust and Flexible Model Inversion
Attacks", ICML 2022 (https://arxiv.org/abs/2201.12179). Section 3.2, initial selection: of a pool of latents, those whose
image and mirror image the target believes most. Section 3.3: min over w of the Poincare distance (eq. 3) between the
logits of a random resized crop and the label, by Adam. Section 3.4, final selection: of the optimized latents, those
that keep the most confidence over random views. Neither prior loss nor discriminator: the generator is the prior.

What differs. The paper keeps 50 images of a class, of 200 that it optimizes, of a pool of 5,000 for all classes together
(2,000 for FaceScrub). Here a case is one image, and its share is what it gets: 1 of 4 of a pool of 100. The views of the
final selection are the same for all candidates, which are thus compared in pairs. Center crop and resize belong to the
prior's decode; so do truncation (psi 0.5) and the latent W, w being what the prior draws.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Prior, Process, Scalar
from jaxmia.objectives import poincare
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import descend, selected, sliced
from jaxmia.recipes.augment import look

__all__ = ["CARD", "ppa"]

CARD = Card(
    title="PPA",
    paper="Struppek, Hintersdorf, Correia, Adler, Kersting. Plug & Play Attacks. ICML 2022",
    url="https://arxiv.org/abs/2201.12179",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="an image of a class, as a generator trained elsewhere can draw it",
    knows="images of the same kind",
)


def ppa(
    oracle: Oracle,
    prior: Prior,
    *,
    steps: int = 70,
    rate: Scalar = 0.005,
    momentum: tuple[Scalar, Scalar] = (0.1, 0.1),
    crop: tuple[Scalar, Scalar] = (0.9, 1.0),
    pool: int = 100,
    starts: int = 4,
    views: int = 100,
    view_crop: tuple[Scalar, Scalar] = (0.5, 0.9),
    view_ratio: tuple[Scalar, Scalar] = (0.8, 1.2),
    mirror: bool = True,
) -> Attack:
    """The attack; a case is a class index, the output a decoded candidate.

    Args:
      oracle: white-box access.
      prior: a generator's latents; its penalty is not used.
      steps: of Adam (the paper's 70 for CelebA, 50 for FaceScrub).
      rate: Adam's learning rate.
      momentum: Adam's betas.
      crop: least and largest share of the area that the target is shown while optimizing.
      pool: latents of the initial selection.
      starts: of them that are optimized.
      views: random views of the final selection, 0 keeps the latent of least confidence loss without them.
      view_crop: least and largest share of the area of such a view.
      view_ratio: least and largest aspect of such a view.
      mirror: whether both selections look at mirror images, too.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: unless 1 <= starts <= pool and views >= 0.
    """
    view: Weights = lower(oracle, CARD.access, "image/ppa")
    if views < 0:
        raise ValueError(f"views: {views}; legal is 0 or more")

    def cropped(key: Any, x: Any) -> Any:
        ask, cut = jax.random.split(key)
        return view.answer(ask, look(cut, x, scale=crop))

    def confidence(show: Any, looks: Any, label: Any) -> Any:
        """Mean over `looks` `[n]` of the class's probability for the image that `show` makes of one."""
        logits = sliced(lambda one: view.answer(jax.random.key(0), show(one)), looks)
        return jnp.mean(jax.nn.softmax(logits)[:, label])

    def first(state: Any, label: Any) -> Any:
        x = prior.decode(state.latent)
        return -confidence(lambda x: x, jnp.stack([x, x[:, ::-1]]) if mirror else x[None], label)

    def last(state: Any, label: Any) -> Any:
        x = prior.decode(state.latent)
        if views == 0:
            return -confidence(lambda x: x, x[None], label)
        keys = jax.random.split(jax.random.key(0), views)
        return -confidence(lambda k: look(k, x, scale=view_crop, ratio=view_ratio, flip=0.5 * mirror), keys, label)

    def solve(fitted: Any) -> Process:
        del fitted
        free = prior._replace(penalty=lambda latent, candidate: jnp.zeros(()))
        one = descend(
            view._replace(answer=cropped), poincare, free, optax.adam(rate, *momentum), steps=steps, keep="last"
        )
        return selected(one, pool=pool, starts=starts, first=first, last=last)

    return Attack(solve, observes=CARD.observes)
