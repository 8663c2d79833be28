"""Targets of an audit that it does not train: the user's own model, as it is.

`python` is for any model of which the adapters make a target (PyTorch, ONNX, HTTP, Flax); `callable` is the short way for a
function that answers scores or labels. Neither can be trained anew: their control is "permuted", the same model with its
classes exchanged (`Target.permuted`), and of the defenses those that change its answers alone can be put before it.
"""

import json
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmia.adapters.host import from_callable
from jaxmia.audit.code import function_of
from jaxmia.audit.modality import Fitted, Training
from jaxmia.audit.networks import parts_of
from jaxmia.checkpoint import private_folder, write_atomically
from jaxmia.composing import compose, sets
from jaxmia.core import Defense
from jaxmia.oracle import Access
from jaxmia.queries import BudgetSpent
from jaxmia.target import Target

__all__ = ["OWN", "Own", "fitted", "granted", "permuted"]

TRAINS = ("model", "data", "loss", "grads", "optim", "trainer", "guard", "batches")
"""Hooks of a defense that need a training, or something fitted."""


class Own(NamedTuple):
    """A model that is there.

    Attributes:
      make: `(classes, count) -> Target`; `count` is called with how many candidates are about to be asked, before they
        are, and raises `BudgetSpent` where that is too many.
      budget: the most queries of an audit; None for no limit.
    """

    make: Callable[[int, Callable[[int], None]], Target]
    budget: int | None = None


def python(*, make: str = "") -> Own:
    """A function of the user's that takes nothing and returns a `jaxmia.Target`, named `file.py:function`."""

    def target(classes: int, count: Callable[[int], None]) -> Target:
        del count  # what a target on the host is asked, its own adapter limits
        made = function_of("make", make)()
        if not isinstance(made, Target):
            raise ValueError(f"make: {make} returned a {type(made).__name__}; legal is a jaxmia.Target, of any adapter")
        if made.classes != classes:
            raise ValueError(f"make: the target of {make} has {made.classes} classes, and the data {classes}")
        return made

    return Own(target)


def host_function(
    *,
    predict: str = "",
    access: Literal["scores", "labels"] = "scores",
    answers: Literal["probabilities", "logits", "anything"] = "probabilities",
    version: str = "",
    per_call: int | None = None,
    budget: int | None = None,
) -> Own:
    """A function of the user's, `file.py:function`, that answers candidates `[n, ...]` float32 with scores `[n, classes]`
    or labels `[n]`.

    `access` is what it answers; `answers` what its scores are; `version` names the model, by which a run is found again:
    another model needs another. `per_call` is the most candidates that it is handed at once; `budget` the most that it is
    asked over the whole audit, its examination and its accuracy included.
    """
    if not version:
        raise ValueError("version: missing; legal is a text that names the model, such as its date or a checksum")

    def target(classes: int, count: Callable[[int], None]) -> Target:
        ask = function_of("predict", predict)

        def counted(x: np.ndarray) -> np.ndarray:
            portions = np.array_split(x, -(-len(x) // per_call)) if per_call else [x]
            found = []
            for portion in portions:
                count(len(portion))
                found.append(np.asarray(ask(portion)))
            return np.concatenate(found)

        return from_callable(
            counted, classes=classes, granted=Access[access.upper()], answers=answers, identity=f"{predict} {version}"
        )

    return Own(target, budget)


OWN: dict[str, Callable[..., Own]] = {"python": python, "callable": host_function}


def granted(section: dict[str, Any]) -> Access:
    """The access that a section of `OWN` grants."""
    if section["name"] == "callable":
        return Access[str(section.get("access", "scores")).upper()]
    return function_of("make", section.get("make", ""))().granted


def fitted(own: Own, classes: int, how: Training, look: Callable[[Target], tuple[str, ...]]) -> Fitted:
    """The model as a target of an audit.

    Args:
      own: the model.
      classes: of the data.
      how: of it folder, seed, defenses and kind of control count.
      look: examines the target by asking it, and says what a reader of the page must know; it raises ValueError for what
        cannot be audited.

    Raises:
      ValueError: for a control or a defense that would need training, or where the folder holds the results of another
        model.
    """
    if how.control not in ("", "permuted"):
        raise ValueError(
            f"controls: {how.control} trains the target anew, and this one is only there; legal is NAME-permuted"
        )
    bill = Bill(how.folder.parent / "asked.txt", own.budget) if how.real else (lambda n: None)
    target = own.make(classes, bill)
    notes = _known(how.folder, target, look) if how.real and not how.control and not how.defense else ()
    if how.defense:
        target = target.under(_serving(how))
    if how.control == "permuted":
        target = permuted(target, how.seed)
    return Fitted(target, notes=notes)


def permuted(target: Target, seed: int) -> Target:
    """The control: each class answers for another one, all in one ring."""
    ring = np.random.default_rng((seed, 4)).permutation(target.classes)
    order = np.empty(target.classes, int)
    order[ring] = np.roll(ring, 1)
    return target.permuted(order)


def _serving(how: Training) -> Defense:
    """The defenses of a target, which must change its answers alone."""
    parts = parts_of(how.defense, 1)
    trains = [name for name, part in parts.items() if any(sets(part, hook) for hook in TRAINS)]
    if trains:
        raise ValueError(
            f"defenses: {' and '.join(trains)} would have to be trained or fitted; legal for a model that is only there "
            "are those that act on its answers as they are"
        )
    return compose(parts)


def _known(folder: pathlib.Path, target: Target, look: Callable[[Target], tuple[str, ...]]) -> tuple[str, ...]:
    """What was seen of the model when the run began; a run that goes on asks nothing for it, and is of the same model."""
    if target.identity is None:
        raise ValueError(
            "target: nothing tells whether it is the same model when the run is resumed; give `identity=` to its adapter"
        )
    file = private_folder(folder) / "model.json"
    if file.exists():
        found = json.loads(file.read_bytes())
        if found["digest"] != target.identity:
            raise ValueError(f"{folder}: holds the results of another model; name another run folder with --out")
        return tuple(found["notes"])
    notes = look(target)
    write_atomically(file, json.dumps({"digest": target.identity, "notes": notes}).encode())
    return notes


class Bill:
    """How many candidates a model was asked over all of an audit; a line for every call, so kill -9 loses none."""

    def __init__(self, path: pathlib.Path, budget: int | None):
        self._path, self._budget, self._lock = path, budget, threading.Lock()
        private_folder(path.parent)

    @property
    def asked(self) -> int:
        return sum(map(int, self._path.read_text().split())) if self._path.exists() else 0

    def __call__(self, n: int) -> None:
        """Put `n` more on the bill; BudgetSpent, and they are not to be asked, where it would be too many."""
        with self._lock:  # each device has a thread of its own
            asked = self.asked if self._budget else 0
            if self._budget and asked + n > self._budget:
                raise BudgetSpent(
                    f"budget: {self._budget:,} queries, of which {asked:,} were asked; {n:,} more would be too many, so "
                    "they were not asked. Raise it to go on where this ended"
                )
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{n}\n")
