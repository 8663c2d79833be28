"""How much two tables of paired rows tell of one another, as MC-GRA compares layers.

Zhou, Zhou, Li, Yao, Yao, Han, "On Strengthening and Defending Graph Reconstruction Attack with
Markov Chain Approximation", ICML 2023 (https://arxiv.org/abs/2306.09104), and its released code.
Row i of both tables is of the same thing. "mse" and "kl" are distances, 0 for equal tables; the
others grow with the dependence. "mse", "kl" and "kde" need tables of one shape, the others as many
rows.

A measure that has no scale of its own grows with the numbers in a table: "hsic" as their fourth
power, "dp" as their square. "cka" and "kde" are in [0, 1].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["MEASURES", "Measure", "cka", "dp", "hsic", "kde", "kde_of_columns", "kl", "mse"]

TINY = 1e-12
BINS = 16


class Measure(NamedTuple):
    """A measure of dependence.

    Attributes:
      of: of two tables, a scalar.
      grows: whether more is more dependence; else it is a distance.
    """

    of: Callable[[Any, Any], Float[Array, ""]]
    grows: bool


def mse(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean squared difference of all entries."""
    return jnp.mean((a - b) ** 2)


def kl(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean over rows of the divergence of softmax(b_i) from softmax(a_i), in nats.

    >>> round(float(kl(jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]])))), 4)
    0.1438
    """
    one, other = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    return jnp.mean(jnp.sum(jnp.exp(one) * (one - other), 1))


def hsic(a: Float[Array, "n d"], b: Float[Array, "n k"]) -> Float[Array, ""]:
    """tr(K H L H) of the linear kernels K = a a', L = b b', H = I - 11'/n; 0 or more, by no count divided.

    It is the sum of the squared entries of a' H b, by which it is computed: no [n, n] matrix is
    held.

    >>> float(hsic(jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [4.0]])))
    9.0
    """
    return jnp.sum(_product((a - jnp.mean(a, 0)).T, b - jnp.mean(b, 0)) ** 2)


def cka(a: Float[Array, "n d"], b: Float[Array, "n k"]) -> Float[Array, ""]:
    """hsic(a, b) / sqrt(hsic(a, a) hsic(b, b)), in [0, 1]; 0 where a table has equal rows."""
    a, b = (_unit(table - jnp.mean(table, 0)) for table in (a, b))  # the fourth powers of small numbers vanish
    alone = jnp.sum(_product(a.T, a) ** 2) * jnp.sum(_product(b.T, b) ** 2)
    return jnp.sum(_product(a.T, b) ** 2) / jnp.sqrt(jnp.maximum(alone, TINY))


def dp(a: Float[Array, "n d"], b: Float[Array, "n k"]) -> Float[Array, ""]:
    """|b' a|, the Frobenius norm. Not centered: tables that do not vary have one as well."""
    squares = jnp.sum(_product(b.T, a) ** 2)
    positive = squares > 0  # the slope of the root is infinite at zero
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def kde(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> Float[Array, ""]:
    """Normalized mutual information 2 I / (H_a + H_b) of paired entries, in [0, 1], by kernels.

    Every entry is shared among `BINS` values, even steps from its table's least entry to its
    largest, by Gaussian kernels as wide as a step; the ends are held constant in derivatives. It
    holds n d `BINS` numbers for each table.
    """
    return _information(*(_shares(table.reshape(-1, 1), _even(table)) for table in (a, b)))


def kde_of_columns(a: Float[Array, "n d"], b: Float[Array, "n k"], width: float = 0.32) -> Float[Array, ""]:
    """What the released code calls KDE: rows, for the entries of `kde`, are shared among the columns.

    Column j of d has the kernel exp(-(x / width)^2 / 2) of x = entry - j d / (d - 1), as if entries
    were numbers from 0 to d. Those of most tables are below 2, so that all but the first columns
    have no share and no slope; the share of a column that underflows is 0. Shares of a row do not
    sum to 1.
    """

    def shares(table: Any) -> Any:
        columns = table.shape[1]
        return jnp.exp(-0.5 * ((table - jnp.linspace(0.0, columns, columns)) / width) ** 2)

    return _information(shares(a), shares(b))


MEASURES = {
    "mse": Measure(mse, False),
    "kl": Measure(kl, False),
    "hsic": Measure(hsic, True),
    "cka": Measure(cka, True),
    "dp": Measure(dp, True),
    "kde": Measure(kde, True),
}


def _product(a: Array, b: Array) -> Array:
    """In full float32, also where the device's default multiplies with fewer digits."""
    return jnp.matmul(a, b, precision="highest")


def _unit(table: Array) -> Array:
    return table / jnp.sqrt(jnp.maximum(jnp.sum(table**2), TINY))


def _even(table: Array) -> Float[Array, " bins"]:
    least, most = (jax.lax.stop_gradient(end(table)) for end in (jnp.min, jnp.max))
    return jnp.linspace(least, most, BINS)


def _shares(entries: Float[Array, "m 1"], centers: Float[Array, " bins"]) -> Float[Array, "m bins"]:
    step = centers[1] - centers[0]
    return jax.nn.softmax(-0.5 * ((entries - centers) / jnp.where(step > 0, step, 1.0)) ** 2)


def _information(one: Float[Array, "m p"], other: Float[Array, "m q"]) -> Float[Array, ""]:
    """2 (H_1 + H_2 - H_12) / (H_1 + H_2) of m samples shared among p and q values; 0 where all is sure."""
    both = _product(one.T, other)
    entropies = [_entropy(shares) for shares in (jnp.mean(one, 0), jnp.mean(other, 0), both)]
    alone = entropies[0] + entropies[1]
    return jnp.where(alone > 1e-6, 2 * (alone - entropies[2]) / jnp.where(alone > 1e-6, alone, 1.0), 0.0)


def _entropy(shares: Array) -> Float[Array, ""]:
    p = shares / (jnp.sum(shares) + 1e-10)
    return -jnp.sum(p * jnp.log2(p + 1e-10))
