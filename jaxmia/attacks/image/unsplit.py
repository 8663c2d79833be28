"""UnSplit: the features that a client sent and its architecture are enough to guess both its weights and its input.

Erdogan, Kupcu, Cicek, "UnSplit: Data-Oblivious Model Inversion, Model Stealing, and Label Inference Attacks Against Split
Learning", WPES 2022 (https://arxiv.org/abs/2108.09033), Algorithm 1. A server that received z = f_1(x) draws a clone f~ of
the client's part and an image x~ of gray, and descends on one while it holds the other, in turns:

    x~ <- Adam of |f~_theta(x~) - z|^2 + lambda_TV TV(x~),    theta <- Adam of |f~_theta(x~) - z|^2.

It asks the client nothing and has no data, so that the oracle grants nothing. What is recovered is at best what the
architecture leaves undecided: a clone that negates its kernels explains the negative of an image as well.

What differs. |.|^2 and TV (of squared differences) are means, as released; the released code also adds the mean of x~^2
with weight 1 (`norm=1.0`), and lets the clone of one image go on with the next: here each case has its own. Adam is AMSGrad
in PyTorch's form (`recipes.amsgrad`), as released. One step here is one descent on either. The clone of a case has its own
kernels, and a batch of those is slow on CPU: let `Plan.chunk` be 1 there. Only the result is clipped to [0, 1]. The paper's
label inference is another attack.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.oracle import Access, Oracle, lower
from jaxmia.priors import standardized
from jaxmia.recipes import amsgrad

__all__ = ["CARD", "unsplit"]

CARD = Card(
    title="UnSplit",
    paper="Erdogan, Kupcu, Cicek. UnSplit: Data-Oblivious Attacks Against Split Learning. WPES 2022",
    url="https://arxiv.org/abs/2108.09033",
    year=2022,
    modality="image",
    access=Access.NONE,
    recovers="the image whose smashed features a client sent",
    knows="the architecture of the client's part",
    observes="features",
)


class State(NamedTuple):
    image: Float[Array, "h w c"]
    image_optimizer: Any
    clone: Any  # variables
    clone_optimizer: Any
    count: Int[Array, ""]


def unsplit(
    oracle: Oracle,
    client: Any,
    shape: tuple[int, int, int],
    *,
    rounds: int = 1000,
    image_steps: int = 100,
    clone_steps: int = 100,
    rate: Scalar = 1e-3,
    variation: Scalar = 0.1,
    norm: Scalar = 0.0,
) -> Attack:
    """The attack; a case is what a client sent for one image, the output an image in [0, 1].

    Args:
      oracle: any; nothing of it is used.
      client: a Linen module from images `[n, h, w, c]` to features `[n, ...]` of the shape of a case, of the architecture
        of the client's part. BatchNorm in it stays in inference mode.
      shape: (height, width, channels) of the image, at least 2 x 2.
      rounds: turns of both.
      image_steps: steps on the image in a round.
      clone_steps: steps on the clone in a round.
      rate: AMSGrad's learning rate of both, in image units and in units of weights.
      variation: lambda_TV.
      norm: weight of the mean of x~^2.

    Raises:
      ValueError: for a round without steps on both.
    """
    lower(oracle, CARD.access, "image/unsplit")
    if image_steps < 1 or clone_steps < 1:
        raise ValueError(f"image_steps, clone_steps: {image_steps}, {clone_steps}; legal is 1 or more of each")
    prior, optimizer = standardized(shape, variation=variation, norm=norm, start=0.5), amsgrad(rate)

    def init(key: Any, sent: Any) -> State:
        del sent
        image = prior.init(key)
        clone = client.init(key, image[None], train=False)
        return State(image, optimizer.init(image), clone, optimizer.init(clone["params"]), jnp.zeros((), jnp.int32))

    def step(key: Any, state: State, sent: Any) -> tuple[State, Any]:
        del key

        def loss(image: Any, params: Any) -> Any:
            features = client.apply({**state.clone, "params": params}, image[None], train=False)[0]
            far = jnp.mean((features - sent) ** 2)
            return far + prior.penalty(image, image), far  # the penalty has no gradient by the clone

        both = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (total, far), (by_image, by_clone) = both(state.image, state.clone["params"])
        update, image_optimizer = optimizer.update(by_image, state.image_optimizer)
        moved: Any = optax.apply_updates(state.image, update)
        on_image = state._replace(image=moved, image_optimizer=image_optimizer)
        update, clone_optimizer = optimizer.update(by_clone, state.clone_optimizer)
        clone = {**state.clone, "params": optax.apply_updates(state.clone["params"], update)}
        on_clone = state._replace(clone=clone, clone_optimizer=clone_optimizer)
        first = state.count % (image_steps + clone_steps) < image_steps
        new = jax.tree.map(lambda a, b: jnp.where(first, a, b), on_image, on_clone)
        return new._replace(count=state.count + 1), info(total, identity=far)

    def read(state: State) -> Any:
        return jnp.clip(state.image, 0.0, 1.0)

    process = Process(init, step, read, rounds * (image_steps + clone_steps))
    return Attack(lambda fitted: process, observes=CARD.observes)
