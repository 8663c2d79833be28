"""PLG-MI: a conditional GAN on public images that carry the target's labels, then a margin search in one class.

Yuan, Chen, Zhang, Zhang, Yu, "Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial Network",
AAAI 2023 (https://arxiv.org/abs/2302.09814). Three steps. (1) Top-n selection, eq. 1: class c takes the n public images
with the highest softmax(T(x))_c, whichever class they are likest to. (2) A conditional GAN on them with a projection
discriminator, eqs. 2-3: hinge loss for D; L_G = -E D(G(z, y), y) + alpha * E L_mm(T(A(G(z, y))), y), with y uniform and the
max-margin loss of eq. 4, L_mm = -l_y + max_{j != y} l_j. (3) Eq. 5: min over z of the sum of L_mm over two views A_1, A_2
of G(z, y) for the wanted y, by Adam, from z ~ N(0, I).

A is a random crop, brightness and contrast, mirror image and turn. As released, every second view is turned, and in (2)
every second one is of another brightness and contrast, in (3) all are. Per step of (2), D is updated `critic_steps` times
and G once; real images get U(0, 1/256) noise, as released.

What differs. Losses are per case, not means over a batch, which Adam does not notice. A turned view repeats the edge in
its corners, which are black in the released code. A later port takes the argmax before the top-n, so that classes may stay
empty; this one does not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import margin
from jaxmia.oracle import Access, Oracle, Weights, lower
from jaxmia.priors.unit import check_images
from jaxmia.recipes import adversarial, conditional, sliced
from jaxmia.recipes.augment import jitter, look

__all__ = ["CARD", "plg_mi"]

CARD = Card(
    title="PLG-MI",
    paper="Yuan, Chen, Zhang, Zhang, Yu. Pseudo Label-Guided Model Inversion Attack. AAAI 2023",
    url="https://arxiv.org/abs/2302.09814",
    year=2023,
    modality="image",
    access=Access.WEIGHTS,
    recovers="a face of a class, as a generator of that class draws it",
    knows="public images of other people",
)


def plg_mi(
    oracle: Oracle,
    gallery: Float[Array, "n h w c"],
    classes: int,
    conditional_generator: Any,
    conditional_discriminator: Any,
    *,
    steps: int = 600,
    rate: Scalar = 0.1,
    top: int = 30,
    dimensions: int = 128,
    gan_steps: int = 30_000,
    gan_batch: int = 64,
    gan_rate: Scalar = 2e-4,
    gan_momentum: tuple[Scalar, Scalar] = (0.0, 0.9),
    critic_steps: int = 5,
    margin_weight: Scalar = 0.2,
    smallest: Scalar = 0.8,
    flip: Scalar = 0.5,
    rotation: Scalar = 5.0,
    change: Scalar = 0.2,
) -> Attack:
    """The attack; a case is a class index, the output an image.

    Args:
      oracle: white-box access.
      gallery: public images in [0, 1].
      classes: of the target.
      conditional_generator: Linen module `(z [n, d], labels [n], train) -> images`.
      conditional_discriminator: Linen module `(images, labels [n], train) -> [n]`.
      steps: of the search.
      rate: Adam's learning rate in the search.
      top: n, public images of a class.
      dimensions: of z.
      gan_steps: generator updates.
      gan_batch: examples of an update.
      gan_rate: Adam's learning rate, for both networks.
      gan_momentum: Adam's betas, for both.
      critic_steps: discriminator updates per generator update.
      margin_weight: alpha.
      smallest: least share of the area that a view's crop shows.
      flip: probability of a mirror image.
      rotation: most degrees of a view's turn, which every second view has.
      change: bound of a view's change in brightness and contrast.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a gallery outside of [0, 1]; unless 1 <= top <= the number of public images.
    """
    view: Weights = lower(oracle, CARD.access, "image/plg_mi")
    check_images("gallery", gallery)
    if not 1 <= top <= len(gallery):
        raise ValueError(f"top: {top}; legal is 1 to the number of public images, {len(gallery)}")
    generator, critic, adam = conditional_generator, conditional_discriminator, optax.adam(gan_rate, *gan_momentum)

    def seen(key: Any, x: Any, chance: float) -> Any:
        """Logits of a random view A of one image, tinted with that chance."""
        ask, cut, tint = jax.random.split(key, 3)
        cropped = look(cut, x, scale=(smallest, 1.0), flip=flip, rotation=rotation, rotation_chance=0.5)
        return view.answer(ask, jitter(tint, cropped, brightness=change, contrast=change, chance=chance))

    def label(fitted: Any) -> Process:
        """Top-n selection, some of the gallery at a time; reads out its rows, `[classes, top]`."""
        del fitted
        many = min(256, len(gallery))
        last = len(gallery) - many

        def init(key: Any, batch: Any) -> Any:
            del key, batch
            return jnp.zeros((len(gallery), classes)), jnp.zeros((), jnp.int32)

        def step(key: Any, state: Any, batch: Any) -> Any:
            del batch
            scores, start = state
            start = jnp.minimum(start, last)
            part = jax.lax.dynamic_slice_in_dim(jnp.asarray(gallery), start, many)
            told = jax.nn.softmax(sliced(lambda x: view.answer(key, x), part))
            return (jax.lax.dynamic_update_slice(scores, told, (start, 0)), start + many), info(0.0)

        return Process(init, step, lambda state: jax.lax.top_k(state[0].T, top)[1], -(-len(gallery) // many))

    def draw(key: Any) -> Any:
        latent, wanted = jax.random.split(key)
        return jax.random.normal(latent, (gan_batch, dimensions)), jax.random.randint(wanted, (gan_batch,), 0, classes)

    def paint(variables: Any, z: Any, labels: Any) -> Any:
        return generator.apply(variables, z, labels, train=True, mutable=["batch_stats"])

    def judge(variables: Any, x: Any, labels: Any) -> Any:
        return critic.apply(variables, x, labels, train=True, mutable=["batch_stats"])

    def conditional_gan(fitted: Any) -> Process:
        rows = jnp.asarray(fitted[0])

        def start(key: Any) -> Any:
            one, two, three = jax.random.split(key, 3)
            z, labels = draw(three)
            g = generator.init(one, z[:2], labels[:2], train=True)
            return g, critic.init(two, jnp.asarray(gallery)[:2], labels[:2], train=True)

        def hinge(key: Any, g: Any, d: Any) -> Any:
            """Equation 2."""
            one, wanted, which, noise = jax.random.split(key, 4)
            labels = jax.random.randint(wanted, (gan_batch,), 0, classes)
            x = jnp.asarray(gallery)[rows[labels, jax.random.randint(which, (gan_batch,), 0, top)]]
            high, changed = judge(d, x + jax.random.uniform(noise, x.shape, maxval=1 / 256), labels)
            z, labels = draw(one)
            low, changed = judge({**d, **changed}, paint(g, z, labels)[0], labels)
            return jnp.mean(jax.nn.relu(1 - high)) + jnp.mean(jax.nn.relu(1 + low)), changed

        def deceive(key: Any, g: Any, d: Any) -> Any:
            """Equation 3."""
            one, two = jax.random.split(key)
            z, labels = draw(one)
            fake, changed = paint(g, z, labels)
            shown = jax.vmap(lambda k, x: seen(k, x, 0.5))(jax.random.split(two, gan_batch), fake)
            identity = jnp.mean(jax.vmap(margin)(shown, labels))
            return margin_weight * identity - jnp.mean(judge(d, fake, labels)[0]), changed

        return adversarial(start, hinge, deceive, adam, steps=gan_steps, critic_steps=critic_steps)

    def solve(fitted: Any) -> Process:
        def loss(key: Any, x: Any, wanted: Any) -> Any:  # equation 5
            shown = jax.vmap(lambda k: seen(k, x, 1.0))(jax.random.split(key))
            return jnp.sum(jax.vmap(margin, (0, None))(shown, wanted))

        def image(z: Any, wanted: Any) -> Any:
            return generator.apply(fitted[1]["generator"], z[None], wanted[None], train=False)[0]

        return conditional(image, loss, optax.adam(rate), dimensions=dimensions, steps=steps)

    return Attack(solve, (label, conditional_gan), observes=CARD.observes)
