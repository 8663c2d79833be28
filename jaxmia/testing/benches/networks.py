"""Tiny dense networks for attacks that train some: generators, discriminators, surrogates."""

import flax.linen as nn
import jax.numpy as jnp

from jaxmia.models.features import expose

__all__ = [
    "Client",
    "ConditionalGenerator",
    "Denoiser",
    "Discriminator",
    "Generator",
    "Pixelwise",
    "ProjectionDiscriminator",
    "Surrogate",
    "Unshared",
]


class Surrogate(nn.Module):
    """Images to logits; linear where `hidden` is 0."""

    classes: int
    hidden: int = 0

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x.reshape(len(x), -1)
        return nn.Dense(self.classes)(nn.relu(nn.Dense(self.hidden)(x)) if self.hidden else x)


class Client(nn.Module):
    """Images to features of the same shape."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        flat = x.reshape(len(x), -1)
        return nn.Dense(flat.shape[1])(flat).reshape(x.shape)


class Pixelwise(nn.Module):
    """Images to two maps of their size, all pixels alike and each by itself, as 1 x 1 convolutions do."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(2)(nn.tanh(nn.Dense(32)(x)))


class Unshared(nn.Module):
    """Images to two maps of their size, each pixel by itself with weights of its own, small ones at first."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        kernel = self.param("kernel", nn.initializers.normal(0.2), (*x.shape[1:], 2))
        bias = self.param("bias", nn.initializers.zeros, (*x.shape[1:3], 2))
        return jnp.einsum("nhwc,hwcd->nhwd", x, kernel) + bias


class Generator(nn.Module):
    """Latents to images."""

    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z, train: bool = False):
        hidden = nn.relu(nn.Dense(64)(z))
        size = self.shape[0] * self.shape[1] * self.shape[2]
        return nn.sigmoid(nn.Dense(size)(hidden)).reshape(-1, *self.shape)


class ConditionalGenerator(nn.Module):
    """Latents and classes to images."""

    classes: int
    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z, labels, train: bool = False):
        told = nn.Embed(self.classes, 32)(labels)
        return Generator(self.shape)(jnp.concatenate([z, told], -1), train)


class Discriminator(nn.Module):
    """Images to logits, with the feature "penultimate"."""

    classes: int

    @nn.compact
    def __call__(self, x, train: bool = False):
        hidden = nn.leaky_relu(nn.Dense(64)(x.reshape(len(x), -1)), 0.2)
        expose(self, "penultimate", hidden)
        return nn.Dense(self.classes)(hidden)


class ProjectionDiscriminator(nn.Module):
    """Images and classes to scores."""

    classes: int

    @nn.compact
    def __call__(self, x, labels, train: bool = False):
        hidden = nn.leaky_relu(nn.Dense(64)(x.reshape(len(x), -1)), 0.2)
        return nn.Dense(1)(hidden)[:, 0] + jnp.sum(nn.Embed(self.classes, 64)(labels) * hidden, -1)


class Denoiser(nn.Module):
    """Noisy images, noise levels in [0, 1] and classes, of which one more is none, to noise."""

    classes: int

    @nn.compact
    def __call__(self, x, level, labels, train: bool = False):
        flat = x.reshape(len(x), -1)
        waves = jnp.sin(jnp.pi * level[:, None] * jnp.arange(1, 9))
        told = jnp.concatenate([flat, waves, nn.Embed(self.classes + 1, 16)(labels)], -1)
        hidden = nn.silu(nn.Dense(128)(nn.silu(nn.Dense(128)(told))))
        return (flat + nn.Dense(flat.shape[1])(hidden)).reshape(x.shape)
