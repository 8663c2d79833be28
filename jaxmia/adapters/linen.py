"""A target from a Linen module: in inference mode, with its hidden features named."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

from jaxmia.adapters.function import from_function
from jaxmia.answers import as_outputs
from jaxmia.oracle import Outputs, sown_features
from jaxmia.target import Options, Target

__all__ = ["FirstLayers", "collections", "from_linen", "inference", "missing_arguments"]

_INFERENCE: dict[str, bool] = {
    **dict.fromkeys(("train", "training", "is_training", "is_train"), False),
    **dict.fromkeys(("deterministic", "use_running_average", "eval", "inference"), True),
}


def from_linen(
    module: Any,
    variables: Any,
    *,
    classes: int,
    call: Mapping[str, Any] = {},
    preprocess: Sequence[Any] | None = None,
    **options: Unpack[Options],
) -> Target:
    """A target from a Linen module in inference mode; named features are what it sows into "features".

    What every BatchNorm reads is a feature as well, "batch_norm/<i>/<path>": i, four digits, counts their calls in order,
    and path is where its statistics lie in "batch_stats". Inside `nn.scan` and `nn.vmap` there are no features.

    Candidates of image attacks are float32 `[height, width, channels]` in [0, 1].

    Args:
      module: an instance whose call takes a batch `[n, ...]` and returns logits `[n, classes]`, before any softmax, or
        what `from_function` takes.
      variables: what `module.init` returns: "params" and, where the module has them, "batch_stats"; or a TrainState.
      classes: columns of the logits, 2 or more; labels count from 0.
      call: keyword arguments of the call that stand for inference, such as `{"train": False}`.
      preprocess: (mean, standard deviation), numbers or arrays `[channels]`: the module reads (x - mean) / deviation.
      options: of `Target`: `granted` (default WEIGHTS), `defense`, `serve`, `answers` ("logits", "probabilities" or
        "anything"), `secret`, `noise`, `grid`, `example` (candidates `[n, ...]` to check the answers on).

    Raises:
      ValueError: for a class in place of an instance, arguments of the call that are missing; when traced, for variables
        that are missing, a module in training mode, or answers that do not fit `classes`.
    """
    variables, ask = collections(module, variables), inference(module, call)

    def apply(variables: Any, batch: Any) -> Outputs:
        answer, features = ask(variables, batch)
        outputs = as_outputs(answer, classes)
        return Outputs(outputs.logits, {**outputs.features, **features})

    return from_function(apply, variables, classes=classes, preprocess=preprocess, **options)


class FirstLayers(NamedTuple):
    """A Linen module up to a hidden feature, used like a Linen module that answers this feature.

    Its variables are those of the whole module: what comes after the feature has no part in anything.

    Attributes:
      module: the whole, `(x [n, ...], train) -> logits`.
      feature: the name under which the layer is exposed.
    """

    module: Any
    feature: str

    def init(self, key: Any, x: Any, train: bool = False) -> Any:
        """Variables of the whole module."""
        return self.module.init(key, x, train=train)

    def apply(self, variables: Any, x: Any, train: bool = False, mutable: Any = ()) -> Any:
        """The feature of a batch, and where collections are mutable, these as well."""
        _, changed = self.module.apply(variables, x, train=train, mutable=[*mutable, "features"])
        feature = sown_features(changed)[self.feature]
        return (feature, {name: changed[name] for name in mutable if name in changed}) if mutable else feature


def missing_arguments(function: Callable, call: Mapping[str, Any]) -> None:
    """Refuse a call of one array and the keywords `call` that `function` cannot take.

    Raises:
      ValueError: naming the arguments, with a suggestion.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables do not tell
        return
    try:
        signature.bind(None, **call)
    except TypeError as error:
        raise ValueError(f"call: {error}; {_suggestion(function)}") from None


