"""DeepInversion: a batch of images, one for each label, whose statistics are those that BatchNorm layers remember.

Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz, "Dreaming to Distill: Data-free Knowledge Transfer via
DeepInversion", CVPR 2020 (https://arxiv.org/abs/1912.08795). Over a batch x with labels y, equations 1, 3 to 5:

    min_x CE(f(x), y) + a_tv R_TV(x) + a_l2 |x| + a_f sum_l |mean_l(x) - m_l| + |var_l(x) - v_l|,

where l runs over the BatchNorm layers, mean_l and var_l are taken over batch and positions of what l reads, and m_l, v_l
are its running statistics; the first layer counts `first` times. Adaptive DeepInversion, equations 6 and 7, adds
a_c (1 - JS(p, p_S)), JS the Jensen-Shannon divergence between the softened answers of the target and of a student.
x is rolled and flipped at random, the whole batch alike, before it is judged.

The terms couple the images of a batch, so a case is a batch of labels: its images do depend on one another, not on other
cases. A target without BatchNorm, or one that is not from Linen, is refused, unless a_f is 0, which is DeepDream.

What differs. The paper's numbers are for pixels less their mean over their deviation; here u is optimized, and the image
`center + deviation * u` is what the target sees. One resolution, as in the paper's longest setting, of 20,000 steps, which
the defaults follow: the released two-stage schedule needs a target that reads any size. As in the released code of that
setting the target may see pixels outside [0, 1], which are cut off in the end; its shorter settings cut them off at every
step (`clip`). Released code also writes KL(M | p) for KL(p | M) and clips it. Until December 2021 it kept the last image,
since its record of the least loss was never written, and then the one after the step of least loss; here it is the last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature

__all__ = ["CARD", "deep_inversion", "jensen_shannon", "moment_distance", "total_variation"]

CARD = Card(
    title="DeepInversion",
    paper="Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz. Dreaming to Distill. CVPR 2020",
    url="https://arxiv.org/abs/1912.08795",
    year=2020,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a batch of images of classes, as BatchNorm remembers images",
    knows="nothing",
    observes="labels",
)


class State(NamedTuple):
    u: Float[Array, "batch h w c"]
    optimizer: Any


def total_variation(u: Float[Array, "batch h w c"]) -> Float[Array, ""]:
    """R_TV: the Euclidean norms of the differences between neighbors, across, down and along both diagonals."""
    pairs = (
        (u[:, :, :-1], u[:, :, 1:]),
        (u[:, :-1], u[:, 1:]),
        (u[:, 1:, :-1], u[:, :-1, 1:]),
        (u[:, :-1, :-1], u[:, 1:, 1:]),
    )
    return sum((_norm(a - b) for a, b in pairs), jnp.zeros(()))


def moment_distance(
    features: dict[str, Float[Array, "batch ..."]], statistics: Any, first: Scalar = 1.0
) -> Float[Array, ""]:
    """R_feature: the distances of means and variances from the running ones, summed over BatchNorm layers.

    Args:
      features: of a batch, of which the "batch_norm/<i>/<path>" count.
      statistics: "batch_stats", where path leads to a "mean" and a "var".
      first: weight of the first layer.
    """
    total = jnp.zeros(())
    for rank, name in enumerate(sorted(name for name in features if name.startswith("batch_norm/"))):
        known, seen = statistics, features[name].reshape(-1, features[name].shape[-1])
        for part in name.split("/")[2:]:
            known = known[part]
        distance = _norm(jnp.mean(seen, 0) - known["mean"]) + _norm(jnp.var(seen, 0) - known["var"])
        total += distance if rank else first * distance
    return total


def jensen_shannon(p: Float[Array, " classes"], q: Float[Array, " classes"]) -> Float[Array, ""]:
    """JS(p, q) = (KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2, in nats; in [0, log 2].

    >>> round(float(jensen_shannon(jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0]))), 4)
    0.6931
    """
    m = jnp.log((p + q) / 2 + 1e-12)
    return sum((jnp.sum(a * (jnp.log(a + 1e-12) - m)) / 2 for a in (p, q)), jnp.zeros(()))


def deep_inversion(
    oracle: Oracle,
    shape: tuple[int, int, int],
    *,
    steps: int = 20_000,
    rate: Scalar = 0.2,
    warmup: int = 100,
    variation: Scalar = 1e-4,
    norm: Scalar = 1e-5,
    moments: Scalar = 0.01,
    first: Scalar = 10.0,
    student: Callable[[Any], Any] | None = None,
    competition: Scalar = 0.2,
    temperature: Scalar = 3.0,
    jitter: int = 30,
    flip: Scalar = 0.5,
    center: Scalar = 0.45,
    deviation: Scalar = 0.225,
    clip: bool = False,
) -> Attack:
    """The attack; a case is a batch of class indices `[batch]`, the output images `[batch, h, w, c]` in [0, 1].

    Args:
      oracle: white-box access.
      shape: (height, width, channels) of an image.
      steps: iterations.
      rate: Adam's largest learning rate, in units of u; it falls as a cosine.
      warmup: steps during which it rises; at most `steps`.
      variation: a_tv.
      norm: a_l2, of the mean Euclidean norm of an image's u.
      moments: a_f; the number 0 asks for no BatchNorm layers.
      first: factor on the first BatchNorm layer.
      student: image -> logits of the model that is to disagree; None is DeepInversion, a student makes it adaptive.
      competition: a_c.
      temperature: by which logits are divided before the answers are compared.
      jitter: most pixels that the batch is rolled by, each way.
      flip: probability that the batch is mirrored.
      center: image at u = 0.
      deviation: image units of one unit of u.
      clip: whether the image is kept in [0, 1] from the start and after every step, and not in the end alone.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a negative jitter, or a warmup longer than all steps; for a target that does not show what every
        BatchNorm layer reads.
    """
    view: Weights = lower(oracle, CARD.access, "image/deep_inversion")
    if jitter < 0:
        raise ValueError(f"jitter: {jitter}; legal is 0 or more")
    if not 0 <= warmup <= steps:
        raise ValueError(f"warmup: {warmup}; legal is 0 to steps, {steps}")
    statistics = view.params.get("batch_stats", {}) if isinstance(view.params, dict) else {}
    if isinstance(moments, jax.Array) or moments != 0:
        _check_layers(jax.eval_shape(lambda: view.apply(view.params, jnp.zeros(shape)).features), statistics)

    def schedule(count: Any) -> Any:
        rising = (count + 1) / max(warmup, 1)
        falling = (1 + jnp.cos(jnp.pi * (count - warmup) / max(steps - warmup, 1))) / 2
        return rate * jnp.where(count < warmup, rising, falling)

    adam = optax.adam(schedule, 0.9, 0.999)

    def show(u: Any) -> Any:
        return center + deviation * u

    def project(u: Any) -> Any:
        return jnp.clip(u, -center / deviation, (1.0 - center) / deviation) if clip else u

    def init(key: Any, labels: Any) -> State:
        u = project(jax.random.normal(key, (len(labels), *shape)))
        return State(u, adam.init(u))

    def step(key: Any, state: State, labels: Any) -> tuple[State, Any]:
        move, mirror = jax.random.split(key)
        shift = jax.random.randint(move, (2,), -jitter, jitter + 1)
        flipped = jax.random.bernoulli(mirror, flip)

        def total(u: Any) -> tuple[Any, Any]:
            u = jnp.roll(u, shift, (1, 2))
            u = jnp.where(flipped, u[:, :, ::-1], u)
            logits, features = jax.vmap(lambda image: view.apply(view.params, image))(show(u))
            identity = jnp.mean(jax.vmap(cross_entropy)(logits, labels))
            distance = moment_distance(features, statistics, first) if statistics else jnp.zeros(())
            size = jnp.mean(jax.vmap(_norm)(u))
            loss = identity + variation * total_variation(u) + norm * size + moments * distance
            if student is not None:
                answers = (jax.nn.softmax(told / temperature) for told in (logits, jax.vmap(student)(show(u))))
                loss += competition * (1.0 - jnp.mean(jax.vmap(jensen_shannon)(*answers)))
            return loss, (identity, distance)

        (loss, (identity, distance)), gradient = jax.value_and_grad(total, has_aux=True)(state.u)
        updates, optimizer = adam.update(gradient, state.optimizer)
        u = project(optax.apply_updates(state.u, updates))
        return State(u, optimizer), info(loss, identity=identity, moments=distance)

    return Attack(
        lambda fitted: Process(init, step, lambda state: jnp.clip(show(state.u), 0.0, 1.0), steps),
        observes=CARD.observes,
    )


def _check_layers(features: Any, statistics: Any) -> None:
    """Refuse a target of which a BatchNorm layer, or every one, is not shown: its term would be left out."""
    shown = {tuple(name.split("/")[2:]) for name in features if name.startswith("batch_norm/")}
    paths = {
        tuple(entry.key for entry in path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(statistics)
        if path[-1].key in ("mean", "var")
    }
    for path in sorted(paths - shown) or [()] * (not shown):
        shown_feature(features, "/".join(("batch_norm/<i>", *(path or ("<path>",)))), "moments")


def _norm(x: Any) -> Float[Array, ""]:
    # The square root of zero has no slope, and a flat image no differences.
    return jnp.sqrt(jnp.sum(x**2) + 1e-12)
