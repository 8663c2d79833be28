"""Small causal language models over integer tokens: targets of extraction and of text inversion.

Both map tokens `[n, t]` to logits `[n, t, vocabulary]`; `logits[:, i]` is about `tokens[:, i + 1]` and depends on
`tokens[:, :i + 1]` alone. Hidden layers are sown into "features" as "block1", "block2", ... and "penultimate".
"""

from typing import cast

import flax.linen as nn
from jaxtyping import Array, Float, Int

from jaxmia.models.features import expose

__all__ = ["LSTMLanguageModel", "TransformerLanguageModel"]


class LSTMLanguageModel(nn.Module):
    """Stacked LSTM; the defaults are the character model of Carlini et al. 2019, "The Secret Sharer".

    Attributes:
      vocabulary: number of tokens.
      width: units of the embedding and of each layer.
      layers: number of LSTM layers.
    """

    vocabulary: int
    width: int = 200
    layers: int = 2

    @nn.compact
    def __call__(self, tokens: Int[Array, "n t"], train: bool = False) -> Float[Array, "n t vocabulary"]:
        """Returns the logits of the next token at every position."""
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        for layer in range(1, self.layers + 1):
            x = cast(Array, nn.RNN(nn.OptimizedLSTMCell(self.width))(x))
            expose(self, "penultimate" if layer == self.layers else f"block{layer}", x)
        return nn.Dense(self.vocabulary)(x)


class TransformerLanguageModel(nn.Module):
    """Decoder-only transformer with learned positions and normalization before each block (Radford et al. 2019).

    Attributes:
      vocabulary: number of tokens.
      length: longest sequence, in tokens.
      width: units of the residual stream, a multiple of `heads`.
      heads: attention heads in each layer.
      layers: number of layers.
    """

    vocabulary: int
    length: int
    width: int = 128
    heads: int = 4
    layers: int = 2

    @nn.compact
    def __call__(self, tokens: Int[Array, "n t"], train: bool = False) -> Float[Array, "n t vocabulary"]:
        """Returns the logits of the next token at every position; t is at most `length`."""
        if tokens.shape[1] > self.length:
            raise ValueError(f"tokens: {tokens.shape[1]} positions, the model has length={self.length}")
        normal = nn.initializers.normal(0.02)
        x = nn.Embed(self.vocabulary, self.width, embedding_init=normal)(tokens)
        x = x + self.param("positions", normal, (self.length, self.width))[: tokens.shape[1]]
        mask = nn.make_causal_mask(tokens)
        for layer in range(1, self.layers + 1):
            x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x), mask=mask)
            h = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(h)
            if layer < self.layers:
                expose(self, f"block{layer}", x)
        x = nn.LayerNorm()(x)
        expose(self, "penultimate", x)
        return nn.Dense(self.vocabulary, use_bias=False)(x)
