"""Queries of targets on the host: which rows of a compiled program are asked, and what a run keeps of the answers.

A program has rows that mean nothing: idle slots, cases that are over, padding. To a model on the device they are spare
arithmetic; to one on the host each would be a query. So whoever traces a process says, by `asking`, for which `Lane`
it traces, and a host function that is `metered` asks the live rows alone. The targets of a device never look, and their
programs do not hold a lane.
"""

import contextlib
import contextvars
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

__all__ = ["Answers", "BudgetSpent", "Lane", "Ledger", "asking", "handed", "lane", "metered"]


class BudgetSpent(ValueError):
    """No more queries may be asked."""


class Lane(NamedTuple):
    """One row of a program while it is traced.

    Attributes:
      live: whether its queries are meant.
      case: the row of the result that it works for; 0 in training.
      step: 0 while it begins.
    """

    live: Bool[Array | np.ndarray, "*rows"] | bool
    case: Int[Array | np.ndarray, "*rows"] | int
    step: Int[Array | np.ndarray, "*rows"] | int


@runtime_checkable
class Answers(Protocol):
    """Answers that outlive the process; see `jaxmia.journal`."""

    def take(self, question: bytes) -> np.ndarray | None:
        """The answer to a question that an earlier process asked, once."""
        ...

    def add(self, questions: list[bytes], answers: np.ndarray) -> None:
        """Keep answers `[n, ...]`."""
        ...


class Ledger:
    """The host side of one run.

    Attributes:
      kept: the answers of earlier processes; None where there is no folder to keep them in.
      asks: set when something that is traced asks a host target.
      error: the first error of a host target. From then on nothing is asked, and zeros stand for answers: the loop
        looks here before it keeps anything, and raises the error as it was.
    """

    def __init__(self, kept: Answers | None = None):
        self.kept, self.asks, self.error = kept, False, None
        self._lock = threading.Lock()  # each device has a thread of its own

    def raise_error(self) -> None:
        """Raise what a host target raised, if one did."""
        if self.error is not None:
            raise self.error

    def answer(self, ask: Callable, shape: tuple[int, ...], x: np.ndarray, identities: list[np.ndarray]) -> np.ndarray:
        """Answers `[n, *shape]` to `x [n, ...]`; `identities`, `[n, ...]` each, tell apart equal rows of x."""
        answers = np.zeros((len(x), *shape), np.float32)
        if self.error is not None:
            return answers
        try:
            unknown, questions = np.arange(len(x)), []
            if self.kept is not None:
                questions = [_digest(x[i], *(part[i] for part in identities)) for i in range(len(x))]
                with self._lock:
                    known = [self.kept.take(question) for question in questions]
                unknown = np.array([i for i, found in enumerate(known) if found is None], int)
                for i, found in enumerate(known):
                    answers[i] = 0.0 if found is None else found.reshape(shape)
            if len(unknown):
                answers[unknown] = ask(x[unknown])
                if self.kept is not None:
                    with self._lock:
                        self.kept.add([questions[i] for i in unknown], answers[unknown])
        except BaseException as error:  # a program cannot raise it as it is; the loop around the program can
            self.error = self.error or error
        return answers


_SCOPE: contextvars.ContextVar[tuple[Ledger, Lane] | None] = contextvars.ContextVar("scope", default=None)
# A function that asks may be jitted, and what JAX keeps of tracing it holds the lane of then: each scope traces anew.
_TRACED_FOR = jax.make_user_context(None)
_METERED: list[bool] = []  # not empty once there is a host function; before, nothing is traced anew


@contextlib.contextmanager
def asking(ledger: Ledger, lane: Lane) -> Iterator[None]:
    """What is traced within asks host targets for `lane`, on account of `ledger`."""
    scope = _SCOPE.set((ledger, lane))
    try:
        with _TRACED_FOR(object()) if _METERED else contextlib.nullcontext():
            yield
    finally:
        _SCOPE.reset(scope)


def lane() -> Lane | None:
    """The lane that is traced for; None where nobody said."""
    scope = _SCOPE.get()
    return scope[1] if scope else None


@contextlib.contextmanager
def handed(lane: Lane | None) -> Iterator[None]:
    """Within it `lane` is traced for: the same one, as a transformation of JAX hands it on; None changes nothing."""
    scope = _SCOPE.get()
    inner = _SCOPE.set((scope[0], lane)) if scope and lane else None
    try:
        yield
    finally:
        if inner:
            _SCOPE.reset(inner)


def metered(ask: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> Callable[[Any, Any], Any]:
    """A function on the host, as `(key, x) -> float32 shape` of ONE candidate, to be batched by vmap.

    Within `asking` it asks what is live, and is not called where nothing is; elsewhere it asks every row. The key is
    not handed to `ask`; it tells a question from an equal one, which is asked as well.

    Args:
      ask: `[n, ...] -> [n, *shape]`, of arrays that are its own to change.
      shape: of an answer.
    """
    _METERED[:] = [True]

    def answer(key: Any, x: Any) -> Any:
        scope = _SCOPE.get()
        ledger, now = scope or (None, Lane(True, 0, 0))
        if ledger is not None:
            ledger.asks = True
        arguments = [jnp.asarray(leaf) for leaf in (x, jax.random.key_data(key), *now)]
        host = functools.partial(_on_host, ledger, ask, shape, tuple(leaf.ndim for leaf in arguments))
        host.identity = getattr(ask, "identity", None)  # type: ignore[attr-defined]  # read by `jaxmia.identity`
        return jax.pure_callback(host, jax.ShapeDtypeStruct(shape, jnp.float32), *arguments, vmap_method="expand_dims")

    return answer


def _on_host(
    ledger: Ledger | None, ask: Callable, shape: tuple[int, ...], ranks: tuple[int, ...], *arguments: Any
) -> np.ndarray:
    """Answers to all rows of a batch, zeros where they are not live. An axis that an argument lacks has length one."""
    arrays = [np.asarray(argument) for argument in arguments]
    tails = [array.shape[array.ndim - rank :] for array, rank in zip(arrays, ranks)]
    batch = np.broadcast_shapes(*(array.shape[: array.ndim - rank] for array, rank in zip(arrays, ranks)))
    flat = [np.broadcast_to(array, batch + tail).reshape(-1, *tail) for array, tail in zip(arrays, tails)]
    live = np.flatnonzero(flat[2])
    answers = np.zeros((len(flat[2]), *shape), np.float32)
    if live.size:
        x, bits, _, case, step = (array[live] for array in flat)
        answers[live] = ledger.answer(ask, shape, x, [bits, case, step]) if ledger else ask(x)
    return answers.reshape(batch + shape)


def _digest(*parts: np.ndarray | np.generic) -> bytes:
    return hashlib.blake2b(b"".join(part.tobytes() for part in parts), digest_size=16).digest()
