"""KED-MI: a GAN that knows the target, then the recovery of a distribution instead of one image.

Chen, Kahla, Jia, Qi, "Knowledge-Enriched Distributional Model Inversion Attacks", ICCV 2021
(https://arxiv.org/abs/2010.04092). Inversion-specific GAN, section 3.2: the discriminator has the target's classes, and an
image is as real as s(x) = log sum_c exp D_c(x) says (p(real) = sigmoid(s)). On public x with soft labels T(x), eq. 2:

    L_D = E[-sum_c T_c(x) log softmax(D(x))_c] + (E softplus(-s(x)) + E softplus(s(G(z)))) / 2,
    L_G = |E f(G(z)) - E f(x)|_1 / d + entropy_weight * H(softmax D(G(z))),   f: features of D, d numbers.

Distributional recovery, section 3.3, eq. 5: min over mu, sigma of E_{z ~ N(mu, sigma^2)}[softplus(-s(G(z))) + lambda *
CE(T(G(z)), y)] by Adam, one z a step; what is read out is an image of a z of that distribution, mu + sigma * e with an
e drawn at the start.

What differs. In the released code H is summed over the batch and added, so that the class posterior of fakes becomes
certain; here it is the sum as well, `gan_batch` times the mean. Its clamp of z comes after the image is made and does
nothing; `bound` is LOMMA's, before the generator, and off by default. log sigma^2 starts at 1, as released. Public images
are drawn with replacement, where released code goes through them in epochs. On eigenfaces an image of mu is named more
often than the draw, 72 percent to 32 (experiments/on_eigenfaces.py).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Attack, Card, Objective, Process, Scalar, info
from jaxmia.objectives import cross_entropy
from jaxmia.oracle import Access, Oracle, Weights, lower, sown_features
from jaxmia.priors.unit import check_images
from jaxmia.recipes import adversarial

__all__ = ["CARD", "ked_mi"]

CARD = Card(
    title="KED-MI",
    paper="Chen, Kahla, Jia, Qi. Knowledge-Enriched Distributional Model Inversion Attacks. ICCV 2021",
    url="https://arxiv.org/abs/2010.04092",
    year=2021,
    modality="image",
    access=Access.WEIGHTS,
    recovers="faces of a class, as a distribution over what a generator draws",
    knows="public images of other people",
)


class State(NamedTuple):
    posterior: tuple[Float[Array, " d"], Float[Array, " d"]]  # mu, log sigma^2
    optimizer: Any
    noise: Float[Array, " d"]  # of the image that is read out


def ked_mi(
    oracle: Oracle,
    gallery: Float[Array, "n h w c"],
    generator: Any,
    discriminator: Any,
    *,
    steps: int = 2400,
    rate: Scalar = 0.02,
    identity_weight: Scalar = 100.0,
    dimensions: int = 100,
    bound: Scalar | None = None,
    objective: Objective = cross_entropy,
    gan_steps: int = 11_250,
    gan_batch: int = 64,
    gan_rate: Scalar = 2e-4,
    gan_momentum: tuple[Scalar, Scalar] = (0.5, 0.999),
    critic_steps: int = 5,
    entropy_weight: Scalar = 1e-4,
) -> Attack:
    """The attack; a case is a class index, the output an image.

    Args:
      oracle: white-box access.
      gallery: public images in [0, 1].
      generator: Linen module `(z [n, d], train) -> images`.
      discriminator: Linen module `(images, train) -> logits [n, classes]` with the feature "penultimate".
      steps: of the recovery.
      rate: Adam's learning rate in the recovery.
      identity_weight: lambda.
      dimensions: of z.
      bound: z is clipped to [-bound, bound] before the generator; None leaves it.
      objective: L_id; LOMMA puts its own here.
      gan_steps: generator updates (120 epochs of 30,000 images).
      gan_batch: examples of an update.
      gan_rate: Adam's learning rate, for both networks.
      gan_momentum: Adam's betas, for both.
      critic_steps: discriminator updates per generator update.
      entropy_weight: of the entropy, summed over the batch.

    Raises:
      ThreatModelError: without white-box access.
      ValueError: for a gallery outside of [0, 1].
    """
    view: Weights = lower(oracle, CARD.access, "image/ked_mi")
    check_images("gallery", gallery)
    public = jnp.asarray(gallery)

    def some(key: Any) -> Any:
        return public[jax.random.randint(key, (gan_batch,), 0, len(public))]

    def paint(variables: Any, key: Any) -> Any:
        z = jax.random.normal(key, (gan_batch, dimensions))
        return generator.apply(variables, z, train=True, mutable=["batch_stats"])

    def judge(variables: Any, x: Any) -> Any:
        """Logits, features, changed statistics."""
        logits, changed = discriminator.apply(variables, x, train=True, mutable=["features", "batch_stats"])
        features = sown_features(changed)["penultimate"]
        return logits, features, {name: value for name, value in changed.items() if name == "batch_stats"}

    def real(logits: Any) -> Any:
        return jax.nn.logsumexp(logits, axis=-1)

    def start(key: Any) -> Any:
        one, two = jax.random.split(key)
        g = generator.init(one, jnp.zeros((2, dimensions)), train=True)
        return g, discriminator.init(two, public[:2], train=True)

    def enriched(key: Any, g: Any, d: Any) -> Any:
        """L_D."""
        one, two, three = jax.random.split(key, 3)
        x = some(one)
        soft = jax.nn.softmax(jax.vmap(lambda x: view.answer(key, x))(x))
        labeled, _, changed = judge(d, x)
        unlabeled, _, changed = judge({**d, **changed}, some(two))
        fake, _, changed = judge({**d, **changed}, paint(g, three)[0])
        told = jnp.mean(optax.softmax_cross_entropy(labeled, soft))
        doubt = jnp.mean(jax.nn.softplus(-real(unlabeled))) + jnp.mean(jax.nn.softplus(real(fake)))
        return told + doubt / 2, changed

    def matched(key: Any, g: Any, d: Any) -> Any:
        """L_G."""
        one, two = jax.random.split(key)
        fake, changed = paint(g, one)
        logits, features, _ = judge(d, fake)
        apart = jnp.mean(jnp.abs(jnp.mean(features, 0) - jnp.mean(judge(d, some(two))[1], 0)))
        entropy = -jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits))
        return apart + entropy_weight * entropy, changed

    def inversion_gan(fitted: Any) -> Process:
        del fitted
        adam = optax.adam(gan_rate, *gan_momentum)
        return adversarial(start, enriched, matched, adam, steps=gan_steps, critic_steps=critic_steps)

    def solve(fitted: Any) -> Process:
        networks, adam = fitted[0], optax.adam(rate)

        def decode(posterior: Any, noise: Any) -> Any:
            z = posterior[0] + jnp.exp(0.5 * posterior[1]) * noise
            z = z if bound is None else jnp.clip(z, -bound, bound)
            return generator.apply(networks["generator"], z[None], train=False)[0]

        def init(key: Any, case: Any) -> State:
            del case
            posterior = (jnp.zeros(dimensions), jnp.ones(dimensions))
            return State(posterior, adam.init(posterior), jax.random.normal(key, (dimensions,)))

        def step(key: Any, state: State, case: Any) -> tuple[State, Any]:
            ask, draw = jax.random.split(key)
            noise = jax.random.normal(draw, (dimensions,))

            def loss(posterior: Any) -> Any:
                x = decode(posterior, noise)
                identity = objective(view.answer(ask, x), case)
                prior = jax.nn.softplus(-real(discriminator.apply(networks["critic"], x[None], train=False)[0]))
                return prior + identity_weight * identity, identity

            (value, identity), gradient = jax.value_and_grad(loss, has_aux=True)(state.posterior)
            updates, opt = adam.update(gradient, state.optimizer)
            moved: Any = optax.apply_updates(state.posterior, updates)
            return State(moved, opt, state.noise), info(value, identity=identity)

        return Process(init, step, lambda state: decode(state.posterior, state.noise), steps)

    return Attack(solve, (inversion_gan,), observes=CARD.observes)
