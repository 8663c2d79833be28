"""Classifiers by name: an architecture and how it is trained. Configs name these; sizes suit minutes on a CPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia import models
from jaxmia.core import Process
from jaxmia.train import denoising

__all__ = ["EVALUATORS", "TARGETS", "Recipe"]


class Recipe(NamedTuple):
    """One trainable classifier.

    Attributes:
      module: `(classes, image shape) -> Linen module`.
      optimizer: optax transformation.
      steps: minibatches.
      batch_size: images per minibatch.
      augment: `(key, image) -> image` on every training image; None leaves them alone.
      pretrain: processes that run before, each `(module, variables of the one before or None) -> Process`.
    """

    module: Callable[[int, tuple[int, ...]], Any]
    optimizer: optax.GradientTransformation
    steps: int
    batch_size: int
    augment: Callable[[Any, Any], Any] | None = None
    pretrain: tuple[Callable[[Any, Any], Process], ...] = ()


def softmax(*, steps: int = 1000, rate: float = 0.003, momentum: float = 0.9, batch_size: int = 32) -> Recipe:
    """Multinomial regression from zero weights by momentum SGD, so that the weights stay combinations of images."""
    return Recipe(
        lambda classes, shape: models.CenteredInput(models.SoftmaxRegression(classes)),
        optax.sgd(rate, momentum),
        steps,
        batch_size,
    )


def mlp(
    *,
    width: int = 3000,
    steps: int = 800,
    rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.03,
    batch_size: int = 32,
) -> Recipe:
    """Fredrikson et al. 2015: one sigmoid layer of 3000 units. Weight decay wears off the random start."""
    return Recipe(
        lambda classes, shape: models.CenteredInput(models.MLP(classes, width=width)),
        optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum)),
        steps,
        batch_size,
    )


def autoencoder(
    *,
    hidden: tuple[int, ...] = (1000, 300),
    pretrain_steps: int = 300,
    pretrain_rate: float = 1e-3,
    steps: int = 400,
    rate: float = 1e-3,
    batch_size: int = 32,
) -> Recipe:
    """Fredrikson et al. 2015: stacked denoising autoencoder, pre-trained layer by layer, with a softmax on top."""

    def stage(layer: int) -> Callable[[Any, Any], Process]:
        optimizer = optax.adam(pretrain_rate)
        return lambda module, start: denoising(module, layer, optimizer, steps=pretrain_steps, start=start)

    return Recipe(
        lambda classes, shape: models.DenoisingAutoencoderClassifier(classes, shape, hidden),
        optax.adam(rate),
        steps,
        batch_size,
        pretrain=tuple(stage(layer) for layer in range(1, len(hidden) + 1)),
    )


def convnet(
    *,
    widths: tuple[int, ...] = (16, 32, 64),
    hidden: int = 128,
    steps: int = 200,
    rate: float = 1e-3,
    batch_size: int = 32,
) -> Recipe:
    """VGG-like: one convolution, BatchNorm, ReLU and max-pool per stage."""
    stages = tuple((width,) for width in widths)
    return Recipe(
        lambda classes, shape: models.VGG(classes, stages=stages, hidden=hidden),
        optax.adam(rate),
        steps,
        batch_size,
        shift_and_flip,
    )


def resnet(
    *,
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 1,
    steps: int = 200,
    rate: float = 1e-3,
    batch_size: int = 32,
) -> Recipe:
    """Small residual network."""
    return Recipe(
        lambda classes, shape: models.ResNet(classes, widths=widths, blocks=blocks),
        optax.adam(rate),
        steps,
        batch_size,
        shift_and_flip,
    )


def group_norm_cnn(
    *, widths: tuple[int, ...] = (16, 32, 64), steps: int = 500, rate: float = 2e-3, batch_size: int = 32
) -> Recipe:
    """Evaluator unlike every target: GroupNorm, GELU, average pooling, contrast-blind, hard augmentation."""
    return Recipe(
        lambda classes, shape: models.StandardizedInput(models.EvaluatorCNN(classes, widths=widths)),
        optax.adam(rate),
        steps,
        batch_size,
        degrade,
    )


def vgg_hard(
    *, widths: tuple[int, ...] = (16, 32, 64), steps: int = 500, rate: float = 1e-3, batch_size: int = 32
) -> Recipe:
    """Evaluator: VGG-like with BatchNorm and max-pool, hard augmentation; of one family with the target `convnet`."""
    return convnet(widths=widths, steps=steps, rate=rate, batch_size=batch_size)._replace(augment=degrade)


def wide_mlp(*, width: int = 512, steps: int = 800, rate: float = 1e-3, batch_size: int = 32) -> Recipe:
    """Second evaluator: a contrast-blind perceptron with hard augmentation."""
    return Recipe(
        lambda classes, shape: models.StandardizedInput(models.MLP(classes, width=width)),
        optax.adam(rate),
        steps,
        batch_size,
        degrade,
    )


TARGETS = {"softmax": softmax, "mlp": mlp, "autoencoder": autoencoder, "convnet": convnet, "resnet": resnet}
EVALUATORS = {"group_norm_cnn": group_norm_cnn, "vgg_hard": vgg_hard, "wide_mlp": wide_mlp}


def shift_and_flip(key: Any, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Rolls by up to 3 pixels and mirrors half of the time."""
    shift, mirror = jax.random.split(key)
    image = jnp.roll(image, jax.random.randint(shift, (2,), -3, 4), (0, 1))
    return jnp.where(jax.random.bernoulli(mirror), image[:, ::-1], image)


def degrade(key: Any, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Shift, flip, blur, uneven light, lost contrast below and noise above: what reconstructions look like.

    An evaluator that never saw such images rejects good reconstructions for their texture.
    """
    move, blurs, amount, detail, base, slope, light, grain, noise = jax.random.split(key, 9)
    image = shift_and_flip(move, image)
    scale = jnp.std(image) + 1e-3
    coarse = _blur(image, 4.0)
    detailed = (image - coarse) * jax.random.uniform(amount, minval=1.0, maxval=2.5) + jax.random.uniform(base) * coarse
    image = jnp.where(jax.random.bernoulli(detail, 0.4), detailed, image)
    softness = jax.random.uniform(amount, minval=0.5, maxval=2.0)
    image = jnp.where(jax.random.bernoulli(blurs), _blur(image, softness), image)
    down = jnp.linspace(-1.0, 1.0, image.shape[0])[:, None, None]
    across = jnp.linspace(-1.0, 1.0, image.shape[1])[None, :, None]
    tilt = jax.random.normal(slope, (2,))
    image = image + 0.5 * scale * jax.random.bernoulli(light) * (tilt[0] * down + tilt[1] * across)
    return image + scale * jax.random.uniform(grain) * jax.random.normal(noise, image.shape)


def _blur(image: Float[Array, "h w c"], deviation: Any) -> Float[Array, "h w c"]:
    """Separable Gaussian as two banded matrix products: a convolution with a traced kernel per image is slow on CPU."""

    def band(n: int) -> Array:
        gap = jnp.arange(n)[:, None] - jnp.arange(n)[None, :]
        weights = jnp.exp(-(gap**2) / (2.0 * deviation**2))
        return weights / weights.sum(1, keepdims=True)

    return jnp.einsum("ih,hwc,jw->ijc", band(image.shape[0]), image, band(image.shape[1]))
