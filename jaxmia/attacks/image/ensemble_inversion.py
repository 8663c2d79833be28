"""Ensemble inversion: a generator trained from nothing to please several models of the same people at once.

Wang, Kurz, "Reconstructing Training Data from Diverse ML Models by Ensemble Inversion", WACV 2022
(https://arxiv.org/abs/2111.03702). Without any image, a generator G of latents z and classes y is trained by

    mean over models k of CE(f_k(G(z, y)), y) - a mean |phi_k(G(z, y))|_1 - d |G(z, y) - G(z', y)| / |z - z'|,

the first term for sharp answers that all models share, the second for strong activations phi_k of the layer before the
last, the third for images that differ where latents do. A case is answered by that of `draws` images of its class which
the models believe most together.

What differs. The paper also has a variant with auxiliary images and a discriminator; with such images there is GMI. The
weights depend on the scale of features and images: the defaults are not the paper's numbers. `feature=None` leaves the
second term out. With `others` empty it is generator inversion of one model, the paper's baseline.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower, shown_feature
from jaxmia.recipes import score, sliced

__all__ = ["CARD", "ensemble_inversion"]

CARD = Card(
    title="Ensemble inversion",
    paper="Wang, Kurz. Reconstructing Training Data from Diverse ML Models by Ensemble Inversion. WACV 2022",
    url="https://arxiv.org/abs/2111.03702",
    year=2022,
    modality="image",
    access=Access.WEIGHTS,
    recovers="an image of a class, as a generator trained on the models alone paints it",
    knows="nothing, or further models of the same people",
)


def ensemble_inversion(
    oracle: Oracle,
    conditional_generator: Any,
    classes: int,
    *,
    others: tuple[Any, ...] = (),
    dimensions: int = 100,
    steps: int = 5000,
    batch: int = 64,
    rate: Scalar = 1e-3,
    activation: Scalar = 0.01,
    feature: str | None = "penultimate",
    diversity: Scalar = 0.1,
    draws: int = 32,
) -> Attack:
    """The attack; a case is a class index, the output an image that the generator paints.

    Args:
      oracle: white-box access to the model under attack.
      conditional_generator: a Linen module `(z [n, dimensions], labels [n], train) -> images [n, h, w, c]`.
      classes: of the models.
      others: white-box oracles of further models with the same classes.
      dimensions: of z, standard normal.
      steps: training steps of the generator, of two images for each of `batch` random classes.
      batch: classes a step.
      rate: Adam's learning rate.
      activation: a.
      feature: the models' name of phi; None is the loss without it.
      diversity: d; distances are Euclidean, of images over root-mean-square pixels.
      draws: images per case, of which one is kept.

    Raises:
      ThreatModelError: without white-box access to all models.
      ValueError: for dimensions, batch or draws below 1; when training, where a model does not show the feature.
    """
    views: list[Weights] = [lower(model, CARD.access, "image/ensemble_inversion") for model in (oracle, *others)]
    for name, value in (("dimensions", dimensions), ("batch", batch), ("draws", draws)):
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")
    adam = optax.adam(rate)

    def identity(images: Any, labels: Any) -> tuple[Any, Any]:
        """Per image, the mean over models of the cross entropy and of the strength of the last hidden layer."""
        losses, strengths = [], []
        for view in views:
            out = jax.vmap(lambda image, view=view: view.apply(view.params, image))(images)
            losses.append(jax.vmap(cross_entropy)(out.logits, labels))
            hidden = jnp.zeros((len(images), 1)) if feature is None else shown_feature(out.features, feature)
            strengths.append(jnp.mean(jnp.abs(hidden.reshape(len(images), -1)), 1))
        return sum(losses) / len(views), sum(strengths) / len(views)

    def learn(fitted: Any) -> Process:
        del fitted

        def init(key: Any, data: Any) -> Any:
            del data
            z, labels = jnp.zeros((1, dimensions)), jnp.zeros(1, jnp.int32)
            variables = conditional_generator.init(key, z, labels, train=False)
            return variables, adam.init(variables["params"])

        def step(key: Any, state: Any, data: Any) -> Any:
            del data
            (variables, optimizer), (draw, name) = state, jax.random.split(key)
            z = jax.random.normal(draw, (2 * batch, dimensions))
            labels = jnp.tile(jax.random.randint(name, (batch,), 0, classes), 2)

            def total(params: Any) -> Any:
                images, changed = conditional_generator.apply(
                    {**variables, "params": params}, z, labels, train=True, mutable=["batch_stats"]
                )
                losses, strengths = identity(images, labels)
                flat = images.reshape(2, batch, -1)
                apart = jnp.sqrt(jnp.mean((flat[0] - flat[1]) ** 2, -1) + 1e-12)
                moved = jnp.linalg.norm(z[:batch] - z[batch:], axis=-1)
                loss = losses.mean() - activation * strengths.mean() - diversity * (apart / moved).mean()
                return loss, (changed, losses.mean())

            (loss, (changed, agreed)), gradient = jax.value_and_grad(total, has_aux=True)(variables["params"])
            updates, optimizer = adam.update(gradient, optimizer)
            params = optax.apply_updates(variables["params"], updates)
            return ({**variables, **changed, "params": params}, optimizer), info(loss, identity=agreed)

        return Process(init, step, lambda state: state[0], steps)

    def choose(fitted: Any) -> Process:
        def best(key: Any, label: Any) -> Any:
            z = jax.random.normal(key, (draws, dimensions))

            def drawn(z: Any) -> Any:
                image = conditional_generator.apply(fitted[0], z[None], label[None], train=False)
                return image[0], identity(image, label[None])[0][0]

            images, losses = sliced(drawn, z)
            return images[jnp.argmin(losses)]

        return score(best)

    return Attack(choose, (learn,), observes=CARD.observes)
