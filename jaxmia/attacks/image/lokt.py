"""LOKT: transfer what a label-only target knows into a conditional GAN and surrogates, then attack these as white boxes.

Nguyen, Chandrasegaran, Abdollahzadeh, Cheung, "Label-Only Model Inversion Attacks via Knowledge Transfer", NeurIPS 2023
(https://arxiv.org/abs/2310.19342). (1) T-ACGAN: a generator G(z, y) and a discriminator that tells real from fake, D, and
classes, C. Real images have no label of the target T; fakes get the one that T says:

    D, C:  BCE(D(x), 1) + BCE(D(G(z, y)), 0) + alpha * CE(C(G(z, y)), T(G(z, y)))
    G:     BCE(D(G(z, y)), 1) + alpha * CE(C(G(z, y)), y)

(2) T labels `labels` fakes of every class. (3) Surrogates S learn these, (CE(S(x)) + CE(S(A(x)))) / 2, where A is a random
crop, mirror image, and in half of the views a turn, here also another brightness and contrast. (4) White-box attack on
them: Adam over z on the max-margin loss of two views A of G(z, y), averaged over S. With `on_discriminator` it is on C o D,
the classes of the discriminator, and (2) and (3) are left out.

What differs. The released code trains some steps without classes first, and updates G before the updates of D, here after
them; it can mix C o D and even T with surrogates. Of CE(S(x)) and CE(S(A(x))) a step takes one by chance for every example,
which has the same mean. All queries are asked in training, for all classes together, none if they exceed the `budget`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Process, Scalar, info
from jaxmia.objectives import margin
from jaxmia.oracle import Access, Labels, Oracle, lower
from jaxmia.priors.unit import check_images
from jaxmia.recipes import adversarial, conditional, drawn, regress, sliced
from jaxmia.recipes.augment import jitter, look

__all__ = ["CARD", "lokt"]

CARD = Card(
    title="LOKT",
    paper="Nguyen, Chandrasegaran, Abdollahzadeh, Cheung. Label-Only Attacks via Knowledge Transfer. NeurIPS 2023",
    url="https://arxiv.org/abs/2310.19342",
    year=2023,
    modality="image",
    access=Access.LABELS,
    recovers="a face of a class, as a generator of that class draws it",
    knows="public images of other people",
)


def lokt(
    oracle: Oracle,
    gallery: Float[Array, "n h w c"],
    classes: int,
    conditional_generator: Any,
    classifying_discriminator: Any,
    surrogates: tuple[Any, ...],
    *,
    steps: int = 600,
    rate: Scalar = 0.1,
    dimensions: int = 128,
    gan_steps: int = 19_000,
    gan_batch: int = 128,
    gan_rate: Scalar = 2e-4,
    critic_steps: int = 5,
    class_weight: Scalar = 1.5,
    labels: int = 500,
    surrogate_steps: int = 23_400,
    surrogate_batch: int = 256,
    surrogate_rate: Scalar = 0.1,
    decay: Scalar = 5e-4,
    on_discriminator: bool = False,
    augment: bool = True,
    budget: int = 15_000_000,
) -> Attack:
    """The attack; a case is a class index, the output an image.

    Args:
      oracle: label access.
      gallery: public images in [0, 1].
      classes: of the target.
      conditional_generator: Linen module `(z [n, d], labels [n], train) -> images`.
      classifying_discriminator: Linen module `(images, train) -> [n, classes + 1]`, class logits and, last, realness.
      surrogates: Linen modules `(images, train) -> logits`, one or more.
      steps: of the attack on the surrogates.
      rate: Adam's learning rate there.
      dimensions: of z.
      gan_steps: generator updates.
      gan_batch: examples of an update.
      gan_rate: Adam's learning rate, for both networks; its betas are 0 and 0.9.
      critic_steps: discriminator updates per generator update.
      class_weight: alpha.
      labels: fakes of every class that the target labels for the surrogates.
      surrogate_steps: minibatches (the paper's 200 epochs).
      surrogate_batch: examples of one.
      surrogate_rate: of SGD with momentum 0.9, falling to zero along a cosine.
      decay: weight decay of that, added to the gradient, as released.
      on_discriminator: attack C o D, without surrogates.
      augment: whether A does anything; False where a class does not survive it.
      budget: most queries of the training, for all classes together.

    Raises:
      ThreatModelError: without label access.
      ValueError: for a gallery outside of [0, 1]; without surrogates that are needed, or for training that asks more
        than the budget.
    """
    view: Labels = lower(oracle, CARD.access, "image/lokt")
    check_images("gallery", gallery)
    generator, critic = conditional_generator, classifying_discriminator
    if not surrogates and not on_discriminator:
        raise ValueError("surrogates: there are none; legal is one or more")
    if (asked := gan_steps * critic_steps * gan_batch + (0 if on_discriminator else labels * classes)) > budget:
        raise ValueError(f"budget: {budget}; training asks {asked}, fewer with lower gan_steps, gan_batch or labels")

    def draw(g: Any, z: Any, y: Any) -> Any:
        return generator.apply(g, z, y, train=False)

    def cross(logits: Any, y: Any) -> Any:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    def says(key: Any, images: Any) -> Any:
        return sliced(view.answer, jax.random.split(key, len(images)), images)

    def seen(key: Any, x: Any, chance: float) -> Any:  # A
        if not augment:
            return x
        cut, tint = jax.random.split(key)
        turned = look(cut, x, scale=(0.8, 1.0), flip=0.5, rotation=5.0, rotation_chance=0.5)
        return jitter(tint, turned, chance=chance)

    def fakes(key: Any, g: Any) -> Any:
        one, two = jax.random.split(key)
        z, y = jax.random.normal(one, (gan_batch, dimensions)), jax.random.randint(two, (gan_batch,), 0, classes)
        return *generator.apply(g, z, y, train=True, mutable=["batch_stats"]), y

    def judge(d: Any, x: Any) -> tuple[Any, Any, Any]:
        out, changed = critic.apply(d, x, train=True, mutable=["batch_stats"])
        return out[:, -1], out[:, :-1], changed

    def acgan(_: Any) -> Process:
        def discriminate(key: Any, g: Any, d: Any) -> Any:
            which, one, ask = jax.random.split(key, 3)
            fake, _, _ = fakes(one, g)
            x = jnp.asarray(gallery)[jax.random.randint(which, (gan_batch,), 0, len(gallery))]
            high, _, changed = judge(d, x)
            low, guess, changed = judge({**d, **changed}, fake)
            doubt = jnp.mean(jax.nn.softplus(-high)) + jnp.mean(jax.nn.softplus(low))
            return doubt + class_weight * cross(guess, says(ask, fake)), changed

        def deceive(key: Any, g: Any, d: Any) -> Any:
            fake, changed, y = fakes(key, g)
            real, guess, _ = judge(d, fake)
            return jnp.mean(jax.nn.softplus(-real)) + class_weight * cross(guess, y), changed

        def start(key: Any) -> Any:
            g = generator.init(key, jnp.zeros((2, dimensions)), jnp.zeros(2, jnp.int32), train=True)
            return g, critic.init(jax.random.fold_in(key, 1), jnp.asarray(gallery)[:2], train=True)

        numbers = {"steps": gan_steps, "critic_steps": critic_steps, "queries": critic_steps * gan_batch}
        return adversarial(start, discriminate, deceive, optax.adam(gan_rate, 0.0, 0.9), **numbers)

    def label(fitted: Any) -> Process:
        """A step labels one fake of every class; row i of `(z, said, filled)` was drawn as class i % classes."""

        def init(key: Any, _: Any) -> Any:
            z = jax.random.normal(key, (labels * classes, dimensions))
            return z, jnp.zeros(len(z), jnp.int32), jnp.zeros((), jnp.int32)

        def step(key: Any, state: Any, _: Any) -> Any:
            z, said, filled = state
            y, part = jnp.arange(classes), jax.lax.dynamic_slice_in_dim(z, filled, classes)

            def named(k: Any, z: Any, y: Any) -> Any:
                return view.answer(k, draw(fitted[0]["generator"], z[None], y[None])[0])

            new = sliced(named, jax.random.split(key, classes), part, y)
            said = jax.lax.dynamic_update_slice(said, new, (filled,))
            return (z, said, filled + classes), info(jnp.mean(new != y), queries=filled + classes)

        return Process(init, step, lambda state: state[:2], labels)

    def transfer(module: Any) -> Any:
        """A surrogate's training; every example is shown as it is or, with probability 1/2, as a view A of it."""

        def process(fitted: Any) -> Process:
            z, said = fitted[1]

            def example(key: Any, row: Any) -> Any:
                coin, view = jax.random.split(key)
                x = draw(fitted[0]["generator"], z[row][None], row[None] % classes)[0]
                return jnp.where(jax.random.bernoulli(coin), seen(view, x, 0.5), x)

            cosine = optax.cosine_decay_schedule(1.0, surrogate_steps)
            sgd = optax.chain(optax.add_decayed_weights(decay), optax.sgd(lambda t: surrogate_rate * cosine(t), 0.9))
            inner = regress(module, example, sgd, steps=surrogate_steps, loss=lambda out, i: cross(out, said[i]))
            return drawn(inner, lambda key: {"x": jax.random.randint(key, (surrogate_batch,), 0, len(z))})

        return process

    def solve(fitted: Any) -> Process:
        pairs = [(critic, fitted[0]["critic"])] if on_discriminator else [*zip(surrogates, fitted[2:])]

        def loss(key: Any, x: Any, wanted: Any) -> Any:
            both = jax.vmap(seen, (0, None, None))(jax.random.split(key), x, 1.0)
            logits = jnp.stack([m.apply(v, both, train=False)[:, :classes] for m, v in pairs])  # realness is the last
            return jnp.sum(jax.vmap(margin, (0, None))(logits.reshape(-1, classes), wanted)) / len(pairs)

        def image(z: Any, wanted: Any) -> Any:
            return draw(fitted[0]["generator"], z[None], wanted[None])[0]

        return conditional(image, loss, optax.adam(rate), dimensions=dimensions, steps=steps)

    return Attack(
        solve,
        (acgan,) if on_discriminator else (acgan, label, *map(transfer, surrogates)),
        observes=CARD.observes,
    )
