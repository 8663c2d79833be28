"""What a model answers: brought into one form, and checked against what was declared of it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmia.compiling import jit
from jaxmia.oracle import Outputs

__all__ = ["as_outputs", "check_declaration", "check_labels", "check_values", "checked", "first_row"]

DECLARED = ("logits", "probabilities", "anything")
_NEAR = 1e-2  # how far from 1 the sum of probabilities may be: they may have been rounded


def check_declaration(classes: int, answers: str) -> None:
    """Refuse fewer than two classes and unknown kinds of answers (ValueError)."""
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 2:
        raise ValueError(
            f"classes: {classes}; legal is a whole number, 2 or more (a model of one logit z has two classes, "
            "with logits 0 and z)"
        )
    if answers not in DECLARED:
        raise ValueError(f"answers: {answers!r}; legal is one of {', '.join(DECLARED)}")


def as_outputs(answer: Any, classes: int) -> Outputs:
    """Logits and named features of what a model returned for a batch.

    A dict holds the logits under "logits", and features under other names. Of a tuple, the one array whose last axis
    has `classes` entries is the logits; its other arrays are features "output/<place>", dicts in it are features by name.

    Raises:
      ValueError: where it is not clear which part the logits are.
    """
    if isinstance(answer, Outputs):
        return answer
    if hasattr(answer, "_asdict"):
        answer = answer._asdict()
    if isinstance(answer, Mapping):
        if "logits" not in answer:
            raise ValueError(
                f"outputs: a dict of {', '.join(map(str, answer)) or 'nothing'}; legal is logits, or a dict with 'logits'"
            )
        return Outputs(answer["logits"], {str(name): x for name, x in answer.items() if name != "logits"})
    if not isinstance(answer, tuple | list):
        return Outputs(answer, {})
    fits = [place for place, part in enumerate(answer) if _width(part) == classes]
    if len(fits) != 1:
        parts = ", ".join(str(np.shape(part)) if _width(part) is not None else type(part).__name__ for part in answer)
        raise ValueError(
            f"outputs: a tuple of {parts}, where {len(fits)} parts have {classes} columns; legal is one such part, or "
            "a dict with 'logits'"
        )
    features: dict[str, Any] = {}
    for place, part in enumerate(answer):
        if isinstance(part, Mapping):
            features |= {str(name): x for name, x in part.items()}
        elif place != fits[0] and part is not None:
            features[f"output/{place}"] = part
    return Outputs(answer[fits[0]], features)


def _width(part: Any) -> int | None:
    """Columns of an array; None for what is none."""
    shape = getattr(part, "shape", ())
    return shape[-1] if shape else None


def first_row(outputs: Outputs) -> Outputs:
    """The answer to the one candidate of a batch. Features without that batch's axis in front are left out.

    Raises:
      ValueError: for logits that are not `[1, ...]`.
    """
    shape = jnp.shape(outputs.logits)
    if shape[:1] != (1,):
        raise ValueError(f"outputs: shape {shape} for a batch of one candidate; legal is [1, classes]")
    rows = {
        name: jax.tree.map(lambda leaf: leaf[0], x)
        for name, x in outputs.features.items()
        if all(jnp.shape(leaf)[:1] == (1,) for leaf in jax.tree.leaves(x))
    }
    return Outputs(outputs.logits[0], rows)


def checked(
    apply: Callable[[Any, Any], Outputs], params: Any, classes: int, answers: str, *, probe: bool = True
) -> Callable[[Any, Any], Outputs]:
    """`apply` that refuses, while it is traced, to answer something else than was declared, and answers logits.

    Width is looked at in every trace. Whether "logits" are probabilities in truth shows in numbers alone: with `probe`
    the model is asked about three random candidates, once, before the first answer, unless it calls the host, where
    somebody may count.
    """
    if answers == "anything":
        return apply
    known = not any(
        isinstance(leaf, Tracer) for leaf in jax.tree.leaves(params)
    )  # else there are no numbers to look at
    unseen = [True] if probe and known and answers == "logits" else []

    def answer(values: Any, x: Any) -> Outputs:
        outputs = apply(values, x)
        shape = jnp.shape(outputs.logits)
        if shape[-1:] != (classes,):
            found = f"{shape[-1]} numbers" if shape else "a single number"
            legal = f"classes={shape[-1]} (labels count from 0)" if shape else f"an answer [{classes}]"
            raise ValueError(f"classes: {classes}, but the model answers {found} for a candidate; legal is {legal}")
        if unseen:
            unseen.clear()
            _probe(apply, params, x)
        if answers == "probabilities":
            tiny = jnp.finfo(outputs.logits.dtype).tiny
            return outputs._replace(logits=jnp.log(jnp.maximum(outputs.logits, tiny)))
        return outputs

    return answer


def _probe(apply: Callable[[Any, Any], Outputs], params: Any, x: Any) -> None:
    """Ask about random candidates of the shape of `x`."""
    rng = np.random.default_rng(0)

    def random(leaf: Any) -> np.ndarray:
        dtype, shape = jnp.result_type(leaf), (3, *jnp.shape(leaf))
        return (rng.random(shape) if jnp.issubdtype(dtype, jnp.floating) else np.zeros(shape)).astype(dtype)

    candidates = jax.tree.map(random, x)
    with jax.ensure_compile_time_eval(), jax.disable_jit(False):
        traced = jit(jax.vmap(lambda values, x: apply(values, x).logits, (None, 0))).trace(params, candidates)
        if "callback" in str(traced.jaxpr):
            return
        logits = np.asarray(traced.lower().compile()(params, candidates))
    if _kind(logits) == "probabilities":
        check_values(logits, "logits")


def _kind(rows: np.ndarray) -> str:
    """What the rows of an array are all of."""
    sums = rows.sum(-1, dtype=np.float64)
    if np.all(rows >= -1e-6) and np.all(np.abs(sums - 1) <= _NEAR):
        return "probabilities"
    return "percentages" if np.all(rows >= -1e-6) and np.all(np.abs(sums - 100) <= 100 * _NEAR) else "other numbers"


def check_values(rows: Any, answers: str) -> None:
    """Refuse answers `[..., classes]` that are not finite or not of the declared kind.

    Raises:
      ValueError: saying what they are, what was declared, and how to declare otherwise.
    """
    rows = np.asarray(rows)
    if not np.all(np.isfinite(rows)):
        raise ValueError("outputs: the model answered NaN or infinity; legal is finite numbers")
    kind = _kind(rows)
    if answers == "logits" and kind == "probabilities":
        raise ValueError(
            "outputs: all answers lie in [0, 1] and sum to 1, as probabilities do, where logits were declared; take the "
            "softmax off the model, say answers='probabilities', or answers='anything' if they are logits all the same"
        )
    if answers == "probabilities" and kind != "probabilities":
        first = rows.reshape(-1, rows.shape[-1])[0]
        raise ValueError(
            f"outputs: {kind} from {first.min():.4g} to {first.max():.4g} with sum {first.sum():.4g}, where probabilities "
            "were declared; legal is 0 to 1 with sum 1, or say answers='logits' if they are logits, or "
            "answers='anything' to have them served as they are"
        )


def check_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels `[n]` as the rows of scores that they stand for, `[n, classes]`.

    Raises:
      ValueError: unless they are whole numbers from 0 to classes - 1.
    """
    whole = np.issubdtype(labels.dtype, np.integer)
    wrong = labels[(labels < 0) | (labels >= classes)] if whole else labels[:1]
    if wrong.size or not whole:
        first = f"label {wrong[0]!s}" if wrong.size else "labels"
        raise ValueError(f"predict: answered {first} ({labels.dtype}); legal is whole numbers from 0 to {classes - 1}")
    return np.eye(classes, dtype=np.float32)[labels]
