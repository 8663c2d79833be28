"""Classifiers by name: an architecture and how it is trained. Configs name these; sizes suit minutes on a CPU."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia import models
from jaxmia.core import Process, info
from jaxmia.models.face_networks import VGG16, ImageNetResNet, IRNetwork
from jaxmia.models.pretrained import PublishedNetwork, published, read
from jaxmia.recipes.augment import look
from jaxmia.train import denoising

__all__ = ["EVALUATORS", "PUBLISHED", "TARGETS", "Recipe"]


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


def vit(
    *, patch: int = 4, width: int = 64, depth: int = 4, steps: int = 400, rate: float = 1e-3, batch_size: int = 32
) -> Recipe:
    """Small vision transformer; `patch` divides height and width."""
    return Recipe(
        lambda classes, shape: models.ViT(classes, patch, width, depth),
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


def _published(make: Callable[[int, int], Any], backbone: str, *head: str) -> Callable[..., Recipe]:
    """The factory of networks `(classes, width) -> module` whose weights others have published.

    `backbone` is the layout in which weights of other classes are found, all but what begins with one of `head`.
    """

    def recipe(
        *,
        weights: str = "",
        layout: str = backbone,
        frozen: bool = False,
        size: int | None = None,
        centered: bool = False,
        width: int = 64,
        steps: int = 21000,
        optimizer: Literal["sgd", "adam"] = "sgd",
        rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        batch_size: int = 64,
    ) -> Recipe:
        """Begins with `weights`, a safetensors file in a `layout` of `models.pretrained`, but for the head, or at random.

        Frozen, it is the file's classifier, head and all, and is not trained. Else 50 epochs of 27,000 pictures, cropped
        to 85 to 100 % of their area and mirrored; the rate falls to a tenth after three quarters of the steps, and again
        after nine tenths, as in PPA. `size` and `centered` are those of `models.pretrained.PublishedNetwork`.
        """
        if frozen and not weights:
            raise ValueError("frozen: there are no weights to keep; name a file of them")

        def begin(module: Any, start: Any) -> Process:
            del start
            tensors = read(weights)

            def init(key: Any, batch: Any) -> Any:
                drawn = module.init(key, batch["x"][:1])
                drawn = {collection: drawn[collection] for collection in ("params", "batch_stats")}
                return published(drawn, tensors, layout, keep=() if frozen else head)

            return Process(init, lambda key, state, batch: (state, info(0.0)), lambda state: state, 1)

        schedule = optax.piecewise_constant_schedule(rate, {steps * 3 // 4: 0.1, steps * 9 // 10: 0.1})
        descent = optax.adam(schedule, momentum) if optimizer == "adam" else optax.sgd(schedule, momentum)
        return Recipe(
            lambda classes, shape: PublishedNetwork(make(classes, width), size, centered, frozen),
            optax.set_to_zero() if frozen else optax.chain(optax.add_decayed_weights(weight_decay), descent),
            1 if frozen else steps,
            batch_size,
            None if frozen else lambda key, image: look(key, image, scale=(0.85, 1.0), flip=0.5),
            (begin,) if weights else (),
        )

    return recipe


_IR_HEAD = ("output_layer.", "feature.output_layer.", "fc_layer.")
PUBLISHED = {
    "vgg16": _published(lambda n, width: VGG16(n, width), "torchvision", "bn.", "fc_layer.", "classifier."),
    "ir50": _published(lambda n, width: IRNetwork(n, 50, width), "evolve", *_IR_HEAD),
    "ir152": _published(lambda n, width: IRNetwork(n, 152, width), "evolve", *_IR_HEAD),
    "resnet18": _published(lambda n, width: ImageNetResNet(n, 18, width), "torchvision", "fc."),
    "resnet50": _published(lambda n, width: ImageNetResNet(n, 50, width), "torchvision", "fc."),
    "resnet152": _published(lambda n, width: ImageNetResNet(n, 152, width), "torchvision", "fc."),
}
"""For pictures of 32 pixels or more: the targets "VGG16", "FaceNet64" (ir50), "IR152" at 64 pixels, the evaluator "FaceNet"
(ir50 at size 112), and those of PPA at 224 (centered)."""

_SMALL = {"softmax": softmax, "mlp": mlp, "autoencoder": autoencoder, "convnet": convnet, "resnet": resnet, "vit": vit}
TARGETS = _SMALL | PUBLISHED
EVALUATORS = {"group_norm_cnn": group_norm_cnn, "vgg_hard": vgg_hard, "wide_mlp": wide_mlp} | PUBLISHED


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
