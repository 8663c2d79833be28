"""PyTorch modules as functions on JAX, through torchax, which computes PyTorch's operators with JAX's."""
# pyright: reportMissingImports=false
# Neither torch nor torchax has to be installed where types are checked.

import copy
import dataclasses
import functools
import importlib.metadata
import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia.compiling import jit
from jaxmia.packages import require

__all__ = ["Answer", "check_channels", "functional", "to_channels_last"]

_ONE_AT_A_TIME = threading.RLock()  # torchax's environment and Python's filters of warnings belong to all threads
_OUTPUTS, _GRADIENTS = 1e-3, 1e-2  # how far from PyTorch's the largest may be, relative to the largest number
_OR_ELSE = ", or, for a target that grants no more than scores, from_callable"


class Answer(NamedTuple):
    """What a module says of a batch.

    Attributes:
      outputs: what it returned, as arrays: one, a dict, or a tuple, in which None stands for what is no tensor.
      features: outputs of submodules, by name; "name/1" and so on where one is called again.
      batch_norm: what every BatchNorm read, `[n, ..., channels]`, by "batch_norm/<i>/<path>", i being four digits.
    """

    outputs: Any
    features: dict[str, Any]
    batch_norm: dict[str, Any]


class _Parts(NamedTuple):
    """A module taken apart.

    Attributes:
      skeleton: a copy in evaluation mode without numbers, which is copied again for every call.
      loose: (path, name) of tensors that are plain attributes.
      batch_norms: paths of BatchNorm layers with running statistics.
      features: names of submodules.
    """

    skeleton: Any
    loose: tuple[tuple[str, str], ...]
    batch_norms: tuple[str, ...]
    features: tuple[str, ...]


def functional(
    module: Any, name: str = "module", features: Sequence[str] = ()
) -> tuple[Callable[[Any, Any], Answer], dict[str, Any]]:
    """A PyTorch module in evaluation mode as `(params, batch) -> Answer`, and its params; the module stays as it is.

    The params are JAX arrays of their own: {"params": {name: array}}; "batch_stats", {path of a BatchNorm: {"mean",
    "var"}}; and "buffers", {name: array}, with tensors that are plain attributes too. What a module lacks is left out,
    and counters of batches are. float64, float16 and bfloat16 become float32, and so do batches of them.

    When a batch of one shape is met for the first time, the module is asked about a random one in PyTorch and in JAX, and
    refused where answers or gradients differ.

    Args:
      module: an instance of torch.nn.Module, whose call takes one batch.
      name: what errors call it.
      features: names of submodules, as in `named_modules`.

    Raises:
      ImportError: without torch or torchax, or with versions that do not fit together.
      ValueError: for what is no such module, or a tensor that is not dense real numbers; when traced, for what PyTorch or
        torchax cannot compute, or JAX computes otherwise.
    """
    require("torch", "torchax")
    _environment()
    _check_module(module, name)
    parts, params = _taken_apart(module, name, features)
    checked: set[Any] = set()

    def apply(values: Any, batch: Any) -> Answer:
        batch = _single(batch)
        with _ONE_AT_A_TIME:
            if (kind := (batch.shape, batch.dtype)) not in checked:
                _check_against_pytorch(parts, params, *kind, name)
                checked.add(kind)
            return _ask_jax(parts, values, batch, name)

    return apply, params


def check_channels(channels: str) -> None:
    """Refuse another place than first or last (ValueError)."""
    if channels not in ("first", "last"):
        raise ValueError(f"channels: {channels!r}; legal is first or last")


