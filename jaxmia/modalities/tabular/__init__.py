"""Records: does a model tell more of a person's sensitive attribute than public records do?

The target predicts a label from all other attributes. The adversary has a person's other attributes and label. Cells
attack the training records; the same attack on as many held-out ones tells what is memorized. Baselines without the
model stand among the controls: the strongest is the imputation that has the label, and only the excess over it leaks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Arrays, Baseline, Judged, Modality, Observed, without_model
from jaxmia.metrics.estimate import bootstrap
from jaxmia.metrics.ranking import auc_difference, auc_interval
from jaxmia.modalities.tabular import data, targets
from jaxmia.modalities.tabular.data import Survey, imputations
from jaxmia.packages import require

__all__ = ["MODALITY"]


def _shares(survey: Survey, j: int) -> np.ndarray:
    """How often each value of an attribute is among public records."""
    counts = np.bincount(survey.codes[survey.parts.public, j], minlength=survey.columns[j])
    return counts / counts.sum()


def _confusion(given: Inputs) -> np.ndarray:
    """How often the target answers y' to a training record of label y."""
    survey, rows = given.data, given.data.parts.training
    confusion = np.zeros((survey.classes, survey.classes))
    np.add.at(confusion, (survey.labels[rows], targets.answers(given.fitted, survey, rows)), 1)
    return confusion


INPUTS: dict[str, Callable[[Inputs], Any]] = {
    "columns": lambda given: given.data.columns,
    "sensitive": lambda given: given.data.sensitive,
    "marginals": lambda given: _shares(given.data, given.data.sensitive),
    "imputations": lambda given: imputations(given.data),
}
TARGET_INPUTS: dict[str, Callable[[Inputs], Any]] = {"confusion": _confusion}
FORCED: dict[str, Callable[[Inputs], Any]] = {
    "encoding": lambda given: targets.encoding(given.fitted),
    "unknown": lambda given: {j: _shares(given.data, j).tolist() for j in given.data.unknown},
}


def _truth(survey: Survey, reference: np.ndarray) -> Arrays:
    """Which value the victims have, and the probability of 1 that public records with the label give it."""
    return {"wanted": survey.codes[survey.victims, survey.sensitive].astype(np.int32), "reference": reference}


def _held_out(survey: Survey) -> np.ndarray:
    return np.arange(len(survey.victims)) >= len(survey.parts.training)


def _record(given: Inputs) -> Observed:
    """Of training, then held-out records: what the adversary may see of them, and the label."""
    survey, victims = given.data, given.data.victims
    codes = survey.codes[victims].copy()
    codes[:, [survey.sensitive, *survey.unknown]] = 0  # not the adversary's to see
    truth = _truth(survey, given["imputations"]["imputation_label"])
    cases = {"record": codes, "label": survey.labels[victims]}
    return Observed(cases, victims.astype(np.int32), truth, victims.astype(np.int32), _held_out(survey))


def keep(output: Any, seen: Observed) -> Arrays:
    """The probability of the sensitive value being 1; an output is that posterior, or has it as `posterior`."""
    del seen
    return {"posterior": np.asarray(getattr(output, "posterior", output)[:, 1], np.float64)}


def judge(judges: Sequence[Any], survey: Survey, arrays: Arrays) -> Judged:
    """AUC and accuracy on training and on held-out records, and the excess over imputation; what failed is a toss."""
    del judges, survey
    posterior = np.where(arrays["failed"], 0.5, arrays["posterior"])
    wanted, held_out = arrays["wanted"], arrays["held_out"]
    right = (posterior > 0.5) == (wanted == 1)
    excess = auc_difference(posterior[~held_out], arrays["reference"][~held_out], wanted[~held_out])
    metrics = {
        "auc": auc_interval(posterior[~held_out], wanted[~held_out])._asdict(),
        "accuracy": {**bootstrap(right[~held_out].astype(float))._asdict(), "unit": "share"},
        "excess_auc_over_imputation": excess._asdict(),
        "auc_on_held_out_records": auc_interval(posterior[held_out], wanted[held_out])._asdict(),
        "accuracy_on_held_out_records": {**bootstrap(right[held_out].astype(float))._asdict(), "unit": "share"},
    }
    counts = np.zeros((2, 2), int)
    np.add.at(counts, (wanted[~held_out], (posterior[~held_out] > 0.5).astype(int)), 1)
    guesses = {"kind": "guesses", "values": ["absent", "present"], "counts": counts.tolist()}
    return Judged(metrics, {"success": right}, [guesses])


def _baseline(name: str, title: str, knows: str) -> Baseline:
    def guess(given: Inputs) -> Arrays:
        survey, found = given.data, given["imputations"]
        ids = survey.victims.astype(np.int32)
        return {
            "posterior": found[name], **_truth(survey, found["imputation_label"]), "targets": ids, "case_ids": ids,
            "failed": np.zeros(len(ids), bool), "held_out": _held_out(survey),
        }  # fmt: skip

    return without_model(
        title, "tabular", recovers="the sensitive attribute, as far as it can be guessed", knows=knows, guess=guess
    )


def check(inputs: Inputs) -> None:
    """Refuse records of whom too few have, or lack, the wanted attribute: no figure of them would have an interval."""
    require("sklearn")  # of the baselines, after the training
    survey = inputs.data
    for key, which, rows, least in (
        ("members", "training", survey.parts.training, 2),
        ("members", "held-out", survey.parts.held_out, 2),
        ("public", "public", survey.parts.public, 1),  # of whom an imputation learns
    ):
        absent, present = np.bincount(survey.codes[rows, survey.sensitive], minlength=2)
        if min(absent, present) < least:
            raise ValueError(
                f"data.{key}: {len(rows)}; among the {which} records the wanted attribute is present {present} and "
                f"absent {absent} times; legal is {least} or more of each"
            )


MODALITY = Modality(
    data=data.DATA,
    targets=targets.TARGETS,
    fit=targets.fit,
    accuracy=targets.accuracy,
    inputs=INPUTS,
    target_inputs=TARGET_INPUTS,
    forced=FORCED,
    observe={"record": _record},
    keep=keep,
    judge=judge,
    baselines={
        "prior": _baseline("prior", "Majority", "the share of the sensitive value among public records"),
        "imputation": _baseline("imputation", "Imputation", "public records, and a victim's other attributes"),
        "imputation_label": _baseline(
            "imputation_label",
            "Imputation with the label",
            "public records, and a victim's other attributes and label",
        ),
    },
    controls=("shuffled", "untrained", "constant"),
    check=check,
    made_up=data.made_up,
)
