"""A target from an NNX module."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax

from jaxmia.adapters.function import from_function
from jaxmia.adapters.linen import missing_arguments
from jaxmia.target import Options, Target

__all__ = ["from_nnx"]


def from_nnx(
    model: Any,
    *,
    classes: int,
    call: Mapping[str, Any] = {},
    preprocess: Sequence[Any] | None = None,
    **options: Unpack[Options],
) -> Target:
    """A target from a copy of an NNX module in eval mode; the module itself stays as it is.

    Param and BatchStat variables are the parameters. Other state (counters, random streams) is put back before every
    call, so that an answer depends on the candidate alone.

    Candidates of image attacks are float32 `[height, width, channels]` in [0, 1].

    Args:
      model: an instance whose call takes a batch `[n, ...]` and returns logits `[n, classes]`, before any softmax, or what
        `from_function` takes.
      classes: columns of the logits, 2 or more; labels count from 0.
      call: keyword arguments of the call that stand for inference, such as `{"train": False}`.
      preprocess: (mean, standard deviation), numbers or arrays `[channels]`: the model reads (x - mean) / deviation.
      options: of `Target`: `granted` (default WEIGHTS), `defense`, `serve`, `answers` ("logits", "probabilities" or
        "anything"), `secret`, `noise`, `grid`, `example` (candidates `[n, ...]` to check the answers on).

    Raises:
      ValueError: for what is no NNX module, arguments of the call that are missing; when traced, for BatchNorm in training
        mode, or answers that do not fit `classes`.
    """
    from flax import nnx

    if not isinstance(model, nnx.Module):
        name = model.__name__ if isinstance(model, type) else type(model).__name__
        legal = f"an instance, {name}(...)" if isinstance(model, type) else "an instance of flax.nnx.Module"
        raise ValueError(f"model: {name} is no NNX module; legal is {legal}")
    missing_arguments(model.__call__, call)  # type: ignore[operator]
    model = nnx.clone(model)
    model.eval()
    graph, params, rest = nnx.split(model, (nnx.Param, nnx.BatchStat), ...)

    def apply(params: Any, batch: Any) -> Any:
        copied = nnx.merge(graph, params, rest, copy=True)
        before = jax.tree.leaves(nnx.state(copied, nnx.BatchStat))
        answer = copied(batch, **call)
        after = jax.tree.leaves(nnx.state(copied, nnx.BatchStat))
        if any(new is not old for new, old in zip(after, before, strict=True)):
            raise ValueError(
                f"call: {type(copied).__name__} changes its BatchNorm statistics, as in training; give the keyword "
                "arguments of inference, such as call={'train': False}"
            )
        return answer

    return from_function(apply, params, classes=classes, preprocess=preprocess, **options)
