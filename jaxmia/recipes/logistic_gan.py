"""A training stage: a GAN on public images, by the logistic loss of StyleGAN2 (Goodfellow et al., NeurIPS 2014)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmia.core import Process
from jaxmia.recipes.adversarial import adversarial

__all__ = ["logistic_gan"]


def logistic_gan(
    generator: Any,
    discriminator: Any,
    gallery: Float[Array, "n h w c"],
    optimizer: optax.GradientTransformation,
    *,
    dimensions: int,
    batch: int,
    steps: int,
    critic_steps: int,
) -> Process:
    """L_D = E softplus(-D(x)) + E softplus(D(G(z))), L_G = E softplus(-D(G(z))); reads out as `adversarial` does.

    Args:
      generator: Linen module `(z [n, d], train) -> images`.
      discriminator: Linen module `(images, train) -> logits [n, k]`, log sum exp of which is D.
      gallery: public images.
      optimizer: of both.
      dimensions: d, of z ~ N(0, I).
      batch: examples of an update.
      steps: generator updates.
      critic_steps: discriminator updates before each.
    """
    public = jnp.asarray(gallery)

    def start(key: Any) -> Any:
        one, two = jax.random.split(key)
        g = generator.init(one, jnp.zeros((2, dimensions)), train=True)
        return g, discriminator.init(two, public[:2], train=True)

    def fake(variables: Any, key: Any) -> Any:
        z = jax.random.normal(key, (batch, dimensions))
        return generator.apply(variables, z, train=True, mutable=["batch_stats"])

    def judge(variables: Any, x: Any) -> Any:
        logits, changed = discriminator.apply(variables, x, train=True, mutable=["batch_stats"])
        return jax.nn.logsumexp(logits, -1), changed

    def critic_loss(key: Any, g: Any, d: Any) -> Any:
        one, two = jax.random.split(key)
        high, changed = judge(d, public[jax.random.randint(one, (batch,), 0, len(public))])
        low, changed = judge({**d, **changed}, fake(g, two)[0])
        return jnp.mean(jax.nn.softplus(-high)) + jnp.mean(jax.nn.softplus(low)), changed

    def generator_loss(key: Any, g: Any, d: Any) -> Any:
        x, changed = fake(g, key)
        return jnp.mean(jax.nn.softplus(-judge(d, x)[0])), changed

    return adversarial(start, critic_loss, generator_loss, optimizer, steps=steps, critic_steps=critic_steps)
