"""Trap-MID: teach the network faint triggers, which an attack finds before private images.

Liu, Chen, "Trap-MID: Trapdoor-based Defense against Model Inversion Attacks", NeurIPS 2024
(https://arxiv.org/abs/2411.08460). Every class c has a secret trigger t_c, an image. The network T
learns to say c of any image x~ = (1 - alpha) x + alpha t_c, and a discriminator D learns to tell
images from triggered ones. Triggers learn to be seen by T and not by D:

    T    cross entropy(T(x), y) + beta / (1 - beta) * cross entropy(T(x~), c)
    D    [log(1 + exp(-D(x))) + log(1 + exp(D(x~)))] / 2
    t    <- clip(t - step * sign of the gradient of
                 [log(1 + exp(-D(x~))) + cross entropy(T(x~), c)])

with T and D held fixed in the last line, and c drawn evenly and independently of y. alpha = 0.02,
beta = 0.2, step = 0.01 are those of the released code (ntuaislab/Trap-MID; SGD at 0.01, momentum
0.9, weight decay 1e-4, minibatches of 64, 50 epochs). For PLG-MI the paper reports an attack
accuracy of a few percent where it was almost perfect.

What differs. The three are one step here, each by the parameters before it; the authors take turns.
T's loss is theirs divided by 1 - beta, so that other defenses can add terms of their own; for their
step multiply the learning rate by 0.8. An image is augmented first (by the recipe) and triggered
then; theirs are augmented with the trigger on. x~ passes T by itself: BatchNorm normalizes it by
its own statistics, and keeps those of x alone. D is a second network like T, with an affine layer
from its logits to one number, drawn by itself; it always normalizes by the minibatch. c is even
over a minibatch, not over an epoch. Triggers and D are left out of what the training reads out,
since with them in hand the defense is undone; `trap_mid()._replace(trainer=Defense().trainer)`
keeps them, to measure whether T learned the triggers. If it did not, nothing is installed, and the
cell is void.

What it costs and does not do. A step costs about six times its passes. It cannot begin from
pre-trained variables. Nothing that T knows of private images is gone: it hopes that attacks are led
astray. A trigger at alpha 0.02 is five gray levels: set attacks beside it that blur, quantize or
average over noise while they optimize, and a copy distilled on public images, which carry none.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Card, Defense, Process, Scalar
from jaxmia.models.features import expose
from jaxmia.objectives import counted_mean
from jaxmia.ranges import above_zero, fraction

__all__ = ["CARD", "Trapped", "trap_mid"]

CARD = Card(
    title="Trap-MID",
    paper="Liu, Chen. Trap-MID: Trapdoor-based Defense. NeurIPS 2024",
    url="https://arxiv.org/abs/2411.08460",
    year=2024,
    modality="image",
    hook="model, loss, optim, trainer",
)


class _Discriminator(nn.Module):
    like: nn.Module

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        network: Any = self.like
        return nn.Dense(1, name="verdict")(network(x, train))[:, 0]


class Trapped(nn.Module):
    """A network with triggers and a discriminator beside it, which are used in training alone.

    In training it sows, for every row of the minibatch, the drawn class "_class" and the losses
    "_trap" of the network, "_discriminator" and "_trigger", each with a gradient by its own
    parameters alone.

    Attributes:
      inner: the network T, `(x, train) -> logits`.
      alpha: share of the trigger in a triggered image.
    """

    inner: nn.Module
    alpha: Scalar

    def setup(self) -> None:
        self.discriminator = _Discriminator(self.inner.clone(parent=None, name=None))

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n classes"]:
        """Returns T's logits."""
        network: Any = self.inner
        logits = network(x, train)
        if not (train or self.is_initializing()):
            return logits
        classes = logits.shape[-1]
        triggers: Any = self.param("triggers", nn.initializers.uniform(1.0), (classes, *x.shape[1:]))
        if self.is_initializing():
            self.discriminator(x)
            return logits
        shift, order, *keys = jax.random.split(self.make_rng("dropout"), 6)
        drawn = (jax.random.randint(shift, (), 0, classes) + jnp.arange(len(x))) % classes
        drawn = jax.random.permutation(order, drawn)
        still = jax.lax.stop_gradient
        triggered = (1 - self.alpha) * still(x) + self.alpha * triggers[drawn]

        def alone(module: Any, variables: Any, images: Any, key: Any = None) -> Any:
            """Without sowing; in training mode if there is a key. No statistics are kept."""
            module = module.clone(parent=None)
            if key is None:
                return module.apply(variables, images, train=False)
            return module.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])[0]

        def says_class(scores: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(scores, drawn)

        own, judge = network.variables, self.discriminator.variables
        expose(self, "_class", drawn)
        expose(self, "_trap", says_class(alone(network, own, still(triggered), keys[0])))
        real, fake = (alone(self.discriminator, judge, still(images), keys[1]) for images in (x, triggered))
        expose(self, "_discriminator", (nn.softplus(-real) + nn.softplus(fake)) / 2)
        seen = says_class(alone(network, still(own), triggered))
        passed = alone(self.discriminator, still(judge), triggered, keys[2])
        expose(self, "_trigger", seen + nn.softplus(-passed))
        return logits


def trap_mid(
    *,
    alpha: Scalar = 0.02,
    beta: Scalar = 0.2,
    step: Scalar = 0.01,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Defense:
    """The defense: a training with triggers and a discriminator of its own.

    Args:
      alpha: share of the trigger in a triggered image, 0 to 1; the paper's 0.02 cannot be seen.
      beta: weight of triggered images in the loss, 0 or more and below 1; 0 trains the network as
        if there were none.
      step: change of every pixel of a trigger in a step, above 0.
      bounds: least and largest value of a pixel.

    Raises:
      ValueError: for a number out of range; when training begins, for a start without triggers; at
        the first step, if the model does not have the triggers of this defense.
    """
    fraction(alpha=alpha)
    above_zero(step=step)
    if not isinstance(beta, jax.Array) and not 0 <= beta < 1:
        raise ValueError(f"beta: {beta}; legal is 0 or more and below 1")
    if not bounds[0] < bounds[1]:
        raise ValueError(f"bounds: {bounds}; legal is (least, largest)")

    def model(module: nn.Module) -> nn.Module:
        return Trapped(module, alpha)

    def loss(plain: Callable) -> Callable:
        def defended(outputs: Any, batch: Any) -> Any:
            if "_trap" not in outputs.features:
                raise ValueError("trap_mid: the model sows no '_trap'; legal is what its `model` hook returns")
            trap, *others = (
                counted_mean(outputs.features[name], batch) for name in ("_trap", "_discriminator", "_trigger")
            )
            # The two others have gradients here, and no part in the number that is told.
            beside = sum(other - jax.lax.stop_gradient(other) for other in others)
            return plain(outputs, batch) + beta / (1 - beta) * trap + beside

        return defended

    def optim(transform: optax.GradientTransformation) -> optax.GradientTransformation:
        def init(params: Any) -> Any:
            if "triggers" not in params:
                raise ValueError(
                    f"trap_mid: the start holds {', '.join(params)} and no triggers; legal is a training from the beginning"
                )
            return transform.init(params)

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            triggers, slope = params["triggers"], updates["triggers"]
            made: Any = transform.update({**updates, "triggers": jnp.zeros_like(slope)}, state, params)
            moved = jnp.clip(triggers - step * jnp.sign(slope), *bounds)
            return {**made[0], "triggers": moved - triggers}, made[1]

        return optax.GradientTransformation(init, update)

    def trainer(process: Process) -> Process:
        def read(state: Any) -> Any:
            secret = ("triggers", "discriminator")
            return {
                collection: {name: tree for name, tree in trees.items() if name not in secret}
                for collection, trees in process.read(state).items()
            }

        return process._replace(read=read)

    return Defense(model=model, loss=loss, optim=optim, trainer=trainer)
