"""A target from an ONNX file."""

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmia.adapters.function import standardizer
from jaxmia.adapters.host import from_callable
from jaxmia.answers import check_declaration
from jaxmia.core import Defense
from jaxmia.oracle import Access
from jaxmia.packages import require
from jaxmia.target import Target

__all__ = ["from_onnx"]

FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
"""What an input may hold, and the numpy type of it."""


def from_onnx(
    path: str | os.PathLike,
    *,
    classes: int,
    output: str | None = None,
    channels: str = "first",
    granted: Access = Access.SCORES,
    defense: Defense | None = None,
    answers: str = "probabilities",
    preprocess: Sequence[Any] | None = None,
    example: Any = None,
    secret: int = 0,
    noise: str = "memoized",
    grid: int | None = 255,
) -> Target:
    """A target from an ONNX file, which onnxruntime asks on the CPU: a black box, without gradients.

    Candidates of image attacks are float32 `[height, width, channels]` in [0, 1]; the model gets them as its input wants
    them. Any other candidate, such as a record `[features]`, it gets as it is. A model whose batch axis is fixed at 1 is
    asked one by one, which takes longer and answers the same.

    The target is known by the sha256 of the file, its output, and what is done to candidates and answers. The file must
    hold the weights: one that keeps them in other files ("external data", as all above 2 GB do) is refused, since nothing
    would tell when these change.

    Args:
      path: of the file, which must have one input, float16, float32 or float64, whose first axis is the batch.
      classes: number of classes, 2 or more.
      output: name of the output to serve; None where there is only one.
      channels: "first" for a model that reads images `[n, channels, height, width]`, "last" for
        `[n, height, width, channels]`.
      granted: LABELS or SCORES; a model in onnxruntime has no gradients to give.
      defense: its `answer` acts on scores and labels.
      answers: what the output holds, as in `from_callable`: "probabilities", "logits" or "anything"; `[n, classes]`, or
        `[n]` integer labels when `granted` is LABELS.
      preprocess: (mean, standard deviation), numbers or arrays `[channels]`: the model reads (x - mean) / deviation.
      example: candidates `[n, ...]`, such as held-out images, to ask about now.
      secret: what the defense's noise is drawn from, 0 to 2^32 - 1.
      noise: "memoized" or, to measure averaging, "fresh".
      grid: how finely queries are told apart where there is noise; None by every bit.

    Raises:
      ImportError: without onnxruntime.
      FileNotFoundError, IsADirectoryError: where `path` is no file.
      ValueError: for a file that onnxruntime cannot load or whose inputs or outputs are none of these, and for what
        `from_callable` refuses; when asked, for candidates of another shape than the input has.
      ThreatModelError: for a grant of weights.
    """
    check_declaration(classes, answers)
    standardizer(preprocess)
    require("onnxruntime")
    if channels not in ("first", "last"):
        raise ValueError(f"channels: {channels!r}; legal is first or last")
    file = pathlib.Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"path: {file} does not exist; legal is an ONNX file")
    if not file.is_file():
        raise IsADirectoryError(f"path: {file} is no file; legal is an ONNX file")
    content = file.read_bytes()
    session = _session(file, content)
    source, wanted = _input(file, session), _output(file, session, output, classes)
    sizes, dtype = list(source.shape), FLOATS[source.type]

    def predict(x: np.ndarray) -> np.ndarray:
        if channels == "first" and x.ndim == 4:
            x = x.transpose(0, 3, 1, 2)
        if x.ndim != len(sizes) or any(
            isinstance(size, int) and size != given for size, given in zip(sizes[1:], x.shape[1:])
        ):
            how = f", of images with channels={channels!r}" * (x.ndim == 4)
            raise ValueError(
                f"{file}: the model reads {_words(sizes)}, and was given {_words(['n', *x.shape[1:]])}{how}"
            )
        x = np.ascontiguousarray(x, dtype)
        batches = np.split(x, len(x)) if sizes[0] == 1 else [x]
        return np.concatenate([_answer(file, session, wanted, source.name, batch) for batch in batches])

    how = [
        wanted,
        channels,
        answers,
        None if preprocess is None else [np.asarray(part).tolist() for part in preprocess],
    ]
    identity = f"onnx {hashlib.sha256(content).hexdigest()} {how}"
    return from_callable(
        predict, classes=classes, granted=granted, defense=defense, answers=answers, preprocess=preprocess,
        identity=identity, example=example, secret=secret, noise=noise, grid=grid,
    )  # fmt: skip


