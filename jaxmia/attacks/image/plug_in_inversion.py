"""Plug-in Inversion: no regularizer, but an image that grows from its middle and is judged in shifted colors.

Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein, "Plug-In Inversion: Model-Agnostic Inversion for Vision with Data
Augmentations", ICML 2022 (https://arxiv.org/abs/2201.12961), algorithm 1. In stage k of K an image of relative size r_k,
from `first` to 1, descends on

    mean over e of CE(f(A_e(x)), y),   A_e(x) = sigma_e * jitter(x) + mu_e per channel (ColorShift),
    mu_e ~ U(-alpha, alpha), log sigma_e ~ U(-beta, beta),

e = 1 ... E (Ensemble); jitter rolls it at random. Between stages it is enlarged (Zoom) and surrounded by uniform noise
(Centering), which share the growth of its size. Adam starts anew in every stage, its rate falls as a cosine.

What differs. A stage's image is shown to the target at full size, so that targets of a fixed input work; sizes need not be
whole pixels. The state keeps it in the middle of a full-size canvas. `jitter` counts pixels of the full size at every
stage, a seventh of 224; the released code rolls the small image, so that 32 are more than half of its first 56 pixels. Of
a target of 64 pixels the default is half the image at every stage: take less there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import sliced

__all__ = ["CARD", "color_shift", "enlarge", "grow", "plug_in_inversion"]

CARD = Card(
    title="Plug-in Inversion",
    paper="Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein. Plug-In Inversion. ICML 2022",
    url="https://arxiv.org/abs/2201.12961",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="an image of a class, as the target answers for it in any colors",
    knows="nothing",
)

Image = Float[Array, "h w c"]


class State(NamedTuple):
    canvas: Image
    optimizer: Any
    count: Int[Array, ""]  # steps taken


def color_shift(key: Any, image: Image, alpha: Scalar, beta: Scalar) -> Image:
    """ColorShift: every channel times e^U(-beta, beta), plus U(-alpha, alpha)."""
    mean, deviation = jax.random.uniform(key, (2, image.shape[-1]), minval=-1.0)
    return image * jnp.exp(beta * deviation) + alpha * mean


def enlarge(image: Image, factor: Scalar) -> Image:
    """The image `factor` times as large about its middle, cut to its shape; bilinear."""
    size = jnp.asarray(image.shape[:2])
    scale = jnp.full(2, factor, jnp.float32)
    move = size * (1.0 - scale) / 2.0
    return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, move, "linear", antialias=False)


def grow(key: Any, canvas: Image, old: Scalar, new: Scalar, centering: Scalar) -> Image:
    """An image of relative size `old` becomes one of size `new`: enlarged, and framed by noise.

    Args:
      key: draws the noise.
      canvas: holds it in its middle.
      old: relative size, above 0.
      new: likewise, at least as large.
      centering: share of the growth that is frame.
    """
    inner = new - centering * (new - old)
    within = [jnp.abs((jnp.arange(n) + 0.5) / n - 0.5) <= inner / 2 for n in canvas.shape[:2]]
    inside = within[0][:, None, None] & within[1][None, :, None]
    return jnp.where(inside, enlarge(canvas, inner / old), jax.random.uniform(key, canvas.shape))


def plug_in_inversion(
    oracle: Oracle,
    shape: tuple[int, int, int],
    *,
    stages: int = 7,
    stage_steps: int = 400,
    first: Scalar = 0.25,
    centering: Scalar = 0.5,
    rate: Scalar = 0.01,
    ensemble: int = 32,
    jitter: int = 32,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
) -> Attack:
    """The attack; a case is a class index, the output an image of `shape` in [0, 1].

    Args:
      oracle: white-box access.
      shape: (height, width, channels) of the image.
      stages: K; sizes grow evenly from `first` to 1, and one stage has full size from the start.
      stage_steps: iterations of each.
      first: size of the first image, in (0, 1], relative to `shape`.
      centering: share of a growth that is new frame; the rest is zoom. 0 is Zoom alone, 1 Centering alone.
      rate: Adam's learning rate at the start of a stage, in image units.
      ensemble: E, copies in colors of their own.
      jitter: most pixels that the copies are rolled by, all alike, each way.
      alpha: bound of the shift of a channel.
      beta: bound of the logarithm of its factor.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for stages, stage_steps or ensemble below 1, a negative jitter.
    """
    view: Weights = lower(oracle, CARD.access, "image/plug_in_inversion")
    for name, value, least in (
        ("stages", stages, 1), ("stage_steps", stage_steps, 1), ("ensemble", ensemble, 1), ("jitter", jitter, 0)
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{name}: {value}; legal is {least} or more")
    share = np.linspace(0.0, 1.0, stages, dtype=np.float32) if stages > 1 else np.ones(1, np.float32)
    adam = optax.adam(lambda count: rate * (1.0 + jnp.cos(jnp.pi * count / stage_steps)) / 2.0, 0.5, 0.99)

    def size(stage: Any) -> Any:
        return first + (1.0 - first) * jnp.asarray(share)[stage]

    def shown(canvas: Any, stage: Any) -> Any:
        return enlarge(canvas, 1.0 / size(stage))

    def init(key: Any, label: Any) -> State:
        del label
        canvas = jax.random.uniform(key, shape)
        return State(canvas, adam.init(canvas), jnp.zeros((), jnp.int32))

    def step(key: Any, state: State, label: Any) -> tuple[State, Any]:
        noise, move, colors = jax.random.split(key, 3)
        stage = state.count // stage_steps
        begins = (state.count % stage_steps == 0) & (stage > 0)
        grown = grow(noise, state.canvas, size(jnp.maximum(stage - 1, 0)), size(stage), centering)
        canvas = jnp.where(begins, grown, state.canvas)
        blank = adam.init(canvas)
        optimizer = jax.tree.map(lambda new, old: jnp.where(begins, new, old), blank, state.optimizer)
        shift = jax.random.randint(move, (2,), -jitter, jitter + 1)

        def loss(canvas: Any) -> Any:
            image = jnp.roll(shown(canvas, stage), shift, (0, 1))

            def one(key: Any) -> Any:
                return cross_entropy(view.answer(key, color_shift(key, image, alpha, beta)), label)

            return jnp.mean(sliced(one, jax.random.split(colors, ensemble), gradient=True))

        value, gradient = jax.value_and_grad(loss)(canvas)
        updates, optimizer = adam.update(gradient, optimizer)
        moved: Any = optax.apply_updates(canvas, updates)
        canvas = jnp.clip(moved, 0.0, 1.0)
        return State(canvas, optimizer, state.count + 1), info(value, size=size(stage))

    def read(state: State) -> Any:
        last = jnp.clip((state.count - 1) // stage_steps, 0, stages - 1)
        return jnp.clip(shown(state.canvas, last), 0.0, 1.0)

    return Attack(
        lambda fitted: Process(init, step, read, stages * stage_steps),
        observes=CARD.observes,
    )
