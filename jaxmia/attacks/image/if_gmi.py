"""IF-GMI: search the latents of a generator, then the features between its blocks, each near where it began.

Qiu, Fang, Yu, Chen, Qiu, Xia, "A Closer Look at GAN Priors: Exploiting Intermediate Features for Enhanced Model Inversion
Attacks", ECCV 2024 (https://arxiv.org/abs/2407.13863), section 3. A generator is a chain of blocks, f_i = G_i(f_{i-1}, w).
Stage 0 minimizes the Poincare distance between the target's logits of G(w) and the label over w, as PPA does and from the
w that PPA's initial selection finds. Stage i = 1 .. L starts from f_i as the stage before left it, and minimizes over w
and f_i together, fed to what follows block i; after every step of Adam the change of w and that of f_i since the stage
began are each projected onto an l1 ball. What lies below block i is not touched any more.

Here a stage is the pair (v_i, d_i) of those two changes, which begin at zero: w of stage i is w_0 + v_0 + ... + v_i, and
block i hands on G_i(f_{i-1}, w of stage i - 1) + d_i. All stages are thus one forward pass, of which one pair moves.

What differs. Stages and radii are those of the released code for CelebA (for FaceScrub: 50, 10, 10, ... steps). A case is
one image, and its share of the paper's 5,000 latents for 50 images of a class is a pool of 100. The released code
drops what a StyleGAN2 has painted before block i; here that goes on (`priors.chain`), so that a stage starts from the
very image with which the one before ended. Center crop, resize, truncation and the latent W belong to the prior.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Prior, Process, Scalar, info
from jaxmia.objectives import poincare
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import selected
from jaxmia.recipes.augment import look

__all__ = ["CARD", "if_gmi", "to_l1_ball"]

CARD = Card(
    title="IF-GMI",
    paper="Qiu, Fang, Yu, Chen, Qiu, Xia. A Closer Look at GAN Priors. ECCV 2024",
    url="https://arxiv.org/abs/2407.13863",
    year=2024,
    modality="image",
    access=Access.WEIGHTS,
    recovers="an image of a class, near what a generator trained elsewhere can draw",
    knows="images of the same kind",
)


class State(NamedTuple):
    latent: Float[Array, " d"]  # w_0
    moves: tuple[Any, ...]  # of each stage (v_i, d_i); the first has no d_i
    optimizers: tuple[Any, ...]
    steps: Int[Array, ""]  # done so far


def to_l1_ball(x: Float[Array, "..."], radius: Scalar) -> Float[Array, "..."]:
    """The nearest point of {|x|_1 <= radius} (Duchi et al., ICML 2008, figure 1): all shrink by what makes it fit.

    >>> to_l1_ball(jnp.asarray([3.0, -1.0, 0.5]), 3.0).tolist()
    [2.5, -0.5, 0.0]
    """
    sizes = jnp.sort(jnp.abs(x).ravel(), descending=True)
    excess, count = jnp.cumsum(sizes) - radius, jnp.arange(1, sizes.size + 1)
    kept = jnp.maximum(jnp.sum(sizes * count > excess), 1)  # of the largest, so many stay above zero
    shrink = jnp.maximum(excess[kept - 1] / kept, 0.0)
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - shrink, 0.0)


def if_gmi(
    oracle: Oracle,
    blocks: Prior,
    *,
    steps: tuple[int, ...] = (70, 25, 25, 25, 25),
    radii: tuple[Scalar, ...] = (1000.0, 2000.0, 3000.0, 4000.0, 5000.0),
    rate: Scalar = 0.005,
    momentum: tuple[Scalar, Scalar] = (0.1, 0.1),
    crop: tuple[Scalar, Scalar] = (0.9, 1.0),
    pool: int = 100,
    starts: int = 1,
    mirror: bool = True,
) -> Attack:
    """The attack; a case is a class index, the output a candidate.

    Args:
      oracle: white-box access.
      blocks: a prior whose generator is a chain of blocks (`priors.chain`, or `priors.cut` of any prior).
      steps: of Adam, for w and then for each feature, from that of the first block on.
      radii: of the l1 balls, of the change of w and of that of the feature, by stage; in units of w and of the feature.
      rate: Adam's learning rate.
      momentum: Adam's betas.
      crop: least and largest share of the area that the target is shown while optimizing.
      pool: latents of the initial selection.
      starts: of them that are optimized; the image is kept that the target believes most.
      mirror: whether the initial selection looks at mirror images, too.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: unless there are as many radii as stages, as many blocks or more, and 1 <= starts <= pool.
    """
    view: Weights = lower(oracle, CARD.access, "image/if_gmi")
    stages = len(steps)
    if len(radii) != stages or not 1 <= stages <= len(blocks.blocks) or min(steps) < 0:
        raise ValueError(
            f"steps: {steps}; legal is one number from 0 on for each of {len(radii)} radii, and no more of them than the "
            f"generator's {len(blocks.blocks)} blocks"
        )
    ends, optimizer = np.cumsum(steps), optax.adam(rate, *momentum)

    def synthesize(latent: Any, moves: Sequence[Any]) -> Any:
        w, feature = latent + moves[0][0], None
        for i, block in enumerate(blocks.blocks, start=1):
            feature = block(feature, w)
            if i < stages:
                v, d = moves[i]
                w, feature = w + v, feature._replace(map=feature.map + d)
        return feature

    def init(key: Any, case: Any) -> State:
        del case
        latent = blocks.project(blocks.init(key))
        still: list[Any] = [(jnp.zeros_like(latent), ())]
        feature = None
        for block in blocks.blocks[: stages - 1]:
            feature = jax.eval_shape(block, feature, latent)
            still.append((jnp.zeros_like(latent), jnp.zeros(feature.map.shape, feature.map.dtype)))
        return State(latent, tuple(still), tuple(map(optimizer.init, still)), jnp.zeros((), jnp.int32))

    def step(key: Any, state: State, label: Any) -> Any:
        ask, cut = jax.random.split(key)

        def distance(moves: Any) -> Any:
            return poincare(view.answer(ask, look(cut, synthesize(state.latent, moves), scale=crop)), label)

        loss, gradients = jax.value_and_grad(distance)(state.moves)
        stage, changed = jnp.sum(state.steps >= ends), []
        for i, (moves, gradient, memory) in enumerate(zip(state.moves, gradients, state.optimizers)):
            updates, after = optimizer.update(gradient, memory, moves)
            moved = jax.tree.map(lambda leaf: to_l1_ball(leaf, radii[i]), optax.apply_updates(moves, updates))
            changed.append(
                jax.tree.map(lambda new, old: jnp.where(stage == i, new, old), (moved, after), (moves, memory))
            )
        moves, optimizers = zip(*changed)
        return State(state.latent, moves, optimizers, state.steps + 1), info(loss)

    def read(state: State) -> Any:
        return synthesize(state.latent, state.moves)

    def doubt(state: State, label: Any) -> Any:
        x = read(state)
        shown = jnp.stack([x, x[:, ::-1]]) if mirror else x[None]
        logits = jax.vmap(lambda one: view.answer(jax.random.key(0), one))(shown)
        return -jnp.mean(jax.nn.softmax(logits)[:, label])

    one = Process(init, step, read, int(ends[-1]))
    return Attack(
        lambda fitted: selected(one, pool=pool, starts=starts, first=doubt, last=doubt),
        observes=CARD.observes,
    )
