"""A target from a PyTorch module, with its weights and gradients."""

from collections.abc import Sequence
from typing import Any, Unpack

import jax.numpy as jnp

from jaxmia.adapters.function import from_function
from jaxmia.answers import as_outputs
from jaxmia.oracle import Outputs
from jaxmia.target import Options, Target
from jaxmia.torch_modules import check_channels, functional, to_channels_last

__all__ = ["from_torch"]


def from_torch(
    module: Any,
    *,
    classes: int,
    features: Sequence[str] = (),
    channels: str = "first",
    preprocess: Sequence[Any] | None = None,
    **options: Unpack[Options],
) -> Target:
    """A target from a PyTorch module in evaluation mode, which torchax computes on JAX; the module itself stays as it is.

    Candidates of image attacks are float32 `[height, width, channels]` in [0, 1]. The module reads one at a time, as
    float32 `[1, channels, height, width]`. A candidate of another rank, such as a record `[features]` or a volume, it
    reads as it is, with the 1 in front.

    The parameters of the target are a copy: what is done to the module later does not change it. They are float32, as
    are all computations, whatever precision the module has; the tree is {"params": {name: array}}, names as in
    `named_parameters`, with "batch_stats", {path of a BatchNorm: {"mean", "var"}}, and "buffers", where the module has
    them. Tensors that are plain attributes are buffers; those inside lists are not looked for. Hooks that the module has
    are called while JAX traces.

    What every BatchNorm with running statistics reads is a feature, "batch_norm/<i>/<path>": i, four digits, counts
    their calls in order. `image/deep_inversion` reads these, and refuses a module with a BatchNorm that is not called in
    evaluation mode, as auxiliary classifiers have them: take these off.

    When a shape of candidates is first met, the module is asked about a random one in PyTorch, on the CPU, and in JAX,
    and refused where the answers differ by a thousandth of the largest number, or gradients by a hundredth. So a custom
    torch.autograd.Function whose backward is no derivative is refused too.

    Importing torchax names a PyTorch device "jax" for the rest of the process, which PyTorch then takes for an accelerator:
    torch.nn.DataParallel cannot be made any more where there is no GPU. Nothing else of PyTorch changes.

    Args:
      module: an instance whose call takes a batch `[n, ...]` and returns logits `[n, classes]`, before any softmax, or
        what `from_function` takes; an object with an attribute `logits`, such as a dataclass, counts as a dict.
      classes: columns of the logits, 2 or more; labels count from 0.
      features: submodules whose outputs are features, by name as in `named_modules`; "name/1" and so on where one is
        called again. Of outputs `[n, channels, height, width]` the feature is `[height, width, channels]`, unless
        channels is "last".
      channels: "first" for a module that reads images `[n, channels, height, width]`, "last" for
        `[n, height, width, channels]`.
      preprocess: (mean, standard deviation), numbers or arrays `[channels]`: the module reads (x - mean) / deviation.
      options: of `Target`: `granted` (default WEIGHTS), `defense`, `serve`, `answers` ("logits", "probabilities" or
        "anything"), `secret`, `noise`, `grid`, `example` (candidates `[n, ...]` to check the answers on).

    Raises:
      ImportError: without torch or torchax, or with versions that do not fit together.
      ValueError: for a class in place of an instance, what is no torch.nn.Module or not one in Python, parameters that
        are complex, quantized, sparse or without numbers, features that there are not; when traced, for candidates that
        PyTorch refuses, operators that torchax lacks or computes otherwise, random numbers, or answers that do not fit
        `classes`.
    """
    check_channels(channels)
    ask, params = functional(module, features=features)
    first = channels == "first"

    def apply(params: Any, batch: Any) -> Outputs:
        if first and getattr(batch, "ndim", None) == 4:
            batch = jnp.moveaxis(batch, -1, 1)
        answer = ask(params, batch)
        outputs = as_outputs(answer.outputs, classes)
        shown = to_channels_last(answer.features) if first else answer.features
        return Outputs(outputs.logits, {**outputs.features, **shown, **answer.batch_norm})

    return from_function(apply, params, classes=classes, preprocess=preprocess, **options)
