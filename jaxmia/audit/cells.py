"""Cells: one attack on one target, for one run or for all settings of a sweep at once: solve, judge, commit."""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import attacks
from jaxmia import config as configuration
from jaxmia.audit import assembly, plan
from jaxmia.audit import folder as files
from jaxmia.audit.asking import asked
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Arrays, Fitted, Modality, Observed, Panel
from jaxmia.audit.roles import keywords, listed, named
from jaxmia.audit.targets import Trained
from jaxmia.core import Card, Scenario
from jaxmia.engine import Result, Status, run, solve
from jaxmia.oracle import Access
from jaxmia.recipes import swept
from jaxmia.report.arrays import read_arrays
from jaxmia.report.objects import read_object

__all__ = ["Run", "attack", "compare", "healable", "judge_again", "observed"]


class Run(NamedTuple):
    """What all cells of one run share."""

    modality: Modality
    config: dict[str, Any]
    folder: pathlib.Path
    data: Any
    panel: Panel
    inputs: Inputs

    def cell(self, target: str, name: str) -> pathlib.Path:
        """The folder of one cell."""
        return self.folder / "cells" / f"{target}--{name}"


def observed(inputs: Inputs, card: Card, served: Fitted) -> Observed:
    """What an attack observes; `served` answers where it is the target's answers."""
    modality, config = inputs.modality, inputs.config
    found = modality.observe[card.observes](inputs)
    if not found.served:
        return found
    view = modality.shown(served, card, config).view(Access.SCORES)
    keys = jax.random.split(jax.random.key(config["seed"]), len(found.groups))
    return found._replace(cases=asked(jax.vmap(view.answer), keys, found.cases))


def attack(runs: Sequence[Run], target: Trained, served: Fitted, number: int, name: str) -> dict[pathlib.Path, str]:
    """Attack `number` of every run on one target; by run folder, what went wrong.

    The runs differ in traced numbers alone. Those whose cell is missing are solved as one program, unless the attack
    trains something of its own, which would depend on its settings. `served` answered for the victims that an attack
    observes.
    """
    missing = [run for run in runs if not files.is_done(run.cell(target.job.name, name))]
    if not missing:
        return {}
    first, config = missing[0], missing[0].config
    sections = [listed(member.config["attacks"])[number] for member in missing]
    method, inputs = attacks.get(sections[0]["name"]), first.inputs.of(target.fitted)
    seen = observed(inputs, method.card, served)
    settings = {configuration.digest(section): section for section in sections}  # two runs may differ elsewhere
    made = {which: assembly.assemble(section, inputs) for which, section in settings.items()}
    started, key, speed = time.monotonic(), jax.random.key(config["seed"]), plan(**config["plan"])
    title = f"{method.name} on {target.job.name}"
    if len(settings) == 1 or any(attack.train for attack, _ in made.values()):
        scenario = Scenario(target.fitted.target, seen.cases, public=inputs.get("batches"))
        owner = dict(zip(map(configuration.digest, sections), missing))
        results = {
            which: run(
                attack, key, scenario, plan=speed, folder=owner[which].cell(target.job.name, name) / "work", title=title
            )
            for which, (attack, _) in made.items()
        }
    else:
        work = {"runs": [member.folder.name for member in missing], "cell": f"{target.job.name}--{name}"}
        folder = first.folder.parent / "together" / configuration.digest(work)[:12]
        # As `run` does: an attack's stages have the other keys.
        key = jax.random.fold_in(key, 0)
        results = _together(settings, inputs, seen.cases, key, plan=speed, folder=folder, title=title)
    seconds, failed = (time.monotonic() - started) / len(missing), {}
    for which, section in settings.items():
        result, alike = results[which], [run for run, other in zip(missing, sections) if other == section]
        times = len(seen.groups) // len(result.status)  # things attacked in each case
        status = np.repeat(result.status, times)
        broken = status == Status.NONFINITE
        if broken.mean() > 0.5:
            failed |= {run.folder: f"{title}: {broken.mean():.0%} of the cases went non-finite" for run in alike}
            continue
        broken |= np.repeat(np.asarray(result.info.extra.get("failed", np.zeros(len(result.status), bool))), times)
        counted = np.ones(len(broken), bool) if seen.held_out is None else ~seen.held_out
        queries, training = np.asarray(result.info.queries), result.training_queries or 0
        record = {
            "card": {**method.card._asdict(), "access": made[which][1].name},
            "attack": method.name,
            "target": target.job.name,
            "hyperparameters": assembly.settings_of(section, inputs),
            "seconds": round(seconds, 2),
            # As many runs were timed as one, and each has its share.
            **({"seconds_shared_by": len(missing)} if len(missing) > 1 else {}),
            "queries": {"mean": float(queries.mean()), "max": int(queries.max()), "training": training}
            if training or queries.any()
            else None,
            "status": {one.name: int(np.sum(status[counted] == one)) for one in Status},
            "control": bool(target.job.control),
            "label": _label(name, section, config) + _of_control(target.job.control),
        }
        cells = [run.cell(target.job.name, name) for run in alike]
        _finish(first, cells, record, first.modality.keep(result.output, seen), seen, broken)
    return failed


