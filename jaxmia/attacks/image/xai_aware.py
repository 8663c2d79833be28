"""XAI-aware inversion: the inverse of a target that explains what it says is trained on both.

Zhao, Zhang, Xiao, Lim, "Exploiting Explanations for Model Inversion Attacks", ICCV 2021
(https://arxiv.org/abs/2104.12669). The target answers scores y and an explanation E of them, an image-sized map such as
the gradient of the predicted class. On images of other people the adversary trains

    min over theta of E_x |I_theta(y(x), E(x)) - x|^2,

where I_theta is a multi-modal transposed CNN: y is decoded as TB-MIA's, E enters flattened beside y, through a U-Net with
skip connections, or both. The architecture is the `explained_decoder` that the experiment gives. Without E the attack
is TB-MIA ("prediction only" in the paper).

What differs. Explanations are over their root mean square, scores are centered logarithms, as TB-MIA's are here: gradients
of a confident target span many orders of magnitude. Not here: several explanations at once, and attention transfer, where
a target without explanations is attacked through those of a surrogate. Rate and momenta are TB-MIA's; 3,000 steps are this
library's own number, for a few hundred public images.
"""

from typing import Any

import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Process, Scalar
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import regress, score

__all__ = ["CARD", "standardize", "xai_aware"]

CARD = Card(
    title="XAI-aware inversion",
    paper="Zhao, Zhang, Xiao, Lim. Exploiting Explanations for Model Inversion Attacks. ICCV 2021",
    url="https://arxiv.org/abs/2104.12669",
    year=2021,
    modality="image",
    access=Access.SCORES,
    recovers="the image behind served scores and their explanation",
    knows="public images of other people, and what the target served for the victim's image",
    observes="explained_scores",
)


def standardize(served: Any) -> dict[str, Any]:
    """Centered log-scores and the explanation over its root mean square, of one answer.

    >>> standardize({"scores": jnp.asarray([0.5, 0.5]), "explanation": jnp.full((1, 1), -3.0)})["explanation"].tolist()
    [[-1.0]]

    Raises:
      ValueError: for an answer without an explanation.
    """
    if not isinstance(served, dict) or served.keys() != {"scores", "explanation"}:
        raise ValueError("oracle: image/xai_aware needs a target that explains its scores (`Target.explained`)")
    logs, explanation = jnp.log(jnp.maximum(served["scores"], 1e-30)), served["explanation"]
    scale = jnp.sqrt(jnp.mean(explanation**2))
    return {"scores": (logs - logs.mean()) / 5.0, "explanation": explanation / jnp.maximum(scale, 1e-30)}


def xai_aware(
    oracle: Oracle,
    explained_decoder: Any,
    *,
    steps: int = 3000,
    rate: Scalar = 2e-4,
    momentum: tuple[float, float] = (0.5, 0.999),
) -> Attack:
    """The attack; a case is what the target served for one image, the output what the decoder makes of it.

    A case is {"scores": `[classes]`, "explanation": `[h, w, c]`}.

    Args:
      oracle: score access to a target that explains, queried with public images while training.
      explained_decoder: a Linen module from {"scores" `[n, classes]`, "explanation" `[n, h, w, c]`} to images
        `[n, h, w, c]`.
      steps: training minibatches; not the paper's number, see above.
      rate: Adam's learning rate.
      momentum: Adam's betas.

    Raises:
      ThreatModelError: without score access.
      ValueError: when training, where the target explains nothing.
    """
    view: Scores = lower(oracle, CARD.access, "image/xai_aware")

    def train(fitted: Any) -> Process:
        del fitted
        return regress(
            explained_decoder,
            lambda key, image: standardize(view.answer(key, image)),
            optax.adam(rate, *momentum),
            steps=steps,
        )

    def solve(fitted: Any) -> Process:
        (variables,) = fitted

        def decode(key: Any, served: Any) -> Any:
            del key
            one = {name: value[None] for name, value in standardize(served).items()}
            return explained_decoder.apply(variables, one, train=False)[0]

        return score(decode)

    return Attack(solve, (train,), observes=CARD.observes)