def to_channels_last(tree: Any) -> Any:
    """Arrays `[n, channels, height, width]` as `[n, height, width, channels]`; any other stays as it is."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, -1) if jnp.ndim(leaf) == 4 else leaf, tree)


@functools.cache
def _environment() -> tuple[Any, Any]:
    """An environment of torchax of our own, and its random key, which no module in evaluation mode uses up."""
    import torch

    # Importing torchax turns off PyTorch's fast attention and asks for telemetry: neither is needed here.
    fast, variable = torch.backends.mha.get_fastpath_enabled(), "ENABLE_RUNTIME_UPTIME_TELEMETRY"
    told = os.environ.get(variable)
    try:
        from torchax.tensor import Environment
    except Exception as error:  # each torchax fits some versions of torch, and fails anyhow with others
        pair = " and ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torchax", "torch"))
        raise ImportError(
            f"{pair} do not fit together ({_words(error)}): pip install -U --pre torchax torch"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        if told is None:
            os.environ.pop(variable, None)
    with jax.ensure_compile_time_eval():
        return Environment(), jax.random.key(0)


def _check_module(module: Any, name: str) -> None:
    import torch

    if not isinstance(module, torch.nn.Module):
        kind = module.__name__ if isinstance(module, type) else type(module).__name__
        legal = f"an instance, {kind}(...)" if isinstance(module, type) else "an instance of torch.nn.Module"
        raise ValueError(f"{name}: {kind} is no PyTorch module; legal is {legal}")
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(f"{name}: is TorchScript, which runs outside of Python; legal is the module it was made of")
    for inner in ("_orig_mod", "module"):  # of torch.compile, of the DataParallel classes
        parallel = torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel
        if inner in module._modules and (inner == "_orig_mod" or isinstance(module, parallel)):
            raise ValueError(f"{name}: {type(module).__name__} wraps a module; legal is the module in it, .{inner}")


def _taken_apart(module: Any, name: str, features: Sequence[str]) -> tuple[_Parts, dict[str, Any]]:
    import torch

    named = dict(module.named_modules(remove_duplicate=False))
    if isinstance(features, str):
        raise ValueError(f"features: {features!r}; legal is a sequence of names, such as ({features!r},)")
    for feature in features:
        if not feature or feature not in named:
            raise ValueError(f"features: {feature!r}; legal is {', '.join(filter(None, named)) or 'none'}")
    batch_norms, counters, loose = [], set(), {}
    for path, part in module.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._NormBase):
            counters.add(_join(path, "num_batches_tracked"))
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            batch_norms.append(path)
        loose |= {(path, key): value for key, value in vars(part).items() if isinstance(value, torch.Tensor)}
    own, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    memo: dict[int, Any] = {
        id(tensor): torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for place, tensor in [*buffers.items(), *((_join(*place), tensor) for place, tensor in loose.items())]
        if _check_tensor(tensor, f"{name}: {place}")
    }
    for place, tensor in own.items():
        _check_tensor(tensor, f"{name}: {place}")
        memo[id(tensor)] = torch.nn.Parameter(torch.empty_like(tensor, device="meta"), tensor.requires_grad)
    try:
        skeleton = copy.deepcopy(module, memo).eval()
    except Exception as error:
        raise ValueError(f"{name}: {_kind(module)} cannot be copied ({_words(error)})") from error
    statistics = {}
    for path in batch_norms:
        mean, var = (buffers.pop(_join(path, key)) for key in ("running_mean", "running_var"))
        statistics[path] = {"mean": _array(mean), "var": _array(var)}
    rest = {place: tensor for place, tensor in buffers.items() if place not in counters}
    rest |= {_join(*place): tensor for place, tensor in loose.items()}
    params = {
        "params": {place: _array(tensor) for place, tensor in own.items()},
        "batch_stats": statistics,
        "buffers": {place: _array(tensor) for place, tensor in rest.items()},
    }
    parts = _Parts(skeleton, tuple(loose), tuple(batch_norms), tuple(features))
    return parts, {kind: tree for kind, tree in params.items() if tree}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind(module: Any) -> str:
    return type(module).__name__


def _check_tensor(tensor: Any, where: str) -> bool:
    """True for a tensor of dense real numbers; refuse any other."""
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        raise ValueError(f"{where} has no shape yet; legal is a lazy module that was asked once")
    if tensor.is_meta:
        raise ValueError(f"{where} is on the device meta; legal is a tensor with numbers")
    if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
        raise ValueError(f"{where} is {tensor.dtype}, {tensor.layout}; legal is dense real numbers")
    return True


def _array(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
    return jnp.array(tensor.numpy(), copy=True)  # the module may be trained on in place


def _single(batch: Any) -> Any:
    if not hasattr(batch, "dtype"):
        raise ValueError(f"candidates: a {type(batch).__name__}; legal is one array, such as an image")
    batch = jnp.asarray(batch)
    return batch.astype(jnp.float32) if jnp.issubdtype(batch.dtype, jnp.floating) else batch


def _state(values: Any) -> dict[str, Any]:
    """Params by the names that PyTorch has for them."""
    state = {**values.get("params", {}), **values.get("buffers", {})}
    for path, known in values.get("batch_stats", {}).items():
        state |= {_join(path, f"running_{key}"): known[key] for key in ("mean", "var")}
    return state


def _ask(module: Any, parts: _Parts, state: dict[str, Any], batch: Any, convert: Callable[[Any], Any]) -> Answer:
    """The answer of `module`, a copy of the skeleton of which nothing is used again: it may keep what it likes."""
    import torch

    state = dict(state)
    for path, name in parts.loose:
        vars(module.get_submodule(path))[name] = state.pop(_join(path, name))
    features: dict[str, Any] = {}
    read: dict[str, Any] = {}

    # What is shown is converted at once: a later operator may write into the same tensor.
    def show(name: str) -> Callable:
        def hook(_module: Any, _arguments: Any, output: Any) -> None:
            again = sum(key == name or key.startswith(f"{name}/") for key in features)
            features[f"{name}/{again}" if again else name] = _converted(output, convert)

        return hook

    def watch(path: str) -> Callable:
        def hook(_module: Any, arguments: Any, keywords: Any) -> None:
            given = arguments[0] if arguments else keywords["input"]
            read[f"batch_norm/{len(read):04}/{path}"] = jnp.moveaxis(jnp.asarray(convert(given)), 1, -1)

        return hook

    for name in dict.fromkeys(parts.features):
        module.get_submodule(name).register_forward_hook(show(name))
    for path in parts.batch_norms:
        module.get_submodule(path).register_forward_pre_hook(watch(path), with_kwargs=True)
    answer = torch.func.functional_call(module, state, (batch,))
    return Answer(_converted(answer, convert), features, read)


def _converted(answer: Any, convert: Callable[[Any], Any]) -> Any:
    """The tensors of an answer in dicts and tuples; None for anything else."""
    import torch

    if isinstance(answer, torch.Tensor):
        return convert(answer)
    if hasattr(answer, "_asdict"):
        answer = answer._asdict()
    elif hasattr(answer, "logits") and not isinstance(answer, Mapping):
        fields = dataclasses.fields(answer) if dataclasses.is_dataclass(answer) else None
        names = vars(answer) if fields is None else [field.name for field in fields]
        answer = {name: getattr(answer, name) for name in names}
    if isinstance(answer, Mapping):
        parts = {str(name): _converted(part, convert) for name, part in answer.items()}
        return {name: part for name, part in parts.items() if jax.tree.leaves(part)}
    if isinstance(answer, tuple | list):
        return tuple(_converted(part, convert) for part in answer)
    return None


def _ask_jax(parts: _Parts, values: Any, batch: Any, name: str) -> Answer:
    import torch

    environment, key = _environment()
    module, state = copy.deepcopy(parts.skeleton), environment.j2t_iso(_state(values))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Explicitly requested dtype .*64", UserWarning)  # of indices, all small
            # What a module makes without a device, such as torch.arange(n), is JAX's as well.
            with environment.override_property(prng=key), environment, torch.device("jax"):
                answer = _ask(module, parts, state, environment.j2t_iso(batch), environment.t2j_iso)
                drew = environment.prng_key is not key
    except Exception as error:  # of torchax, of JAX or of the module: no class in common
        problem = _words_of_torchax(error)
        raise ValueError(
            f"{name}: {_kind(module)} cannot be run by torchax, as {problem}; legal is a module without it{_OR_ELSE}"
        ) from error
    if drew:
        raise ValueError(
            f"{name}: {_kind(module)} draws random numbers in evaluation mode; legal is a module whose answer "
            "depends on its input alone, such as one with its noise in a buffer"
        )
    if training := [_kind(part) for part in module.modules() if part.training]:
        raise ValueError(
            f"{name}: {_kind(module)} keeps or puts a {training[0]} in training mode; legal is a module that lets eval() "
            "end it"
        )
    if not jax.tree.leaves(answer.outputs):
        raise ValueError(f"{name}: {_kind(module)} returns no tensor; legal is a tensor, a dict or a tuple of them")
    for feature in parts.features:
        if feature not in answer.features:
            raise ValueError(f"features: {feature!r} is never called by {_kind(module)}; legal is one that is")
    return answer


def _words(error: Exception) -> str:
    """The first line of what an exception says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(".: ")


