"""Updates-Leak: what a model says of fixed probes before and after an update tells the sample that it was updated with.

Salem, Bhattacharya, Backes, Fritz, Zhang, "Updates-Leak: Data Set Inference and Reconstruction Attacks in Online
Learning", USENIX Security 2020 (https://arxiv.org/abs/1904.01067), single-sample reconstruction. The adversary asks for
the posteriors of m probing samples before the update, is shown them after it, and decodes delta, their difference. It
learns to on its own labeled data: a shadow model of the target's architecture is trained there once, updated with one
sample after another, each time anew from where it was, and

    min over theta of E_(x, y) |A_theta(delta(x, y)) - x|^2,   delta(x, y) = f_s(probes) - f_s updated with (x, y)(probes).

What differs. delta is over its root mean square, since an update of one sample moves posteriors by little. The paper's
decoder starts as that of an autoencoder of the shadow data; here both halves, encoder and decoder, are the `decoder` of the
experiment and learn together. The update is plain SGD on the one sample, in shadow and target alike. Steps and rates are
not the paper's, and its three other attacks (the sample's label, and sets of samples) are not here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Scores, lower
from jaxmia.recipes import score, sliced

__all__ = ["CARD", "Reconstruction", "difference", "updates_leak"]

CARD = Card(
    title="Updates-Leak",
    paper="Salem, Bhattacharya, Backes, Fritz, Zhang. Updates-Leak. USENIX Security 2020",
    url="https://arxiv.org/abs/1904.01067",
    year=2020,
    modality="image",
    access=Access.SCORES,
    recovers="the sample that a model was updated with",
    knows="the target's architecture and how it is updated, and labeled data of its task",
    observes="updated_scores",
)


class Reconstruction(NamedTuple):
    """What is read out.

    Attributes:
      image: the sample.
      queries: what was asked before the update; as much was asked after it, by whoever made the case.
    """

    image: Float[Array, "h w c"]
    queries: Int[Array, ""]


def difference(before: Float[Array, "m classes"], after: Float[Array, "m classes"]) -> Float[Array, "m classes"]:
    """delta, over its root mean square.

    >>> difference(jnp.asarray([[0.5, 0.5]]), jnp.asarray([[0.25, 0.75]])).tolist()
    [[1.0, -1.0]]
    """
    delta = before - after
    return delta / jnp.maximum(jnp.sqrt(jnp.mean(delta**2)), 1e-12)


def _learn(module: Any, pairs: Callable, loss: Callable, optimizer: Any, steps: int) -> Process:
    """A training stage: minimize `loss(module(a), b)` of `(a, b) = pairs(batch)`; reads out variables."""

    def init(key: Any, batch: Any) -> Any:
        variables = module.init({"params": key, "dropout": key}, pairs(batch)[0], train=False)
        return variables, optimizer.init(variables["params"])

    def step(key: Any, state: Any, batch: Any) -> Any:
        variables, opt = state
        given, wanted = pairs(batch)

        def total(params: Any) -> Any:
            told, changed = module.apply(
                {**variables, "params": params}, given, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
            )
            return loss(told, wanted), changed

        (value, changed), gradient = jax.value_and_grad(total, has_aux=True)(variables["params"])
        updates, opt = optimizer.update(gradient, opt)
        return ({**variables, **changed, "params": optax.apply_updates(variables["params"], updates)}, opt), info(value)

    return Process(init, step, lambda state: state[0], steps)


def updates_leak(
    oracle: Oracle,
    surrogate: Any,
    decoder: Any,
    gallery: Float[Array, "m h w c"],
    *,
    probes: int = 100,
    shadow_steps: int = 3000,
    shadow_rate: Scalar = 1e-3,
    update_steps: int = 1,
    update_rate: Scalar = 0.01,
    steps: int = 3000,
    rate: Scalar = 1e-3,
) -> Attack:
    """The attack; a case is the scores of the probes after an update, `[m, classes]`.

    Its training minibatches need labels: "x" `[n, h, w, c]` and "y" `[n]`, the classes of the target.

    Args:
      oracle: score access to the model before the update.
      surrogate: a Linen module `(x [n, ...], train) -> logits [n, classes]`, of the target's architecture.
      decoder: a Linen module from differences `[n, m, classes]` to images `[n, h, w, c]`.
      gallery: images to probe with.
      probes: m, how many of them, from the first on; or all, where there are fewer.
      shadow_steps: training minibatches of the shadow model.
      shadow_rate: Adam's learning rate there.
      update_steps: steps of an update.
      update_rate: the learning rate of SGD in an update, which is known.
      steps: training minibatches of the decoder; every sample of one is an update of its own.
      rate: Adam's learning rate there.

    Raises:
      ThreatModelError: without score access.
      ValueError: without probes; when training, for minibatches without labels.
    """
    view: Scores = lower(oracle, CARD.access, "image/updates_leak")
    if min(probes, len(gallery)) < 1:
        raise ValueError(f"probes, gallery: {probes} of {len(gallery)} images; legal is 1 or more")
    probing = gallery[:probes]

    def shadow(fitted: Any) -> Process:
        del fitted

        def pairs(batch: Any) -> tuple[Any, Any]:
            if "y" not in batch:
                raise ValueError("public: minibatches lack 'y'; image/updates_leak trains on labeled images")
            return batch["x"], batch["y"]

        def loss(logits: Any, labels: Any) -> Any:
            return jnp.mean(jax.vmap(cross_entropy)(logits, labels))

        return _learn(surrogate, pairs, loss, optax.adam(shadow_rate), shadow_steps)

    def inverse(fitted: Any) -> Process:
        (known,) = fitted

        def answers(params: Any, x: Any) -> Any:
            return surrogate.apply({**known, "params": params}, x, train=False)

        def delta(sample: Any) -> Any:
            x, y = sample
            params = known["params"]
            for _ in range(update_steps):
                slopes = jax.grad(lambda p: cross_entropy(answers(p, x[None])[0], y))(params)
                params = jax.tree.map(lambda leaf, slope: leaf - update_rate * slope, params, slopes)
            before, after = (jax.nn.softmax(answers(p, probing)) for p in (known["params"], params))
            return difference(before, after)

        def pairs(batch: Any) -> tuple[Any, Any]:  # kernels under vmap are slow on CPU
            return jax.lax.map(delta, (batch["x"], batch["y"])), batch["x"]

        return _learn(decoder, pairs, lambda guess, x: jnp.mean((guess - x) ** 2), optax.adam(rate), steps)

    def solve(fitted: Any) -> Process:
        _, variables = fitted

        def decode(key: Any, after: Any) -> Reconstruction:
            before = sliced(view.answer, jax.random.split(key, len(probing)), probing)
            image = decoder.apply(variables, difference(before, after)[None], train=False)[0]
            return Reconstruction(image, jnp.asarray(len(probing), jnp.int32))

        return score(decode)

    return Attack(solve, (shadow, inverse), observes=CARD.observes)
