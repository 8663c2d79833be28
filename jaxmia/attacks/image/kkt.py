"""Dataset reconstruction: the training images that make a network's parameters a stationary point.

Haim, Vardi, Yehudai, Shamir, Irani, "Reconstructing Training Data from Trained Neural Networks", NeurIPS 2022
(https://arxiv.org/abs/2206.07758). A homogeneous network trained to a small loss ends, in direction, in a KKT point of the
margin maximization (Theorem 3.1): there are l_i >= 0 with theta = sum_i l_i y_i grad_theta f(x_i; theta). With m
candidates, twice as many as there are training images, section 4 minimizes over all x_i and l_i

    |theta - sum_i l_i grad_theta margin_i(x_i)|^2 + a_1 sum_i max(least - l_i, 0) + a_2 (distance of pixels from [0, 1]).

margin_i = f_{y_i} - max_{j != y_i} f_j is that of Buzaglo, Haim, Yehudai, Vardi, Oz, Nikankin, Irani, "Deconstructing Data
Reconstruction: Multiclass, Weight Decay and General Losses", NeurIPS 2023 (https://arxiv.org/abs/2307.01827); with two
classes it is y f. Weight decay leads to such a point as well, whatever the loss. ReLU's derivative is a step, which
gives no gradient by x: `network` is the same network with `softened` ReLUs, sigmoid(alpha x) for the step.

The equation has many solutions (https://arxiv.org/abs/2509.21296): two candidates that share an image, for one, may be off
in opposite ways. Without a bias in the first layer it determines l_i x_i alone, of images less what the network takes off.
Which candidates are training images is not told; those of a large multiplier are more likely to be.

All images of a network belong together, so a case is the labels of all candidates.

What differs. The multipliers are `m` l_i, as released, so that rates and `least` do not depend on m. `released=True`
squares the penalties. The paper's images are less the mean of the data, and candidates start around zero. Here the
network subtracts its own mean, so candidates start at `center`: the image that it takes to zero. Around any other image
the start decides which units of the first layer are active, and nearly all candidates agree on them. The defaults are
those of the released code for MNIST, whose numbers come from a search for each network, but for `multiplier_weight`. The
released code computes in double precision; here the precision is JAX's, which `jax_enable_x64` doubles.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.recipes import sliced

__all__ = ["CARD", "Reconstructed", "kkt", "softened"]

CARD = Card(
    title="Dataset reconstruction",
    paper="Haim, Vardi, Yehudai, Shamir, Irani. Reconstructing Training Data from Trained Neural Networks. NeurIPS 2022",
    url="https://arxiv.org/abs/2206.07758",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="training images, exactly, of a homogeneous network",
    knows="how many training images each class has, at most",
    observes="labels",
)


class Reconstructed(NamedTuple):
    """What is read out.

    Attributes:
      image: candidates, in [0, 1].
      multiplier: m l_i.
    """

    image: Float[Array, "m h w c"]
    multiplier: Float[Array, " m"]


class State(NamedTuple):
    x: Float[Array, "m h w c"]
    multiplier: Float[Array, " m"]
    optimizer: Any


def softened(alpha: Scalar = 150.0) -> Callable[[Any], Any]:
    """ReLU, with sigmoid(alpha x) for its derivative.

    >>> jax.grad(softened(1.0))(0.0).item()
    0.5
    """

    @jax.custom_jvp
    def relu(x: Any) -> Any:
        return jnp.maximum(x, 0.0)

    relu.defjvp(lambda primal, tangent: (relu(*primal), jax.nn.sigmoid(alpha * primal[0]) * tangent[0]))
    return relu


def kkt(
    oracle: Oracle,
    shape: tuple[int, int, int],
    center: Scalar | Float[Array | np.ndarray, "h w c"],
    *,
    network: Callable[[Any, Any], Any] | None = None,
    steps: int = 50_000,
    rate: Scalar = 0.03,
    multiplier_rate: Scalar = 1e-4,
    momentum: Scalar = 0.9,
    spread: Scalar = 0.035,
    least: Scalar = 0.45,
    multiplier_weight: Scalar = 1.0,
    box_weight: Scalar = 1.0,
    released: bool = False,
) -> Attack:
    """The attack; a case is the labels of m candidates, `[m]`, the output `Reconstructed`.

    Args:
      oracle: white-box access to a network without biases (but in its first layer) and BatchNorm, of two logits or more.
      shape: (height, width, channels) of an image.
      center: the image that the network's own mean takes to zero, as an image `[h, w, c]` or one number for all pixels.
        Candidates start around it. It is 0 for a network that subtracts nothing, 0.5 for `models.CenteredInput`.
      network: `(params, x) -> logits` of one image; the target's with softened ReLUs. None takes the target's own.
      steps: iterations.
      rate: SGD's, for the images.
      multiplier_rate: SGD's, for the multipliers.
      momentum: of both, in [0, 1).
      spread: deviation of a pixel at the start.
      least: multipliers below are pushed up.
      multiplier_weight: of that penalty; 5 in the released code.
      box_weight: of the penalty on pixels outside [0, 1].
      released: squared penalties, as in the released code.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a network with BatchNorm, of which no scale of the parameters can be told.
    """
    view: Weights = lower(oracle, CARD.access, "image/kkt")
    if isinstance(view.params, dict) and "batch_stats" in view.params:
        raise ValueError("oracle: it has BatchNorm; legal is a homogeneous network")
    answer = network or (lambda params, x: view.apply(params, x).logits)
    optimizer = optax.multi_transform(
        {"x": optax.sgd(rate, momentum), "multiplier": optax.sgd(multiplier_rate, momentum)},
        {"x": "x", "multiplier": "multiplier"},
    )

    def hinge(excess: Any) -> Any:
        above = jnp.maximum(excess, 0.0)
        return jnp.sum(above**2 if released else above)

    def init(key: Any, labels: Any) -> State:
        draw, weigh = jax.random.split(key)
        x = jnp.asarray(center) + spread * jax.random.normal(draw, (len(labels), *shape))
        multiplier = jax.random.uniform(weigh, (len(labels),))
        return State(x, multiplier, optimizer.init({"x": x, "multiplier": multiplier}))

    def step(key: Any, state: State, labels: Any) -> tuple[State, Any]:
        del key

        def total(free: Any) -> Any:
            x, multiplier = free["x"], free["multiplier"]

            def weighed(params: Any) -> Any:
                logits = sliced(lambda one: answer(params, one), x, gradient=True)
                own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
                margin = jnp.sum(jnp.where(own, logits, 0.0), 1) - jnp.max(jnp.where(own, -jnp.inf, logits), 1)
                return jnp.mean(multiplier * margin)

            left = jax.tree.map(lambda p, g: jnp.sum((p - g) ** 2), view.params, jax.grad(weighed)(view.params))
            stationary = sum(jax.tree.leaves(left), jnp.zeros(()))
            low, outside = hinge(least - multiplier), hinge(x - 1.0) + hinge(-x)
            return stationary + multiplier_weight * low + box_weight * outside, stationary

        free: Any = {"x": state.x, "multiplier": state.multiplier}
        (loss, stationary), gradient = jax.value_and_grad(total, has_aux=True)(free)
        updates, opt = optimizer.update(gradient, state.optimizer)
        free = optax.apply_updates(free, updates)
        return State(free["x"], free["multiplier"], opt), info(loss, stationary=stationary)

    def read(state: State) -> Reconstructed:
        return Reconstructed(jnp.clip(state.x, 0.0, 1.0), state.multiplier)

    return Attack(lambda fitted: Process(init, step, read, steps), observes=CARD.observes)