def _words_of_torchax(error: Exception) -> str:
    from torchax.tensor import OperatorNotFound

    if isinstance(error, OperatorNotFound):
        found = re.search(r"name (\S+)", str(error))
        return f"torchax lacks the operator {found[1] if found else error}"
    if isinstance(error, AssertionError) and "Tensor" in str(error):
        return "it computes with a tensor that is neither parameter nor buffer (register_buffer makes it one)"
    if isinstance(error, jax.errors.ConcretizationTypeError | jax.errors.NonConcreteBooleanIndexError):
        return "what it does depends on the numbers in a tensor, which JAX does not know while it traces"
    return f"it raised {_words(error)}"


def _check_against_pytorch(parts: _Parts, params: Any, shape: tuple[int, ...], dtype: Any, name: str) -> None:
    """Refuse a module that answers, or has a gradient, otherwise in JAX than in PyTorch, on random numbers in [0, 1)."""
    floating = jnp.issubdtype(dtype, jnp.floating)
    x = np.random.default_rng(0).random(shape, np.float32) if floating else np.zeros(shape, dtype)
    kind = _kind(parts.skeleton)
    try:
        expected, slope = _ask_pytorch(parts, params, x)
    except Exception as error:
        raise ValueError(
            f"{name}: {kind} refuses {dtype.name}{list(shape)} in PyTorch itself: {_words(error)}"
        ) from error

    def ask(values: Any, x: Any) -> tuple[Any, Any]:
        outputs = _ask_jax(parts, values, x, name).outputs
        return sum((jnp.sum(leaf * _weights(leaf)) for leaf in _floats(outputs)), jnp.zeros(())), outputs

    traced = jax.value_and_grad(ask, 1, has_aux=True) if slope is not None else lambda *given: (ask(*given), None)
    with jax.ensure_compile_time_eval(), jax.disable_jit(False), jax.default_matmul_precision("highest"):
        (_, told), gradient = jit(traced)(params, jnp.asarray(x))
    same = jax.tree.structure(told) == jax.tree.structure(expected)
    pairs = list(zip(jax.tree.leaves(told), jax.tree.leaves(expected))) if same else []
    if not same or not all(_near(*pair, _OUTPUTS) for pair in pairs):
        raise ValueError(
            f"{name}: {kind} answers otherwise in torchax than in PyTorch, which compute one of its operators otherwise; "
            f"legal is a module that both agree on{_OR_ELSE}"
        )
    if slope is not None and not _near(gradient, slope, _GRADIENTS):
        raise ValueError(
            f"{name}: {kind} has another gradient in JAX than in PyTorch, as where a torch.autograd.Function has a "
            f"backward of its own, which JAX does not know; legal is a module that both agree on{_OR_ELSE}"
        )


