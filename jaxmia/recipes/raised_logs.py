"""Logarithms of served scores, as inversion networks read them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["raised_logs"]


def raised_logs(scores: Float[Array, " classes"], keep: int | None = None) -> Float[Array, " classes"]:
    """Of the `keep` largest scores (None: all) max(log p, -1000) + 50, the others zero.

    Where the least of these is negative, all are raised until it is zero, as in the released code of TB-MIA (Yang et al.,
    CCS 2019) and of C2FMI (Ye et al., TDSC 2023).

    >>> [round(float(v), 2) for v in raised_logs(jnp.asarray([1.0, 1e-30, 5e-31, 1e-12]))]
    [69.77, 0.69, 0.0, 42.14]
    """
    logs = jnp.maximum(jnp.log(scores), -1000.0) + 50.0
    shown = jnp.argsort(jnp.argsort(-scores)) < (scores.shape[0] if keep is None else keep)
    least = jnp.min(jnp.where(shown, logs, jnp.inf))
    return jnp.where(shown, logs + jax.nn.relu(-least), 0.0)
