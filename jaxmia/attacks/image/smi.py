"""SMI: descent on the pixels of a transformer's input, of which fewer and fewer patches are kept.

Hu, Wei, Shen, Wang, Li, Yuan, Tao, "Sparse Model Inversion: Efficient Inversion of Vision Transformers for Data-Free
Applications", ICML 2024 (https://arxiv.org/abs/2510.27186). DeepInversion without BatchNorm, min over u of

    CE(f(x), y) + variation * R_TV(u),   x = center + deviation * u,

by Adam, x rolled and mirrored at random. At given steps the share of the patches that the class token attends to least (the
last block, mean over heads) is dropped: from then on they are neither shown to the model nor changed. What is read out has
`center` in their place.

What differs. Dropped patches are masked and not taken out, since shapes are fixed: images are those of the paper, but not
a step gets faster, which is the point of the paper. The released code goes on smoothing dropped patches, and masks the
result by one more ranking of all of them; here they rest, and those dropped are those masked. Dropped patches are black
there and of color `center` here. As released, rolls are by pixels and the mask follows by the nearest whole patch (half a
patch is rounded to even here, up there), the step that ranks neither rolls nor mirrors (there the next one does not
either), and the last iterate is kept. The optional prior by the BatchNorm of another network is not here.

The released R_TV is one norm over the whole batch, with weight 1e-4 beside a cross entropy that is a mean over the batch.
That is weight 1e-4 * sqrt(batch) for an image alone, if images of a batch are about equally rough. The released batches
have 100 images, hence the default of `variation`, or 32 (then 5.7e-4).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature

__all__ = ["CARD", "smi"]

CARD = Card(
    title="SMI",
    paper="Hu, Wei, Shen, Wang, Li, Yuan, Tao. Sparse Model Inversion. ICML 2024",
    url="https://arxiv.org/abs/2510.27186",
    year=2024,
    modality="image",
    access=Access.WEIGHTS,
    recovers="the patches of an image of a class that a vision transformer attends to",
    knows="nothing",
)


class State(NamedTuple):
    u: Float[Array, "h w c"]
    optimizer: Any
    kept: Bool[Array, "rows columns"]  # patches
    count: Int[Array, ""]  # steps taken


def smi(
    oracle: Oracle,
    shape: tuple[int, int, int],
    *,
    steps: int = 4000,
    rate: Scalar = 0.25,
    momentum: tuple[Scalar, Scalar] = (0.5, 0.99),
    variation: Scalar = 1e-3,
    stops: tuple[int, ...] = (50, 100, 200, 300),
    shares: tuple[float, ...] = (0.3, 0.3, 0.3, 0.3),
    jitter: int = 28,
    flip: Scalar = 0.5,
    center: Scalar = 0.45,
    deviation: Scalar = 0.225,
) -> Attack:
    """The attack; a case is a class index, the output an image in [0, 1].

    Args:
      oracle: white-box access to a vision transformer of square patches, such as `models.ViT`, that reads
        `{"image", "kept"}` and shows the feature "attention".
      shape: (height, width, channels) of an image.
      steps: iterations.
      rate: Adam's learning rate, in units of u.
      momentum: Adam's betas.
      variation: weight of R_TV, the norms of the differences between neighbors, across, down and along both diagonals.
      stops: numbers of steps, rising, after which patches are dropped; none inverts the whole image.
      shares: of the patches that are left, dropped at each of them, in [0, 1).
      jitter: most pixels that the image is rolled by, each way.
      flip: probability of a mirror image.
      center: image at u = 0.
      deviation: image units of one unit of u.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a target that does not show its attention; stops and shares out of range, a negative jitter.
    """
    view: Weights = lower(oracle, CARD.access, "image/smi")
    if len(stops) != len(shares) or list(stops) != sorted(set(stops)) or not all(0 <= share < 1 for share in shares):
        raise ValueError(f"stops: {stops}, shares: {shares}; legal is rising steps, a share in [0, 1) for each")
    if jitter < 0:
        raise ValueError(f"jitter: {jitter}; legal is 0 or more")
    shown = jax.eval_shape(lambda: view.apply(view.params, jnp.zeros(shape)).features)
    patches = shown_feature(shown, "attention").size
    patch = math.isqrt(shape[0] * shape[1] // patches)
    grid, left = (shape[0] // patch, shape[1] // patch), [patches]
    for share in shares:
        left.append(max(1, int(left[-1] * (1.0 - share))))
    adam, ranks, left = optax.adam(rate, *momentum), jnp.asarray(stops, jnp.int32), jnp.asarray(left)

    def pixels(kept: Any) -> Any:
        return jnp.repeat(jnp.repeat(kept, patch, 0), patch, 1)[..., None]

    def init(key: Any, label: Any) -> State:
        del label
        u = project(jax.random.normal(key, shape))
        return State(u, adam.init(u), jnp.ones(grid, bool), jnp.zeros((), jnp.int32))

    def project(u: Any) -> Any:
        return jnp.clip(u, -center / deviation, (1.0 - center) / deviation)

    def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
        move, mirror = jax.random.split(key)
        rank = jnp.any(state.count + 1 == ranks)
        shift = jnp.where(rank, 0, jax.random.randint(move, (2,), -jitter, jitter + 1))
        flipped = jax.random.bernoulli(mirror, flip) & ~rank

        def turned(plane: Any, by: Any) -> Any:
            plane = jnp.roll(plane, by, (0, 1))
            return jnp.where(flipped, plane[:, ::-1], plane)

        def total(u: Any) -> Any:
            seen = turned(state.kept, jnp.round(shift / patch).astype(jnp.int32))
            candidate = {"image": center + deviation * turned(u, shift), "kept": seen.reshape(-1)}
            out = view.apply(view.params, candidate)
            identity = cross_entropy(out.logits, label)
            return identity + variation * _variation(u), (identity, out.features["attention"])

        (loss, (identity, attention)), gradient = jax.value_and_grad(total, has_aux=True)(state.u)
        updates, opt = adam.update(gradient, state.optimizer)
        u = jnp.where(pixels(state.kept), project(optax.apply_updates(state.u, updates)), state.u)
        places = jnp.argsort(jnp.argsort(-jnp.where(state.kept, attention.reshape(grid), -1.0).reshape(-1)))
        fewer = (places < left[jnp.sum(state.count + 1 >= ranks)]).reshape(grid)
        kept = jnp.where(rank, state.kept & fewer, state.kept)
        return State(u, opt, kept, state.count + 1), info(loss, identity=identity, patches=jnp.sum(state.kept))

    def read(state: State) -> Any:
        return jnp.where(pixels(state.kept), center + deviation * state.u, center)

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes)


def _variation(u: Float[Array, "h w c"]) -> Float[Array, ""]:
    """R_TV."""
    pairs = ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:]), (u[1:, :-1], u[:-1, 1:]), (u[:-1, :-1], u[1:, 1:]))
    # The square root of zero has no slope.
    return sum((jnp.sqrt(jnp.sum((a - b) ** 2) + 1e-12) for a, b in pairs), jnp.zeros(()))
