"""Linen modules as they are used for answering: in inference mode, with their hidden features named."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxmia.oracle import sown_features

__all__ = ["collections", "inference", "missing_arguments"]

_INFERENCE: dict[str, bool] = {
    **dict.fromkeys(("train", "training", "is_training", "is_train"), False),
    **dict.fromkeys(("deterministic", "use_running_average", "eval", "inference"), True),
}


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