def _together(
    settings: dict[str, dict[str, Any]], inputs: Inputs, cases: Any, key: Any, **how: Any
) -> dict[str, Result]:
    """All settings as one program; its result cut up again."""
    sections, n = list(settings.values()), len(jax.tree.leaves(cases)[0])
    differing = [key for key in sections[0] if any(section[key] != sections[0][key] for section in sections)]
    numbers = {key: np.repeat(np.array([section[key] for section in sections], np.float32), n) for key in differing}

    def make(numbers: dict[str, Any]) -> Any:
        return assembly.assemble({**sections[0], **numbers}, inputs)[0].solve(())

    every = jax.tree.map(lambda leaf: np.tile(leaf, (len(sections),) + (1,) * (leaf.ndim - 1)), cases)
    ids = np.tile(np.arange(n, dtype=np.int32), len(sections))
    result = solve(swept(make, make({}).steps), key, (numbers, every), ids=ids, **how)
    return {
        which: jax.tree.map(lambda leaf, i=i: leaf[i * n : (i + 1) * n], result) for i, which in enumerate(settings)
    }


def _label(name: str, section: dict[str, Any], config: dict[str, Any]) -> str:
    """What the page calls an attack: its title, and the settings in words that tell it from the same attack with others.

    Numbers are left out: the cells of a sweep differ in them, and must share their labels.
    """
    title, short = attacks.get(section["name"]).card.title, section["name"].rsplit("/", 1)[-1]
    alike = [other for _, other in named(listed(config["attacks"])) if other["name"] == section["name"]]

    def worded(one: dict[str, Any]) -> str:
        words = [
            value
            for key, value in keywords(one).items()
            if isinstance(value, str) and any(other.get(key) != value for other in alike)
        ]
        return ", ".join([title, *words])

    if len(alike) > 1 and [worded(other) for other in alike].count(worded(section)) == 1:
        return worded(section)
    return title + (f" ({name})" if name != short else "")


def _of_control(kind: str) -> str:
    words = {"": "", "shuffled": " on shuffled labels", "permuted": " with exchanged classes"}
    return words.get(kind, f" on a target that is {kind}")


def compare(runs: Sequence[Run], target: str) -> None:
    """The cells of what is found without any target; they stand among the controls."""
    first = runs[0]
    for name, baseline in first.modality.baselines.items():
        cells = [run.cell("baseline", name) for run in runs]
        missing = [cell for cell in cells if not files.is_done(cell)]
        if not missing:
            continue
        arrays = baseline.guess(first.inputs)
        record = {
            "card": {**baseline.card._asdict(), "access": Access.NONE.name},
            "attack": "none",
            "label": baseline.label,
            "target": target,
            "control": True,
            "hyperparameters": {},
            "seconds": 0.0,
            "queries": None,
            "status": {"chosen": int(_counted(arrays).sum())},
        }
        for cell in missing:
            cell.mkdir(parents=True, exist_ok=True, mode=0o700)
        _commit(first, missing, record, arrays)


def _finish(
    run: Run, cells: Sequence[pathlib.Path], record: dict[str, Any], kept: Arrays, seen: Observed, failed: np.ndarray
) -> None:
    """Judge what an attack put out, and commit the cells of all runs that share it."""
    ids = np.arange(len(seen.groups), dtype=np.int32) if seen.ids is None else seen.ids
    arrays = {**kept, **seen.truth, "targets": seen.groups, "case_ids": ids, "failed": failed}
    if seen.held_out is not None:
        arrays["held_out"] = seen.held_out
    _commit(run, cells, record, arrays)


def _commit(run: Run, cells: Sequence[pathlib.Path], record: dict[str, Any], arrays: Arrays) -> None:
    judged = run.modality.judge(run.panel.judges, run.data, arrays)
    counted = _counted(arrays)
    record = {
        **record,
        "seed": run.config["seed"],
        "n": int(counted.sum()),
        "failed": int(arrays["failed"][counted].sum()),
        "metrics": judged.metrics,
        "exhibits": judged.exhibits,
        "evaluators": [judge.digest for judge in run.panel.judges],
    }
    for cell in cells:
        files.finish_cell(cell, record, {**arrays, **judged.arrays})


def _counted(arrays: Arrays) -> np.ndarray:
    """Which of the things attacked are not a comparison that is counted apart."""
    return ~arrays["held_out"] if "held_out" in arrays else np.ones(len(arrays["targets"]), bool)


def judge_again(run: Run, cell: pathlib.Path) -> None:
    """Judge a finished cell by the present judges."""
    record = healable(cell, lambda: read_object(cell / "cell.json").values)
    stored = healable(cell, lambda: read_arrays(cell / "candidates.npz", ["targets", "case_ids", "failed"], None))
    (cell / "done.json").unlink(missing_ok=True)  # until arrays and record are of the same judges again
    _commit(run, [cell], record, {name: value for name, value in stored.items() if not _is_result(name)})


def _is_result(array: str) -> bool:
    """Whether an array of a cell's file is what judging found."""
    return array == "success" or array.startswith("metric:")


def healable(cell: pathlib.Path, read: Callable[[], Any]) -> Any:
    """What `read` finds in a cell's folder; where it is missing or damaged, it is told how the cell is made anew."""
    try:
        return read()
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{error}; delete the folder {cell}, and `jaxmia attack` makes it anew") from None
