"""Claims: which of two attacks is stronger, as a paper says it, judged on the same things attacked.

    claims:
      - {stronger: ked_mi, weaker: gmi, metric: attack_accuracy@1, of: "KED-MI, ICCV 2021"}
      - {stronger: graph_mi, weaker: baseline/features, metric: auc, of: "GraphMI, IJCAI 2021"}

Either side is an attack of the configuration by the name of its cells, or a baseline. A claim is judged on every target:
confirmed where the whole interval of the difference is above zero, refuted where it is below, else undecided. Where a
metric is of single things attacked, these are paired and the interval resamples their groups, all seeds of a group kept
together; else it resamples seeds, or with one seed combines both intervals as if they were independent, which is wide.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmia.audit import folder as files
from jaxmia.audit import modality_of, targets
from jaxmia.audit.roles import listed, named
from jaxmia.metrics.estimate import Estimate, bootstrap, difference
from jaxmia.report.arrays import read_arrays
from jaxmia.report.objects import read_object

__all__ = ["check", "claim", "table"]


def claim(*, stronger: str = "", weaker: str = "", metric: str = "", of: str = "") -> dict[str, str]:
    """One claim.

    Args:
      stronger: the attack or `baseline/NAME` that is said to be stronger.
      weaker: the other.
      metric: by which, as in results.csv; without an evaluator it is judged by each.
      of: who says so.
    """
    return {"stronger": stronger, "weaker": weaker, "metric": metric, "of": of}


def check(config: dict[str, Any]) -> None:
    """Refuse a claim of what the configuration does not have (ValueError naming it)."""
    known = [name for name, _ in named(listed(config["attacks"]))]
    known += [f"baseline/{name}" for name in modality_of(config).baselines]
    for i, entry in enumerate(listed(config["claims"])):
        for side in ("stronger", "weaker"):
            if entry[side] not in known:
                raise ValueError(f"claims.{i}.{side}: {entry[side]!r}; legal is one of {', '.join(known)}")
        if not entry["metric"]:
            raise ValueError(f"claims.{i}.metric: missing; legal is a metric of results.csv")


def table(config: dict[str, Any], runs: Sequence[pathlib.Path]) -> dict[str, Any]:
    """The claims of a configuration as a table of the page (`jaxmia.report`), from runs that differ in seeds alone.

    Raises:
      ValueError: a finished cell lacks a claim's metric, naming those that it has.
    """
    rows = []
    for entry in listed(config["claims"]):
        for job in targets.jobs({**config, "controls": ()}, modality_of(config).controls):
            sides = [[_cell(run, job.name, entry[side]) for run in runs] for side in ("stronger", "weaker")]
            if not all(map(files.is_done, sum(sides, []))):
                continue
            for metric in _metrics(sides[0][0], entry["metric"]):
                measured = [[_measured(cell, metric) for cell in cells] for cells in sides]
                found = _difference(sides, measured, metric)
                verdict = "confirmed" if found.low > 0 else "refuted" if found.high < 0 else "undecided"
                shown = {**found._asdict(), "unit": measured[0][0].get("unit", "")}
                said = f"{entry['stronger']} over {entry['weaker']}"
                rows.append([said, entry["of"], job.name, metric, shown, verdict])
    note = "By how much the first is stronger than the second on the same things attacked; positive is as claimed."
    columns = ["claim", "of", "target", "metric", "difference", "verdict"]
    return {"title": "Claims", "columns": columns, "rows": rows, "note": note}


def _cell(run: pathlib.Path, target: str, side: str) -> pathlib.Path:
    kind, _, name = side.rpartition("/")
    return run / "cells" / (f"baseline--{name}" if kind else f"{target}--{name}")


def _metrics(cell: pathlib.Path, named: str) -> list[str]:
    """The metric of that name; where each evaluator has its own, all of them."""
    metrics = read_object(cell / "cell.json").values["metrics"]
    return [name for name in metrics if name.startswith(f"{named} [")] or [named]


def _measured(cell: pathlib.Path, metric: str) -> dict[str, Any]:
    metrics = read_object(cell / "cell.json").values["metrics"]
    if metric not in metrics:
        raise ValueError(f"claims: {metric!r} is no metric of {cell}; legal is one of {', '.join(metrics)}")
    return metrics[metric]


def _difference(sides: list[list[pathlib.Path]], measured: list[list[dict[str, Any]]], metric: str) -> Estimate:
    """By how much the first is stronger, whichever way the metric counts."""
    sign = -1.0 if measured[0][0].get("stronger") == "lower" else 1.0
    paired = [_things(first, second, metric) for first, second in zip(*sides)]
    if all(pair is not None for pair in paired):
        first, second, groups = (np.concatenate(parts) for parts in zip(*paired))  # type: ignore[arg-type]
        return difference(sign * first, sign * second, groups)
    values = np.array([[m["value"] for m in side] for side in measured])
    gaps = sign * (values[0] - values[1])
    if len(gaps) > 1:
        return bootstrap(gaps)._replace(method="bootstrap over seeds")
    (first,), (second,) = measured
    below = np.hypot(first["value"] - first["low"], second["high"] - second["value"])
    above = np.hypot(first["high"] - first["value"], second["value"] - second["low"])
    low, high = (gaps[0] - below, gaps[0] + above) if sign > 0 else (gaps[0] - above, gaps[0] + below)
    n, confidence = min(first["n"], second["n"]), first["confidence"]
    return Estimate(float(gaps[0]), float(low), float(high), n, n, confidence, "both intervals, as if independent")


def _things(first: pathlib.Path, second: pathlib.Path, metric: str) -> tuple[np.ndarray, ...] | None:
    """The metric of every thing that both attacked, and its group; None where it is no metric of single things."""
    name, found = f"metric:{metric}", []
    for cell in (first, second):
        arrays = read_arrays(cell / "candidates.npz", ["targets", "case_ids"], [name, "held_out"])
        if name not in arrays:
            return None
        counted = np.isfinite(arrays[name]) & ~arrays.get("held_out", np.zeros(len(arrays[name]), bool))
        found.append({i: (v, g) for i, v, g in zip(*(arrays[k][counted] for k in ("case_ids", name, "targets")))})
    both = [i for i in found[0] if i in found[1]]
    if not both:
        return None
    a, b = (np.array([side[i][0] for i in both], float) for side in found)
    return a, b, np.array([found[0][i][1] for i in both])
