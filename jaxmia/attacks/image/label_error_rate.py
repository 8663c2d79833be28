"""Label-only inversion by error rate: how often noise changes the label tells how far the boundary is, and so a confidence.

Ye, Zhu, Zhou, Liu, Zhou, "Label-only Model Inversion Attack: The Attack that Requires the Least Information", 2022
(https://arxiv.org/abs/2203.06555). The target says labels alone. Of a public image x with label y, the share mu_c of noisy
copies x + sigma * n, n ~ N(0, I), that it calls c is the mass beyond the boundary with c; for a boundary that is straight
at that scale the median distance is

    d_c = -sigma * Phi^-1(mu_c),    d_y = 0,

and a linear model's logits fall with it. An inverse network learns to paint x from these pseudo-confidences; a class is
then asked for as what is never called anything else.

What differs. The paper takes one error rate over a set of records and turns it into confidences by a shadow model; here
every public image has its own rate for every other class, so that images of one class differ, and what the network reads
is -d / sigma less its mean. Shares are counted with half a copy more for every class, so that none is zero. 3,000 steps
are this library's own number, for a few hundred public images.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.oracle import Access, Labels, Oracle, lower
from jaxmia.priors.unit import check_images
from jaxmia.recipes import drawn, regress, score, sliced

__all__ = ["CARD", "label_error_rate", "pseudo_logits"]

CARD = Card(
    title="Label-only by error rate",
    paper="Ye, Zhu, Zhou, Liu, Zhou. Label-only Model Inversion Attack. 2022",
    url="https://arxiv.org/abs/2203.06555",
    year=2022,
    modality="image",
    access=Access.LABELS,
    recovers="a face of a class",
    knows="public images of other people",
)


def pseudo_logits(counts: Float[Array, " classes"], label: Int[Array, ""]) -> Float[Array, " classes"]:
    """-d / sigma less its mean, from how many noisy copies the target called each class.

    >>> [round(float(v), 2) for v in pseudo_logits(jnp.asarray([9.0, 0.0]), jnp.asarray(0))]
    [0.82, -0.82]
    """
    shares = (counts + 0.5) / (jnp.sum(counts) + 0.5 * counts.shape[0])
    logits = jnp.where(jnp.arange(counts.shape[0]) == label, 0.0, jnp.minimum(jax.scipy.stats.norm.ppf(shares), 0.0))
    return logits - jnp.mean(logits)


def label_error_rate(
    oracle: Oracle,
    gallery: Float[Array, "n h w c"],
    decoder: Any,
    classes: int,
    *,
    copies: int = 100,
    noise: Scalar = 0.5,
    steps: int = 3000,
    batch: int = 32,
    rate: Scalar = 2e-4,
    budget: int = 10_000_000,
) -> Attack:
    """The attack; a case is a class index, the output an image.

    Args:
      oracle: label access.
      gallery: public images in [0, 1].
      decoder: a Linen module from vectors `[n, classes]` to images `[n, h, w, c]`.
      classes: of the target.
      copies: noisy ones of every public image.
      noise: sigma, in units of the images.
      steps: training minibatches of the decoder; not the paper's number, see above.
      batch: examples of one.
      rate: Adam's learning rate.
      budget: most queries, for all classes together; one image asks `copies + 1`.

    Raises:
      ThreatModelError: without label access.
      ValueError: for a gallery outside of [0, 1]; for copies below 1, or a gallery that asks more than the budget.
    """
    view: Labels = lower(oracle, CARD.access, "image/label_error_rate")
    check_images("gallery", gallery)
    if copies < 1:
        raise ValueError(f"copies: {copies}; legal is 1 or more")
    if (asked := len(gallery) * (copies + 1)) > budget:
        raise ValueError(f"budget: {budget}; {len(gallery)} images with {copies} copies each ask {asked}")

    def measure(fitted: Any) -> Process:
        """A step asks about one image of the gallery; reads out the vectors, `[n, classes]`."""
        del fitted

        def init(key: Any, _: Any) -> Any:
            del key
            return jnp.zeros((len(gallery), classes)), jnp.zeros((), jnp.int32)

        def step(key: Any, state: Any, _: Any) -> Any:
            told, row = state
            one, many, disturb = jax.random.split(key, 3)
            x = jnp.asarray(gallery)[row]
            noisy = x + noise * jax.random.normal(disturb, (copies, *x.shape))
            said = sliced(view.answer, jax.random.split(many, copies), noisy)
            label = view.answer(one, x)
            counts = jnp.sum(jax.nn.one_hot(said, classes), 0)
            told = told.at[row].set(pseudo_logits(counts, label))
            return (told, row + 1), info(jnp.mean(said != label), queries=(row + 1) * (copies + 1))

        return Process(init, step, lambda state: state[0], len(gallery))

    def invert(fitted: Any) -> Process:
        known = fitted[0]

        def error(images: Any, of: Any) -> Any:
            return jnp.mean((images - jnp.asarray(gallery)[of]) ** 2)

        inner = regress(decoder, lambda key, row: known[row], optax.adam(rate, 0.5), steps=steps, loss=error)
        return drawn(inner, lambda key: {"x": jax.random.randint(key, (batch,), 0, len(gallery))})

    def solve(fitted: Any) -> Process:
        def paint(key: Any, label: Any) -> Any:
            del key
            never = jax.nn.one_hot(label, classes) * copies
            return decoder.apply(fitted[1], pseudo_logits(never, label)[None])[0]

        return score(paint)

    return Attack(solve, (measure, invert), observes=CARD.observes)
