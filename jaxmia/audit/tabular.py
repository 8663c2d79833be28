"""Audit of record classifiers: does the model tell more of a person's sensitive attribute than public records do?

The target predicts a label from all other attributes. The adversary has a person's other attributes and label. Cells
attack the training records; the same attack on as many held-out ones tells what is memorized. Baselines without the
model stand among the controls: the strongest is the imputation that has the label, and only the excess over it leaks.
"""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxmia import attacks
from jaxmia.audit import folder as files
from jaxmia.audit.classifiers import keywords
from jaxmia.audit.record_classifiers import TARGETS, Trained, answers, target
from jaxmia.audit.roles import listed, named
from jaxmia.audit.surveys import SURVEYS, Split, Survey, imputations, split
from jaxmia.core import Attack, Scenario
from jaxmia.engine import Plan, Status, run
from jaxmia.metrics.estimate import bootstrap
from jaxmia.metrics.ranking import auc_difference, auc_interval
from jaxmia.oracle import Access, ThreatModelError
from jaxmia.packages import require
from jaxmia.sections import Schema, Section, check_numbers, within
from jaxmia.target import Target, from_callable

__all__ = ["SCHEMA", "audit", "check", "evaluate", "family", "train"]


SCHEMA: Schema = {
    "modality": Section(Literal["tabular"], "tabular"),
    "data": Section(SURVEYS),
    "seed": Section(int, 0),
    "targets": Section(TARGETS),
    "attacks": Section(attacks, role="adversary"),
    "controls": Section(tuple[str, ...], ()),
}
"""Sections of a tabular audit. `controls`: names of targets that are trained once more on shuffled labels."""


class Stage(NamedTuple):
    """What all cells of one audit share."""

    config: dict[str, Any]
    folder: pathlib.Path
    survey: Survey
    parts: Split
    without: dict[str, np.ndarray]  # imputations for training, then held-out records


def check(config: dict[str, Any]) -> Survey:
    """The survey, once all that a configuration names is seen to fit (ValueError otherwise); nothing is trained."""
    require("sklearn")  # of the baselines, after the training
    for section in listed(config["attacks"]):
        modality = attacks.get(section["name"]).card.modality
        if modality != "tabular":
            raise ValueError(f"attacks: {section['name']} is for {modality}; legal are attacks on records")
    names = [name for name, _ in named(listed(config["targets"]))]
    unknown = sorted(set(config["controls"]) - set(names))
    if unknown:
        raise ValueError(f"controls: {', '.join(unknown)}: not among the targets; legal is {', '.join(names)}")
    check_numbers("", {"seed": config["seed"]}, least=0)
    for section in listed(config["targets"]):
        check_numbers(f"targets ({section['name']}): ", section, least=1)
    survey = SURVEYS[config["data"]["name"]](**keywords(config["data"]))
    _check_parts(survey, split(survey, config["seed"]))
    silent = from_callable(
        lambda x: np.full((len(x), survey.classes), 1 / survey.classes, np.float32), classes=survey.classes
    )
    for section in listed(config["attacks"]):
        with within(f"attacks ({section['name']})"):
            _assemble(survey, section, silent, "codes", lambda j: np.ones(survey.columns[j]), np.eye(survey.classes))
    return survey


def _check_parts(survey: Survey, parts: Split) -> None:
    """Refuse records of whom too few have, or lack, the wanted attribute: no figure of them would have an interval."""
    for key, which, rows, least in (
        ("members", "training", parts.training, 2),
        ("members", "held-out", parts.held_out, 2),
        ("public", "public", parts.public, 1),  # of whom an imputation learns
    ):
        absent, present = np.bincount(survey.codes[rows, survey.sensitive], minlength=2)
        if min(absent, present) < least:
            raise ValueError(
                f"data.{key}: {len(rows)}; among the {which} records the wanted attribute is present {present} and "
                f"absent {absent} times; legal is {least} or more of each"
            )


