"""A Vision Transformer that can be shown some of the patches of an image.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (https://arxiv.org/abs/2010.11929), for small images.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmia.models.features import expose

__all__ = ["ViT"]


class ViT(nn.Module):
    """Images `[n, h, w, c]`, or `{"image": [n, h, w, c], "kept": bool [n, patches]}`, to logits `[n, classes]`.

    Patches, row by row, and a class token with learned positions run through blocks of attention and a two-layer
    network, LayerNorm before each; the class token of the last block is the feature "penultimate". What it attends to
    there, the mean over heads, is the feature "attention", `[n, patches]`. No token attends to a patch that is not kept,
    so that the answer is what the same network says to the kept patches alone.

    Attributes:
      classes: how many.
      patch: height and width of a patch; they divide those of the image.
      width: of a token, a multiple of `heads`.
      depth: blocks.
      heads: of the attention.
      head: makes the last layer, `classes -> module`.
    """

    classes: int
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    head: Callable[[int], nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x: Array | dict[str, Array], train: bool = False) -> Float[Array, "n classes"]:
        """Returns logits."""
        image, kept = (x["image"], x["kept"]) if isinstance(x, dict) else (x, None)
        n, height, width, channels = image.shape
        if height % self.patch or width % self.patch or self.width % self.heads:
            raise ValueError(
                f"patch: {self.patch}, heads: {self.heads}; legal is what divides {height} x {width} and {self.width}"
            )
        rows, columns = height // self.patch, width // self.patch
        patches = image.reshape(n, rows, self.patch, columns, self.patch, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * columns, -1)
        tokens = nn.Dense(self.width)(patches)
        first = self.param("class_token", nn.initializers.zeros_init(), (1, 1, self.width))
        position = self.param("position", nn.initializers.normal(0.02), (1, 1 + rows * columns, self.width))
        tokens = jnp.concatenate([jnp.broadcast_to(first, (n, 1, self.width)), tokens], 1) + position
        kept = jnp.ones((n, rows * columns), bool) if kept is None else kept
        seen = jnp.concatenate([jnp.ones((n, 1), bool), kept], 1)
        weights = jnp.zeros(())
        for _ in range(self.depth):
            told, weights = _Attention(self.heads)(nn.LayerNorm()(tokens), seen)
            tokens = tokens + told
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(tokens)))
            tokens = tokens + nn.Dense(self.width)(hidden)
        expose(self, "attention", jnp.mean(weights[:, :, 0, 1:], 1))
        last = nn.LayerNorm()(tokens[:, 0])
        expose(self, "penultimate", last)
        return self.head(self.classes)(last)


class _Attention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, tokens: Float[Array, "n t d"], seen: Bool[Array, "n t"]) -> tuple[Array, Array]:
        """Returns tokens and weights `[n, heads, from, to]`."""
        n, count, width = tokens.shape
        each = width // self.heads
        query, key, value = (nn.Dense(width)(tokens).reshape(n, count, self.heads, each) for _ in range(3))
        scores = jnp.einsum("nthd,nshd->nhts", query, key) / jnp.sqrt(float(each))
        weights = nn.softmax(jnp.where(seen[:, None, None], scores, -jnp.inf), axis=-1)
        return nn.Dense(width)(jnp.einsum("nhts,nshd->nthd", weights, value).reshape(n, count, width)), weights
