"""A modality as another package would bring it: short signals of a few people, one linear target and one attack."""

import numpy as np
import optax

from jaxmia.adapters.linen import from_linen
from jaxmia.audit import networks
from jaxmia.audit.modality import Baseline, Fitted, Judged, Modality, Observed
from jaxmia.core import Card
from jaxmia.identity import digest
from jaxmia.metrics.estimate import bootstrap
from jaxmia.models import SoftmaxRegression
from jaxmia.oracle import Access
from jaxmia.train import predict

PEOPLE, LENGTH = 12, 24


class Signals:
    """Each person's signal is a pattern of zeros and ones with noise."""

    def __init__(self, seed, noise):
        rng = np.random.default_rng(seed)
        self.patterns = rng.permutation(np.eye(LENGTH, dtype=np.float32))[:PEOPLE]
        self.labels = np.arange(240, dtype=np.int32) % PEOPLE
        self.x = (self.patterns[self.labels] + noise * rng.normal(size=(240, LENGTH))).astype(np.float32)
        self.name, self.notes, self.contents = "signals", (), {"signals": digest(self.x)}


def signals(seed: int, *, noise: float = 0.1) -> Signals:
    """Patterns of zeros and ones, with noise of this deviation."""
    return Signals(seed, noise)


def linear(*, steps: int = 200) -> int:
    """Softmax regression, trained for so many steps."""
    return steps


def fit(recipe, data, how):
    labels = np.random.default_rng(how.seed).permutation(data.labels) if how.control == "shuffled" else data.labels
    network = networks.Network(SoftmaxRegression(PEOPLE), optax.adam(0.1), recipe, 32)
    module, variables, defense, spent = networks.train(network, {"x": data.x, "y": labels}, data.contents, how)
    return Fitted(from_linen(module, variables, classes=PEOPLE, defense=defense), module, spent)


def judge(judges, data, arrays):
    found = arrays["guess"].argmax(1) == data.patterns[arrays["targets"]].argmax(1)
    return Judged({"found": {**bootstrap(found.astype(float))._asdict(), "unit": "share"}}, {"success": found})


def flat(inputs):
    people = np.arange(PEOPLE)
    guess = np.tile(np.mean(inputs.data.x, 0), (PEOPLE, 1))
    return {"guess": guess, "targets": people, "case_ids": people, "failed": np.zeros(PEOPLE, bool)}


MODALITY = Modality(
    data={"signals": signals},
    targets={"linear": linear},
    fit=fit,
    accuracy=lambda fitted, data: {
        **bootstrap((predict(fitted.module, fitted.target.params, data.x).argmax(1) == data.labels) * 1.0)._asdict(),
        "unit": "share",
    },
    inputs={"length": lambda given: LENGTH},
    observe={"label": lambda given: Observed(np.arange(PEOPLE, dtype=np.int32), np.arange(PEOPLE))},
    keep=lambda output, seen: {"guess": np.asarray(output)},
    judge=judge,
    baselines={"flat": Baseline("The mean signal", Card("Mean", "none", "", 0, "signals", Access.NONE, "", ""), flat)},
)