def _ask_pytorch(parts: _Parts, params: Any, x: np.ndarray) -> tuple[Any, np.ndarray | None]:
    """Outputs, and the gradient by x of their weighted sum, where there is one."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.device("cpu"):
        state = {place: torch.from_numpy(np.array(leaf)) for place, leaf in _state(params).items()}
        given = torch.from_numpy(x.copy()).requires_grad_(x.dtype == np.float32)
        bare = parts._replace(features=(), batch_norms=())
        outputs = _ask(copy.deepcopy(parts.skeleton), bare, state, given, lambda tensor: tensor).outputs
        total: Any = sum(
            (
                (leaf * torch.from_numpy(_weights(leaf))).sum()
                for leaf in jax.tree.leaves(outputs)
                if leaf.is_floating_point()
            ),
            torch.zeros(()),
        )
        slope = None
        if given.requires_grad and total.requires_grad:
            try:
                (slope,) = torch.autograd.grad(total, given)
            except RuntimeError:  # PyTorch has none where something was written over
                pass
        numbers = jax.tree.map(lambda leaf: leaf.detach().float().numpy(), outputs)
        return numbers, None if slope is None else slope.numpy()


def _floats(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _weights(leaf: Any) -> np.ndarray:
    """Of a sum of outputs in which none cancels another."""
    return np.cos(np.arange(np.prod(leaf.shape, dtype=int), dtype=np.float32)).reshape(leaf.shape)


def _near(told: Any, expected: np.ndarray, tolerance: float) -> bool:
    told, finite = np.asarray(told, np.float32), np.abs(expected[np.isfinite(expected)])
    most = tolerance * float(finite.max(initial=0.0)) + 1e-7
    return told.shape == expected.shape and np.allclose(told, expected, rtol=0, atol=most, equal_nan=True)
