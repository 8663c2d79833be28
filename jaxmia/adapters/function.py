"""A target from a function of parameters and candidates."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia.answers import as_outputs, first_row
from jaxmia.oracle import Outputs
from jaxmia.target import Options, Target

__all__ = ["from_function", "standardizer"]


def from_function(
    apply: Callable[[Any, Any], Any],
    params: Any,
    *,
    classes: int,
    preprocess: Sequence[Any] | None = None,
    **options: Unpack[Options],
) -> Target:
    """A target from any function of parameters and a batch of candidates.

    Candidates of image attacks are float32 `[height, width, channels]` in [0, 1]; what the model wants otherwise
    (normalization, channels first) belongs into `preprocess` or into the function.

    Args:
      apply: `(params, batch [n, ...]) -> logits [n, classes]`, before any softmax. Also legal is `Outputs`, a dict with
        "logits" or a tuple with them, of which the rest are features by name.
      params: pytree of arrays.
      classes: columns of the logits, 2 or more; labels count from 0.
      preprocess: (mean, standard deviation), numbers or arrays `[channels]`: the model reads (x - mean) / deviation.
      options: of `Target`: `granted` (default WEIGHTS), `defense`, `serve`, `answers` ("logits", "probabilities" or
        "anything"), `secret`, `noise`, `grid`, `example` (candidates `[n, ...]` to check the answers on).

    Raises:
      ValueError: for options that `Target` refuses; when traced, for answers that do not fit `classes`.
    """
    standardize = standardizer(preprocess)

    def one(params: Any, x: Any) -> Outputs:
        batch = jax.tree.map(lambda leaf: leaf[None], x)
        out = first_row(as_outputs(apply(params, standardize(batch)), classes))
        if jnp.issubdtype(out.logits.dtype, jnp.floating):  # a model in bfloat16 answers in float32 like any other
            out = out._replace(logits=out.logits.astype(jnp.promote_types(out.logits.dtype, jnp.float32)))
        return out

    return Target(one, params, classes=classes, **options)


def standardizer(preprocess: Sequence[Any] | None) -> Callable[[Any], Any]:
    """(x - mean) / deviation of a batch, in the precision of the batch."""
    if preprocess is None:
        return lambda batch: batch
    try:
        mean, deviation = (np.asarray(value, np.float32) for value in preprocess)
        legal = np.all(np.isfinite(mean)) and np.all(np.isfinite(deviation)) and np.all(deviation > 0)
    except (TypeError, ValueError):
        legal = False
    if not legal:
        raise ValueError(f"preprocess: {preprocess}; legal is (mean, deviation), finite, with deviation above 0")

    def standardize(batch: Any) -> Any:
        if not hasattr(batch, "dtype"):
            raise ValueError(
                f"preprocess: candidates are a {type(batch).__name__}; legal is one array, such as an image"
            )
        if not np.issubdtype(batch.dtype, np.floating) and batch.dtype != jnp.bfloat16:
            raise ValueError(f"preprocess: candidates are {batch.dtype}; legal is floats in [0, 1]")
        return (batch - mean.astype(batch.dtype)) / deviation.astype(batch.dtype)

    return standardize
