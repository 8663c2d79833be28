"""A target from a function on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxmia.adapters.function import standardizer
from jaxmia.answers import check_declaration, check_labels, check_values
from jaxmia.core import Defense
from jaxmia.oracle import Access, ThreatModelError
from jaxmia.queries import metered
from jaxmia.target import Target

__all__ = ["from_callable"]


def from_callable(
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    classes: int,
    granted: Access = Access.SCORES,
    defense: Defense | None = None,
    answers: str = "probabilities",
    preprocess: Sequence[Any] | None = None,
    identity: str | None = None,
    example: Any = None,
    secret: int = 0,
    noise: str = "memoized",
    grid: int | None = 255,
) -> Target:
    """A target from a plain Python function on the host (a PyTorch or scikit-learn model, an HTTP endpoint).

    Candidates of image attacks are float32 `[height, width, channels]` in [0, 1]. The first answer is checked: its shape,
    and that it is what `answers` says.

    `solve`, `fit` and `run` ask it exactly the queries that they count, whatever the plan: nothing for idle slots, cases
    that are over, or padding. With a folder, what it answered before kill -9 or an error is not asked again. What it
    raises comes out of them as it is. Where a plan has several devices, each calls it from a thread of its own.

    Args:
      predict: `[n, ...] float32 -> [n, classes]` scores, or `[n]` integer labels from 0 when `granted` is LABELS. The
        array is its own to change.
      classes: number of classes, 2 or more.
      granted: LABELS or SCORES; a host callable has no gradients to give.
      defense: its `answer` acts on scores and labels.
      answers: what the scores are: "probabilities"; "logits", of which the softmax is served; or "anything", served as it
        is, unchecked: truncated scores, embeddings of that many numbers.
      preprocess: (mean, standard deviation), numbers or arrays `[channels]`: predict reads (x - mean) / deviation.
      identity: text that names the model and its version, as a file's checksum does. Results of a run in a folder are
        found again under the same text alone; a run in a folder refuses a host callable without one.
      example: candidates `[n, ...]`, such as held-out images, to ask about now.
      secret: what the defense's noise is drawn from, 0 to 2^32 - 1.
      noise: "memoized" or, to measure averaging, "fresh".
      grid: how finely queries are told apart where there is noise; None by every bit.

    Raises:
      ThreatModelError: for a grant of weights.
      ValueError: for options that `Target` refuses, or an example whose answers do not fit. When asked later, wrong
        answers end the run, with the same sentence in JAX's own error.
    """
    if Access(granted) > Access.SCORES:
        raise ThreatModelError("granted: a host callable has no weights to show; grant LABELS or SCORES")
    check_declaration(classes, answers)
    standardize, unseen = standardizer(preprocess), [True]

    def ask(x: np.ndarray) -> np.ndarray:
        """Scores of a batch, as they are served."""
        answer = np.asarray(predict(standardize(x)))
        if answer.ndim == 1 and granted == Access.LABELS and len(answer) == len(x):
            return check_labels(answer, classes)
        if answer.shape != (len(x), classes):
            raise ValueError(f"predict: answered shape {answer.shape}, legal is [n, {classes}]")
        answer = answer.astype(np.float32)
        if answers != "anything" and unseen:
            check_values(answer, answers)
            unseen.clear()
        if answers == "logits":  # in numpy: a callback that waits for JAX may wait forever
            exponential = np.exp(answer - answer.max(1, keepdims=True))
            return exponential / exponential.sum(1, keepdims=True)
        return answer

    ask.identity = identity  # type: ignore[attr-defined]  # by which `jaxmia.identity` knows the program
    if example is not None:
        ask(np.asarray(example))
    return Target(
        None, None, classes=classes, granted=granted, defense=defense, scores=metered(ask, (classes,)),
        identity=identity, secret=secret, noise=noise, grid=grid,
    )  # fmt: skip