def family(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration itself: an attack on records takes no steps, so that nothing is gained by sharing programs."""
    return config


def train(
    config: dict[str, Any],
    runs: Sequence[pathlib.Path],
    training: pathlib.Path | None = None,
    data: Survey | None = None,
) -> tuple[Survey, Split, list[Trained]]:
    """Train what is missing, in the folder `training` or that of the first run; write the records
    of the targets.

    `data` is what `check` returned for the configuration; None checks it here.

    Returns:
      The survey, its division and the targets.
    """
    survey = check(config) if data is None else data
    parts = split(survey, config["seed"])
    jobs = [(name, section, False) for name, section in named(listed(config["targets"]))]
    jobs += [(f"{name}-shuffled", section, True) for name, section, _ in jobs if name in config["controls"]]
    out, records = [], []
    for name, section, control in jobs:
        one, record = target(config, training or runs[0] / "training", survey, parts, name, section, control)
        out.append(one)
        records.append(record)
    for folder in runs:
        files.write_json(folder / "targets.json", records)
    return survey, parts, out


def audit(
    members: Sequence[tuple[dict[str, Any], pathlib.Path]],
    training: pathlib.Path | None = None,
    data: Survey | None = None,
) -> dict[pathlib.Path, str]:
    """Run every cell of configurations, as in `jaxmia.audit.image`.

    Raises:
      ValueError: for a configuration that contradicts itself, before long work.
      FloatingPointError: when a training goes non-finite.
    """
    failed = {}
    for config, folder in members:
        survey, parts, trained = train(config, [folder], training, data)
        without = imputations(survey, parts, np.concatenate([parts.training, parts.held_out]))
        try:
            _audit(Stage(config, folder, survey, parts, without), trained)
        except FloatingPointError as error:
            failed[folder] = str(error)
    return failed


def _audit(stage: Stage, trained: list[Trained]) -> None:
    sections = named(listed(stage.config["attacks"]))
    cells = [
        (stage.folder / "cells" / f"{victim.name}--{name}", victim, label, section)
        for victim in trained
        for label, (name, section) in zip(_labels(sections), sections)
    ]
    for cell, *_ in cells:
        cell.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, posterior in stage.without.items():
        _baseline_cell(stage, trained[0].name, name, posterior)
    for cell, victim, label, section in cells:
        if not files.is_done(cell):
            _attack_cell(stage, cell, victim, label, section)


def evaluate(config: dict[str, Any], run_folder: pathlib.Path) -> None:
    """Records are judged by the truth, not by evaluators, so there is nothing to judge anew (ValueError)."""
    raise ValueError(f"{run_folder}: modality tabular has no evaluators; `jaxmia report` makes its page anew")


_BASELINES = {
    "prior": ("Majority", "the share of the sensitive value among public records"),
    "imputation": ("Imputation", "public records, and a victim's other attributes"),
    "imputation_label": ("Imputation with the label", "public records, and a victim's other attributes and label"),
}


def _baseline_cell(stage: Stage, target: str, name: str, posterior: np.ndarray) -> None:
    cell = stage.folder / "cells" / f"baseline--{name}"
    if files.is_done(cell):
        return
    title, knows = _BASELINES[name]
    card = {"title": title, "paper": "no attack", "url": "", "year": 0, "modality": "tabular", "access": "NONE",
            "recovers": "the sensitive attribute, as far as it can be guessed", "knows": knows}  # fmt: skip
    record = {
        "attack": "none", "label": f"{title} (no model)", "target": target, "control": True, "card": card,
        "hyperparameters": {}, "seconds": 0.0, "queries": None, "status": {"guessed": stage.survey.members},
    }  # fmt: skip
    cell.mkdir(parents=True, exist_ok=True, mode=0o700)
    _finish(stage, cell, record, posterior)


def _labels(sections: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """What the page calls each attack: its title and its settings that are words; its name too
    where these are alike."""
    labels = []
    for _, section in sections:
        words = [value for key, value in keywords(section).items() if isinstance(value, str) and key != "encoding"]
        labels.append(", ".join([attacks.get(section["name"]).card.title, *words]))
    return [label if labels.count(label) == 1 else f"{label} ({name})" for label, (name, _) in zip(labels, sections)]


def _attack_cell(stage: Stage, cell: pathlib.Path, one: Trained, label: str, section: dict[str, Any]) -> None:
    """One attack on the training and the held-out records of one target."""
    survey, parts = stage.survey, stage.parts
    method = attacks.get(section["name"])
    victims = np.concatenate([parts.training, parts.held_out])
    codes = survey.codes[victims].copy()
    codes[:, [survey.sensitive, *survey.unknown]] = 0  # not the adversary's to see

    def counts(j: int) -> np.ndarray:
        return np.bincount(survey.codes[parts.public, j], minlength=survey.columns[j])

    confusion = np.zeros((survey.classes, survey.classes))
    np.add.at(confusion, (survey.labels[parts.training], answers(one, survey, parts.training)), 1)
    attack, access, settings = _assemble(survey, section, one.target, one.encoding, counts, confusion)
    started = time.monotonic()
    result = run(
        attack, jax.random.key(stage.config["seed"]),
        Scenario(one.target, {"record": codes, "label": survey.labels[victims]}),
        plan=Plan(chunk=512), folder=cell / "work", title=f"{section['name']} on {one.name}",
    )  # fmt: skip
    broken = int((result.status == Status.NONFINITE).sum())
    if broken:
        raise FloatingPointError(f"{section['name']} on {one.name}: {broken} cases went non-finite")
    posterior = getattr(result.output, "posterior", result.output)
    queries = np.asarray(result.info.queries)
    record = {
        "attack": section["name"],
        "label": label + (" on shuffled labels" if one.control else ""),
        "target": one.name,
        "control": one.control,
        "card": {**method.card._asdict(), "access": access.name},
        "hyperparameters": settings,
        "seconds": round(time.monotonic() - started, 2),
        "queries": {"mean": float(queries.mean()), "max": int(queries.max()), "training": 0},
        "status": {"RUNNING": survey.members},
    }
    _finish(stage, cell, record, np.asarray(posterior[:, 1], np.float64))


def _assemble(
    survey: Survey,
    section: dict[str, Any],
    target: Target,
    encoding: str,
    counts: Callable[[int], np.ndarray],
    confusion: np.ndarray,
) -> tuple[Attack, Access, dict[str, Any]]:
    """The attack of a section, the access it takes and its settings; `counts` are those of an
    attribute's values.

    An attack gets what its signature asks for: `columns`, `sensitive`, `marginals`, `confusion`,
    `unknown` and `encoding` as in `attribute_inversion`. What it puts out is the posterior of the
    sensitive attribute, or has it as `posterior`.
    """
    method = attacks.get(section["name"])
    shares = {j: counts(j) / counts(j).sum() for j in (survey.sensitive, *survey.unknown)}
    supplied = {
        "columns": survey.columns,
        "sensitive": survey.sensitive,
        "marginals": shares[survey.sensitive],
        "confusion": confusion,
        "unknown": {j: shares[j].tolist() for j in survey.unknown},
        "encoding": encoding,
    }
    lacking = ", ".join(name for name in method.inputs if name not in ("oracle", *supplied))
    if lacking:
        raise ValueError(f"{method.name}: needs {lacking}; an audit of records supplies {', '.join(supplied)}")
    asked = {name: value for name, value in supplied.items() if name in (*method.inputs, *method.hyperparameters)}
    settings = {**keywords(section), **({"encoding": encoding} if "encoding" in asked else {})}
    access = Access(method.card.access)
    while True:  # the card says the least access, settings may want more
        try:
            oracle = target.view(access, method.name)
            return method.factory(oracle, **{**asked, **settings}), access, settings
        except ThreatModelError:
            if access >= target.granted:
                raise
            access = Access(access + 1)


def _finish(stage: Stage, cell: pathlib.Path, record: dict[str, Any], posterior: np.ndarray) -> None:
    """Measure and commit; `posterior` is of the sensitive value being 1, for training, then held-out records."""
    m = stage.survey.members
    wanted = stage.survey.codes[np.concatenate([stage.parts.training, stage.parts.held_out]), stage.survey.sensitive]
    right = (posterior > 0.5) == (wanted == 1)
    reference = stage.without["imputation_label"]
    excess = auc_difference(posterior[:m], reference[:m], wanted[:m])
    metrics = {
        "auc": auc_interval(posterior[:m], wanted[:m])._asdict(),
        "accuracy": {**bootstrap(right[:m].astype(float))._asdict(), "unit": "share"},
        "excess_auc_over_imputation": excess._asdict(),
        "auc_on_held_out_records": auc_interval(posterior[m:], wanted[m:])._asdict(),
        "accuracy_on_held_out_records": {**bootstrap(right[m:].astype(float))._asdict(), "unit": "share"},
    }
    arrays = {
        "posterior": posterior[:m],
        "targets": wanted[:m].astype(np.int32),
        "case_ids": stage.parts.training.astype(np.int32),
        "success": right[:m],
    }
    files.finish_cell(cell, {**record, "seed": stage.config["seed"], "n": m, "metrics": metrics}, arrays)
