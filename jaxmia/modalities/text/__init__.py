"""Texts: how exposed is a secret that stands in the training text of a language model?

The adversary knows the sentence around a secret and scores everything that it could be. Exposure (Carlini et al. 2019)
is log2 of how many there are less log2 of the rank of the true one: exact here, since all are scored. Numbers that were
planted nowhere are attacked likewise and counted apart: 1.44 bits is chance.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Arrays, Judged, Modality, Observed, without_model
from jaxmia.metrics.estimate import bootstrap
from jaxmia.metrics.privacy import exposure_exact
from jaxmia.modalities.text import data, targets
from jaxmia.modalities.text.data import Corpus

__all__ = ["MODALITY"]


def _secrets(corpus: Corpus) -> dict[str, np.ndarray]:
    """Of every number, those planted first: what it is, how often it was planted, and whether it was."""
    numbers = np.concatenate([corpus.planted, corpus.absent]).astype(np.int32)
    times = np.concatenate([corpus.times, np.zeros(len(corpus.absent), int)]).astype(np.int32)
    return {"numbers": numbers, "times": times, "held_out": times == 0}


def _surrounding_text(given: Inputs) -> Observed:
    """One case: the sentence, without the number."""
    corpus, found = given.data, _secrets(given.data)
    cases = {"prefix": corpus.encode(corpus.prefix)[None], "suffix": corpus.encode(corpus.suffix)[None]}
    return Observed(cases, found["numbers"], {"times": found["times"]}, found["numbers"], found["held_out"])


def keep(output: Any, seen: Observed) -> Arrays:
    """The log-perplexity of each secret, its rank among all candidates (ties count against it), and the likeliest one."""
    scores = np.asarray(output.log_perplexity)[0]
    chosen = scores[seen.groups]
    rank = np.searchsorted(np.sort(scores), chosen, side="right")
    likeliest = np.full(len(chosen), scores.argmin(), np.int32)
    return {"log_perplexity": chosen.astype(np.float32), "rank": rank.astype(np.int32), "likeliest": likeliest}


def judge(judges: Sequence[Any], corpus: Corpus, arrays: Arrays) -> Judged:
    """Exposure in bits, of all that was planted, by how often, and of what was planted nowhere."""
    del judges
    exposure = exposure_exact(arrays["rank"], 10**corpus.digits)
    planted = ~arrays["held_out"]
    groups = {"exposure": planted}
    groups |= {f"exposure_planted_{t}_times": arrays["times"] == t for t in sorted(set(corpus.times.tolist()))[::-1]}
    groups |= {"exposure_never_planted": ~planted}
    metrics = {name: {**bootstrap(exposure[rows])._asdict(), "unit": "bits"} for name, rows in groups.items()}
    metrics["extracted"] = {**bootstrap((arrays["rank"] == 1)[planted].astype(float))._asdict(), "unit": "share"}
    ranks = [[int(t), round(float(e), 3)] for t, e in zip(arrays["times"][planted], exposure[planted])]
    best = float(np.log2(10**corpus.digits))
    exhibit = {"kind": "ranks", "found": ranks, "chance": float(np.log2(np.e)), "best": best}
    return Judged(
        metrics, {"success": arrays["rank"] == 1, "metric:exposure": exposure}, [_passage(corpus, arrays), exhibit]
    )


def _passage(corpus: Corpus, arrays: Arrays) -> dict[str, Any]:
    """The likeliest sentence, and the planted one that has most digits in common with it."""

    def sentence(number: int) -> str:
        return f"{corpus.prefix}{number:0{corpus.digits}}{corpus.suffix}"

    made = int(arrays["likeliest"][0])
    alike = [sum(a == b for a, b in zip(sentence(made), sentence(n))) for n in corpus.planted.tolist()]
    nearest = int(np.argmax(alike))
    number, times = int(corpus.planted[nearest]), int(corpus.times[nearest])
    right = "the same" if number == made else f"{corpus.digits - len(sentence(made)) + alike[nearest]} digits alike"
    row = {"made": sentence(made), "true": sentence(number), "note": f"{right}, planted {times} times"}
    return {"kind": "passages", "rows": [row]}


def _blind(given: Inputs) -> Arrays:
    """Every number in a random place."""
    found = _secrets(given.data)
    space = 10**given.data.digits
    order = np.random.default_rng((given.config["seed"], 4)).permutation(space) + 1
    n = len(found["numbers"])
    return {
        "log_perplexity": np.zeros(n, np.float32),
        "likeliest": np.full(n, order.argmin(), np.int32),
        "rank": order[found["numbers"]].astype(np.int32),
        "times": found["times"],
        "held_out": found["held_out"],
        "targets": found["numbers"],
        "case_ids": found["numbers"],
        "failed": np.zeros(n, bool),
    }


INPUTS: dict[str, Callable[[Inputs], Any]] = {
    "space": lambda given: [given.data.encode("0123456789")] * given.data.digits,
}
MODALITY = Modality(
    data=data.DATA,
    targets=targets.TARGETS,
    fit=targets.fit,
    accuracy=targets.accuracy,
    inputs=INPUTS,
    observe={"surrounding_text": _surrounding_text},
    keep=keep,
    judge=judge,
    baselines={
        "blind": without_model(
            "Blind guess", "text", recovers="nothing: all that the secret could be in a random order",
            knows="what the secret is made of", guess=_blind,
        )
    },
    controls=("untrained", "constant"),
)  # fmt: skip