def _suggestion(function: Callable) -> str:
    arguments = {name: _INFERENCE[name] for name in inspect.signature(function).parameters if name in _INFERENCE}
    return f"give the keyword arguments of inference, such as call={arguments or {'train': False}}"


def collections(module: Any, variables: Any) -> Any:
    """The variables of a module as plain dicts: of a dict, a FrozenDict or a TrainState.

    Without what a module sowed while it was initialized, which would come before what it sows later.

    Raises:
      ValueError: for a class in place of a module, or other variables.
    """
    from flax.core import unfreeze

    if isinstance(module, type) or not hasattr(module, "apply"):
        name = getattr(module, "__name__", type(module).__name__)
        legal = f"an instance, {name}(...)" if isinstance(module, type) else "an instance of flax.linen.Module"
        raise ValueError(f"module: {name} is no Linen module; legal is {legal}")
    if not isinstance(variables, Mapping):
        params = getattr(variables, "params", None)
        if not isinstance(params, Mapping):
            raise ValueError(
                f"variables: {type(variables).__name__}; legal is what module.init returns, a dict with 'params', or a "
                "TrainState"
            )
        stats = getattr(variables, "batch_stats", None)
        variables = params if "params" in params else {"params": params}
        variables = {**variables, "batch_stats": stats} if stats else variables
    return {name: tree for name, tree in unfreeze(dict(variables)).items() if name not in ("features", "batch_norm")}


def inference(module: Any, call: Mapping[str, Any]) -> Callable[[Any, Any], tuple[Any, dict[str, Any]]]:
    """`(variables, batch) -> (answer, features)` of a Linen module, features being what it sows into "features".

    What every BatchNorm reads is a feature as well, "batch_norm/<i>/<path>": i, four digits, counts their calls in
    order, and path is where its statistics lie in "batch_stats". Not shown is what Flax lifts (`nn.scan`, `nn.vmap`),
    where a layer's inputs do not leave the loop.
    """
    from flax import linen as nn

    if isinstance(module, nn.Module):
        missing_arguments(module.__call__, call)  # type: ignore[attr-defined]

    def apply(variables: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        called: list[str] = []

        def watch(inner: Any, args: Any, keywords: Any, context: Any) -> Any:
            if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
                context.module.sow("batch_norm", "input", args[0])
                called.append("/".join(context.module.path))
            return inner(*args, **keywords)

        with nn.intercept_methods(watch):
            answer, sown = _apply(module, variables, batch, call)
        read = sown_features({"features": sown.get("batch_norm", {})})
        inputs: dict[str, Any] = {}
        for place, path in enumerate(called):
            again = called[:place].count(path)
            name = f"{path}/input/{again}" if again else f"{path}/input"
            if name in read:
                inputs[f"batch_norm/{len(inputs):04}/{path}"] = read[name]
        return answer, {**sown_features(sown), **inputs}

    return apply


def _apply(module: Any, variables: Any, batch: Any, call: Mapping[str, Any]) -> Any:
    """The module's own words, where it cannot answer, as what is to be done."""
    from flax import errors

    how = _suggestion(module.__call__) if callable(module) else "give the keyword arguments of inference as call={...}"
    try:
        return module.apply(variables, batch, mutable=["features", "batch_norm"], **call)
    except errors.ModifyScopeVariableError:
        problem = f"call: {type(module).__name__} changes its variables, as in training; {how}"
    except errors.InvalidRngError:
        problem = f"call: {type(module).__name__} draws random numbers, as dropout does in training; {how}"
    except (errors.ScopeCollectionNotFound, errors.ScopeVariableNotFoundError, errors.ScopeParamNotFoundError) as error:
        lacks, has = str(error).split(". (http")[0].split(" (http")[0], ", ".join(map(str, variables)) or "nothing"
        legal = "legal is all that module.init returns, {'params': ...} and, with BatchNorm, 'batch_stats'"
        problem = f"variables: hold {has}, but {lacks}; {legal}"
    raise ValueError(problem)
