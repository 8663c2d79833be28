"""PPDG-MI: attack, move the generator towards the best reconstructions, attack again.

Peng, Han, Liu, Liu, Zhou, "Pseudo-Private Data Guided Model Inversion Attacks", NeurIPS 2024
(https://openreview.net/forum?id=pyqPUf36D2). For each class on its own: (1) a base attack gives a pseudo-private set;
(2) the reconstructions believed most over random views are kept, X; (3) density around them is raised: first latents Z of
high density are sought near X, then the generator is tuned so that it draws X there,

    Z = argmin_Z d(G(Z), X) + realism_weight * E softplus(-D(G(Z))),   G' = argmin_G d(G(Z), X),

where d is E |phi(x_i) - phi(G(z_i))|^2 (point-wise, PPDG-PW) or the maximum mean discrepancy of phi(X) and phi(G(Z))
(PPDG-MMD), phi perceptual features; (4) the base, any that takes a prior, attacks again, with G'. In every round but the
last three training stages go through all classes: attack and keep, seek, tune. The tuned generators stay on the host.

What differs. The paper starts from a generator trained elsewhere (StyleGAN2); here the loss that trained that one,
softplus(-D(x)) + softplus(D(G(z))), trains one on public images; BatchNorm keeps its statistics while it is tuned. phi is
LPIPS in the paper, pixels where `perceptual` gives nothing else. Z starts at zero, with noise that falls to none, as
released; the released rate for Z is overwritten by a ramp. Conditional transport (PPDG-CT), and going on to train a small
GAN on public and pseudo-private images, are not here.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import mmd
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.priors import latent
from jaxmia.priors.unit import check_images
from jaxmia.recipes import sliced
from jaxmia.recipes.augment import look
from jaxmia.recipes.by_class import by_class, of_class
from jaxmia.recipes.logistic_gan import logistic_gan
from jaxmia.recipes.minimize import minimize

__all__ = ["CARD", "ppdg_mi"]

CARD = Card(
    title="PPDG-MI",
    paper="Peng, Han, Liu, Liu, Zhou. Pseudo-Private Data Guided Model Inversion Attacks. NeurIPS 2024",
    url="https://openreview.net/forum?id=pyqPUf36D2",
    year=2024,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, as a generator tuned on earlier reconstructions can draw it",
    knows="public images of other people",
)


def ppdg_mi(
    oracle: Oracle,
    base: Callable[..., Attack],
    gallery: Float[Array, "n h w c"],
    classes: int,
    generator: Any,
    discriminator: Any,
    *,
    measure: Literal["point", "mmd"] = "point",
    rounds: int = 2,
    candidates: int = 100,
    kept: int = 5,
    views: int = 100,
    seek_steps: int = 300,
    seek_rate: Scalar = 5e-3,
    seek_noise: Scalar = 0.05,
    realism_weight: Scalar = 0.1,
    tune_steps: int = 150,
    tune_rate: Scalar = 3e-4,
    perceptual: Callable[[Any], Any] | None = None,
    dimensions: int = 100,
    bound: Scalar = 1.0,
    gan_steps: int = 11_250,
    gan_batch: int = 64,
    gan_rate: Scalar = 2e-4,
    critic_steps: int = 5,
) -> Attack:
    """The attack; a case is a class index, the output that of its base.

    Args:
      oracle: white-box access.
      base: `(oracle, prior=...) -> Attack` without training stages, whose output is an image: a factory with its
        other inputs bound, such as GMI's. A prior that is already bound gives way.
      gallery: public images in [0, 1].
      classes: of the target.
      generator: Linen module `(z [n, d], train) -> images`; every class gets its own variables.
      discriminator: Linen module `(images, train) -> logits [n, k]`, log sum exp of which is D.
      measure: d, point-wise or the maximum mean discrepancy; for that the paper keeps 10 and takes 100 steps to seek.
      rounds: attacks, of as many steps as the base has (the paper halves them for two); 1 is the base alone.
      candidates: reconstructions of a class before each tuning.
      kept: of them that the generator is tuned to.
      views: random views, those of PPA, by which they are ranked; 0 ranks by the image itself.
      seek_steps: for Z.
      seek_rate: Adam's learning rate for Z.
      seek_noise: deviation of the noise on Z at the start, as a share of the mean norm of z; none after 3/4 of the steps.
      realism_weight: of D while Z is sought.
      tune_steps: for G'.
      tune_rate: Adam's learning rate for G'.
      perceptual: phi, `image -> vector`, differentiable; None is the pixels over the root of their number.
      dimensions: of z.
      bound: z is clipped to [-bound, bound].
      gan_steps: generator updates of the first stage.
      gan_batch: examples of an update.
      gan_rate: Adam's learning rate, for both networks; its betas are 0.5 and 0.999.
      critic_steps: discriminator updates per generator update.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a gallery outside of [0, 1]; for a base that takes no prior, another measure, or counts out of range.
    """
    view: Weights = lower(oracle, CARD.access, "image/ppdg_mi")
    check_images("gallery", gallery)
    if "prior" not in inspect.signature(base).parameters:
        raise ValueError("base: it takes no prior; legal is image/gmi, image/ppa, or what takes one")
    if measure not in ("point", "mmd") or not 1 <= kept <= candidates:
        raise ValueError(f"measure: {measure!r}, kept: {kept}; legal is point or mmd, and 1 to {candidates} candidates")
    if min(rounds, seek_steps, tune_steps, views + 1) < 1:
        raise ValueError("rounds, seek_steps, tune_steps, views: legal is 1 or more, views 0 or more")

    phi = perceptual or (lambda image: image.reshape(-1) / jnp.sqrt(image.size))

    def paint(variables: Any, z: Any) -> Any:
        return generator.apply(variables, jnp.clip(z, -bound, bound), train=False)

    def realism(critic: Any, x: Any) -> Any:
        return jax.nn.logsumexp(discriminator.apply(critic, x, train=False), -1)

    def distance(x: Any, wanted: Any) -> Any:
        a, b = jax.vmap(phi)(x), jax.vmap(phi)(wanted)
        return mmd(a, b) if measure == "mmd" else jnp.mean(jnp.sum((a - b) ** 2, -1))

    def own(make: Callable[[Any, Any, Any], Process], fitted: Any) -> Process:
        """`make(fitted, variables, class)` of every class, with its own generator, as of the last tuning."""
        tuned = fitted[3::3]  # after the GAN come threes of stages
        return of_class(partial(make, fitted), fitted[0]["generator"], tuned[-1] if tuned else None)

    def attacked(fitted: Any, variables: Any, label: Any) -> Process:
        del label
        draw, real = partial(paint, variables), partial(realism, fitted[0]["critic"])
        attack = base(view, prior=latent(draw, dimensions, realism=real, bound=bound))
        if attack.train:
            raise ValueError("base: it has training stages; legal is one without")
        return attack.solve(())

    def confidence(x: Any, label: Any) -> Any:
        keys = jax.random.split(jax.random.key(0), max(views, 1))

        def shown(key: Any) -> Any:
            return look(key, x, scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5) if views else x

        logits = sliced(lambda key: view.answer(keys[0], shown(key)), keys)
        return jnp.mean(jax.nn.softmax(logits)[:, label])

    def keep(fitted: Any, variables: Any, label: Any) -> Process:
        """Steps 1 and 2; reads out X, `[kept, h, w, c]`."""
        inner = attacked(fitted, variables, label)

        def start(key: Any, label: Any) -> Any:
            return sliced(lambda key: inner.init(key, label), jax.random.split(key, candidates))

        def step(key: Any, runs: Any, label: Any) -> Any:
            keys = jax.random.split(key, candidates)
            runs, told = sliced(lambda key, run: inner.step(key, run, label), keys, runs)
            return runs, info(jnp.min(told.loss))

        def read(runs: Any) -> Any:
            images = sliced(inner.read, runs)
            return images[jax.lax.top_k(sliced(lambda x: confidence(x, label), images), kept)[1]]

        return Process(start, step, read, inner.steps)

    def seek(fitted: Any, variables: Any, label: Any) -> Process:
        """Step 3; reads out Z, `[kept, d]`."""
        wanted = jnp.asarray(fitted[-1])[label]

        def loss(key: Any, share: Any, z: Any) -> Any:
            left = seek_noise * jnp.sqrt(float(dimensions)) * jnp.maximum(0.0, 1.0 - share / 0.75) ** 2
            x = paint(variables, z + left * jax.random.normal(key, z.shape))
            return distance(x, wanted) + realism_weight * jnp.mean(jax.nn.softplus(-realism(fitted[0]["critic"], x)))

        descent = minimize(jnp.zeros((kept, dimensions)), loss, optax.adam(seek_rate), seek_steps)
        return descent._replace(read=lambda state: jnp.clip(descent.read(state), -bound, bound))

    def tune(fitted: Any, variables: Any, label: Any) -> Process:
        """Step 3; reads out the variables of G'."""
        wanted, z = (jnp.asarray(leaf)[label] for leaf in fitted[-2:])

        def loss(key: Any, share: Any, params: Any) -> Any:
            return distance(paint({**variables, "params": params}, z), wanted)

        descent = minimize(variables["params"], loss, optax.adam(tune_rate), tune_steps)
        return descent._replace(read=lambda state: {**variables, "params": descent.read(state)})

    adam = optax.adam(gan_rate, 0.5, 0.999)
    sizes = {"steps": gan_steps, "critic_steps": critic_steps, "dimensions": dimensions, "batch": gan_batch}
    stages = [lambda fitted, stage=stage: by_class(own(stage, fitted), classes) for stage in (keep, seek, tune)]
    gan = lambda fitted: logistic_gan(generator, discriminator, gallery, adam, **sizes)  # noqa: E731
    return Attack(partial(own, attacked), (gan, *stages * (rounds - 1)), observes=CARD.observes)
