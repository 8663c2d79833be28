"""NetMF: the matrix that random-walk embeddings such as DeepWalk factorize, without any training.

Qiu, Dong, Ma, Li, Wang, Tang, "Network Embedding as Matrix Factorization: Unifying DeepWalk, LINE,
PTE, and node2vec", WSDM 2018 (https://arxiv.org/abs/1710.02971). With P = D^-1 A, vol the sum of the
degrees and one negative sample,

    M_T = log max(1, vol / T * (P + P^2 + ... + P^T) D^-1),

and what is published of a graph is the best approximation of M_T by a symmetric matrix of rank k.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["netmf", "walk_proximity"]


def walk_proximity(adjacency: Float[Array, "n n"], window: int = 10, *, form: str = "powers") -> Float[Array, "n n"]:
    """M_T, symmetric, in [0, inf), of full rank.

    Both forms are the same matrix. The powers are differentiable, also where eigenvalues are equal;
    their derivative is zero where the argument of the logarithm is below 1. A node without edges has
    a row of zeros.

    Args:
      adjacency: symmetric with a zero diagonal, entries in [0, 1].
      window: T, longest walk, 1 or more.
      form: "powers" sums D^-1/2 (N + ... + N^T) D^-1/2, N = D^-1/2 A D^-1/2, by repeated squaring;
        "spectrum" sums the powers of the eigenvalues of N.

    Raises:
      ValueError: for a window below 1, or another form.

    >>> pair = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> [[round(float(v), 4) for v in row] for row in walk_proximity(pair, 1)]
    [[0.0, 0.6931], [0.6931, 0.0]]
    """
    if window < 1:
        raise ValueError(f"window: {window}; legal is 1 or more")
    if form not in ("powers", "spectrum"):
        raise ValueError(f"form: {form!r}; legal is powers or spectrum")
    degrees = jnp.sum(adjacency, axis=1)
    linked = degrees > 0
    scale = jnp.where(linked, 1.0 / jnp.sqrt(jnp.where(linked, degrees, 1.0)), 0.0)
    scales = scale[:, None] * scale
    normalized = adjacency * scales
    walks = _power_sum(normalized, window) if form == "powers" else _spectral_sum(normalized, window)
    walks = (walks + walks.T) / 2  # symmetric but for rounding
    return jnp.log(jnp.maximum(1.0, jnp.sum(degrees) / window * (walks * scales)))


def netmf(
    adjacency: Float[Array, "n n"], window: int = 10, rank: int = 128, *, form: str = "powers"
) -> Float[Array, "n n"]:
    """E_k: the best symmetric approximation of M_T of rank k.

    It keeps the eigenvalues of largest magnitude.

    Args:
      adjacency: symmetric with a zero diagonal, entries in [0, 1].
      window: T, longest walk, 1 or more.
      rank: k, 1 or more; n or more keeps all of M_T.
      form: as in `walk_proximity`.

    Raises:
      ValueError: for a window or rank below 1, or another form.

    >>> netmf(jnp.array([[0.0, 1.0], [1.0, 0.0]]), 1, 1).shape
    (2, 2)
    """
    if rank < 1:
        raise ValueError(f"rank: {rank}; legal is 1 or more")
    whole = walk_proximity(adjacency, window, form=form)
    if rank >= len(adjacency):
        return whole
    values, vectors = jnp.linalg.eigh(whole)
    kept = jnp.argsort(-jnp.abs(values))[:rank]
    near = (vectors[:, kept] * values[kept]) @ vectors[:, kept].T
    return (near + near.T) / 2  # symmetric but for rounding


def _power_sum(matrix: Float[Array, "n n"], most: int) -> Float[Array, "n n"]:
    """N + ... + N^most in log2(most) doublings, N + ... + N^2k = (N + ... + N^k) (I + N^k)."""
    total = power = matrix
    for bit in f"{most:b}"[1:]:
        total = total + total @ power
        power = power @ power
        if bit == "1":
            power = power @ matrix
            total = total + power
    return total


def _spectral_sum(matrix: Float[Array, "n n"], most: int) -> Float[Array, "n n"]:
    # Not lambda (1 - lambda^T) / (1 - lambda): it is 0 / 0 at 1, once for every part of the graph.
    values, vectors = jnp.linalg.eigh(matrix)
    summed = jnp.zeros_like(values)
    for _ in range(most):
        summed = values * (1.0 + summed)
    return (vectors * summed) @ vectors.T
