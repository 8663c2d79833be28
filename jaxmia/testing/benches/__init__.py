"""Analytic targets, one module per modality: what can be recovered is known, and two controls that give nothing away.

A bench supplies every input an attack may name. A new attack of a known modality needs no edit here unless it asks for
an input, or observes something, that no attack before it did; another modality is another module with a `make`.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from jaxmia import Target
from jaxmia.core import Card
from jaxmia.discovery import Method
from jaxmia.metrics.estimate import Estimate

__all__ = ["Bench", "bench_of"]


class Bench(NamedTuple):
    """One modality's analytic problem.

    Attributes:
      build: `(params, **options) -> Target`; the options are those of `Target`.
      params: of the target that "leaks" by construction, the same trained on "shuffled" labels, and a "constant" one.
      inputs: every factory input by name, but the oracle.
      cases: `(target, card) -> cases`, by what the card observes.
      judge: `output -> Estimate`, the success over all cases, from the truth. An output is a batch of candidates, or a
        tuple that holds them in the field named in the bench's module.
      chance: the success of a blind guess.
      candidate: floats of the shape that the target reads, to differentiate at.
      public: `step -> minibatch` for training stages; None where no attack has any.
      settings: hyperparameters by attack, where the paper's would take minutes.
    """

    build: Callable[..., Target]
    params: dict[str, Any]
    inputs: dict[str, Any]
    cases: Callable[[Target, Card], Any]
    judge: Callable[[Any], Estimate]
    chance: float
    candidate: Array
    public: Callable[[int], Any] | None = None
    settings: dict[str, dict[str, Any]] = {}

    def target(self, which: str, **options: Any) -> Target:
        """The target called "leaks", "shuffled" or "constant"."""
        return self.build(self.params[which], **options)


def bench_of(method: Method) -> Bench:
    """The bench of a method: one named as it, where what it recovers is none of its modality's, else the modality's."""
    own, module = method.name.split("/")[-1], method.card.modality
    if importlib.util.find_spec(f"{__name__}.{own}"):
        module = own
    return importlib.import_module(f"{__name__}.{module}").make()