def _session(file: pathlib.Path, content: bytes) -> Any:
    """The model of the bytes that were read, and of nothing else."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as empty:  # where other files with weights are looked for
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # those of onnxruntime have no class in common
            reason = _reason(error)
    if "external data" in reason.lower():
        raise ValueError(
            f"{file}: keeps its weights in other files; legal is one file that holds all: "
            "onnx.save(onnx.load(old), new, save_as_external_data=False)"
        )
    raise ValueError(f"{file}: onnxruntime cannot load it ({reason}); legal is an ONNX file")


def _reason(error: Exception) -> str:
    """onnxruntime's own words, in one line."""
    return " ".join(str(error).split(" : ", 3)[-1].split()).rstrip(".")


def _input(file: pathlib.Path, session: Any) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        named = ", ".join(part.name for part in inputs) or "none"
        raise ValueError(f"{file}: has {len(inputs)} inputs ({named}); legal is one, the candidates")
    (source,) = inputs
    where = f"{file}: input {source.name!r}"
    if source.type not in FLOATS:
        raise ValueError(f"{where} is {source.type}; legal is {', '.join(FLOATS)}, so put a Cast before it")
    if len(source.shape) < 2:
        said = f"is {_words(source.shape)}" if source.shape else "has no axes, or the file does not tell them"
        raise ValueError(f"{where} {said}; legal is a batch axis and those of a candidate")
    if isinstance(source.shape[0], int) and source.shape[0] != 1:
        raise ValueError(
            f"{where} is {_words(source.shape)}, a batch of exactly {source.shape[0]}; legal is a batch axis of any length "
            "(dynamic_axes of the export), or of 1"
        )
    return source


def _output(file: pathlib.Path, session: Any, name: str | None, classes: int) -> str:
    outputs = {part.name: part for part in session.get_outputs()}
    if not name and len(outputs) != 1:
        raise ValueError(f"output: the model of {file} has {', '.join(outputs)}; legal is one of these")
    chosen = name or next(iter(outputs))
    if chosen not in outputs:
        raise ValueError(f"output: {chosen!r}; legal for {file} is {', '.join(outputs)}")
    kind, sizes = outputs[chosen].type, outputs[chosen].shape
    if not kind.startswith("tensor(") or kind in ("tensor(string)", "tensor(bool)"):
        raise ValueError(
            f"output: {chosen!r} of {file} is {kind}; legal is a tensor of numbers (where skl2onnx made the file, with "
            "options={'zipmap': False})"
        )
    if len(sizes) == 2 and isinstance(sizes[1], int) and sizes[1] != classes:
        raise ValueError(f"classes: {classes}, but output {chosen!r} of {file} is {_words(sizes)}; legal is {sizes[1]}")
    return chosen


def _words(sizes: Sequence[Any]) -> str:
    """A shape; an axis of any length is called by its name, or n where it has none."""
    return f"[{', '.join('n' if size is None else str(size) for size in sizes)}]"


def _answer(file: pathlib.Path, session: Any, output: str, name: str, batch: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(session.run([output], {name: batch})[0])
    except Exception as error:  # those of onnxruntime have no class in common
        reason = _reason(error)
    raise ValueError(f"{file}: onnxruntime cannot answer {_words(batch.shape)} ({reason})")
