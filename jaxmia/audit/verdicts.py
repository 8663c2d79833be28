"""Verdicts: whether a run shows that an attack recovers private data, beyond what the controls find.

The headline metric, by every evaluator, is compared class by class with the strongest of the attack's own controls and the
baselines; the interval resamples classes. "shown": the whole interval is above zero under two evaluators, or under the only
one. "not shown at this budget": under no evaluator is it, and the whole interval lies below `SMALL`. Else "undecided". No
verdict says that a model is safe: a stronger attack may show what this one does not.
"""

import pathlib
from typing import Any

import numpy as np

from jaxmia.audit import folder as files
from jaxmia.audit import modality_of, targets
from jaxmia.audit.roles import listed, named
from jaxmia.metrics.estimate import Estimate, difference
from jaxmia.report.arrays import read_arrays
from jaxmia.report.objects import read_object

__all__ = ["table"]

SMALL = 0.1  # a share of cases that counts as next to nothing


def table(config: dict[str, Any], run: pathlib.Path) -> dict[str, Any] | None:
    """The verdicts on every attack and target as a table of the page (`jaxmia.report`); None without controls."""
    modality, rows = modality_of(config), []
    jobs = targets.jobs(config, modality.controls)
    baselines = [run / "cells" / f"baseline--{name}" for name in modality.baselines]
    for job in [job for job in jobs if not job.control]:
        for name, _ in named(listed(config["attacks"])):
            own = [run / "cells" / f"{one.name}--{name}" for one in jobs if one.control and one.origin == _plain(job)]
            cell, controls = run / "cells" / f"{job.name}--{name}", [*own, *baselines]
            if not own or not all(map(files.is_done, [cell, *controls])):
                continue
            record = read_object(cell / "cell.json").values
            found = {metric: _above(cell, controls, metric) for metric in _headlines(record["metrics"])}
            gaps = [gap for gap, _ in found.values() if gap is not None]
            if not gaps:
                continue
            for metric, (gap, control) in found.items():
                if gap is not None:
                    shown = {**gap._asdict(), "unit": record["metrics"][metric].get("unit", "")}
                    value = record["metrics"][metric]
                    access, label = record["card"]["access"], record["label"]
                    rows.append([job.name, label, access, metric, value, control, shown, _verdict(gaps)])
    if not rows:
        return None
    columns = ["target", "attack", "needs", "metric", "value", "strongest control", "above it", "verdict"]
    note = (
        "Above it: by how much the attack exceeds the strongest control, class by class. Shown: above zero under two "
        "evaluators, or under the only one. Not shown at this budget is not safe: another attack may show more."
    )
    return {"title": "Verdicts", "columns": columns, "rows": rows, "note": note, "verdict": _strongest(rows)}


def _strongest(rows: list[list[Any]]) -> dict[str, Any]:
    """What the page says first: the row that shows most, in a sentence."""
    order = ("not shown at this budget", "undecided", "shown")
    target, label, access, metric, value, control, above, said = max(
        rows, key=lambda row: (order.index(row[-1]), row[-2]["low"])
    )
    found = (
        f"{label} on {target}, which needs {access.lower()}, reaches {metric.replace('_', ' ')} {_told(value)}, "
        f"{_told(above)} above the strongest control, {control}"
    )
    words = {
        "shown": f"Shown: {found}.",
        "undecided": f"Undecided: {found}.",
        "not shown at this budget": f"Not shown at this budget: {found}. This does not say that the model is safe.",
    }
    return {"leaks": {"shown": True, "undecided": None}.get(said, False), "text": words[said]}


def _told(measured: dict[str, Any]) -> str:
    share = measured.get("unit") == "share"
    value, low, high = (
        f"{100 * measured[end]:.0f}" if share else f"{measured[end]:.3g}" for end in ("value", "low", "high")
    )
    return f"{value}{' %' * share} [{low}, {high}]"


def _plain(job: targets.Job) -> str:
    """The undefended target that a job is of, whose controls are its controls."""
    return job.name.split("+")[0] if job.defense else job.name


def _headlines(metrics: dict[str, Any]) -> list[str]:
    """The first metric; where each evaluator has its own, all of them."""
    first = next(iter(metrics), "")
    base = first.split(" [")[0]
    return [name for name in metrics if name == first or name.startswith(f"{base} [")]


def _above(cell: pathlib.Path, controls: list[pathlib.Path], metric: str) -> tuple[Estimate | None, str]:
    """By how much an attack exceeds the control that does best by a metric, and which that is."""
    own, best, which = _by_group(cell, metric), None, ""
    for control in controls:
        found = _by_group(control, metric)
        if found and (best is None or np.mean(list(found.values())) > np.mean(list(best.values()))):
            best, which = found, read_object(control / "cell.json").values["label"]
    groups = sorted(own.keys() & (best or {}).keys())
    if best is None or len(groups) < 2:
        return None, which
    first, second = (np.array([side[group] for group in groups]) for side in (own, best))
    return difference(first, second, np.array(groups)), which


def _by_group(cell: pathlib.Path, metric: str) -> dict[int, float]:
    """The mean of a metric in every class, of what counts; the stronger, the higher."""
    described = read_object(cell / "cell.json").values["metrics"].get(metric, {})
    arrays = read_arrays(cell / "candidates.npz", ["targets"], [f"metric:{metric}", "held_out"])
    if f"metric:{metric}" not in arrays:
        return {}
    values = arrays[f"metric:{metric}"] * (-1.0 if described.get("stronger") == "lower" else 1.0)
    counted = np.isfinite(values) & ~arrays.get("held_out", np.zeros(len(values), bool))
    return {
        int(g): float(values[counted & (arrays["targets"] == g)].mean()) for g in np.unique(arrays["targets"][counted])
    }


def _verdict(gaps: list[Estimate]) -> str:
    above = sum(gap.low > 0 for gap in gaps)
    if above >= min(2, len(gaps)):
        return "shown"
    return "not shown at this budget" if above == 0 and all(gap.high < SMALL for gap in gaps) else "undecided"
