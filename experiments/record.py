"""How the experiments write down what they measured: one JSON file that a person can read, and tables as CSV."""

import csv
import json
import pathlib
import platform
import sys
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jaxmia.metrics.estimate import Estimate

__all__ = ["header", "interval", "read", "write", "write_rows"]


def header(script: str, seeds: Iterable[int]) -> dict[str, Any]:
    """The command, the seeds and where it ran."""
    place = pathlib.Path(script).resolve().relative_to(pathlib.Path(__file__).resolve().parent)
    return {
        "command": " ".join(["python", f"experiments/{place}", *sys.argv[1:]]),
        "seeds": list(seeds),
        "environment": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
            "device": jax.devices()[0].device_kind,
        },
    }


def interval(estimate: Estimate) -> list[float]:
    """Value, low and high end."""
    return [round(number, 4) + 0.0 for number in (estimate.value, estimate.low, estimate.high)]  # no negative zero


def write(report: dict[str, Any], began: float, folder: pathlib.Path, name: str) -> None:
    """Writes `folder/name.json`, with the seconds since `began` (of `time.perf_counter`)."""
    report["seconds"] = round(time.perf_counter() - began)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(_text(report, 1) + "\n")


def write_rows(rows: list[dict[str, Any]], folder: pathlib.Path, name: str) -> None:
    """Writes `folder/name.csv`, with the columns of all rows; a cell that a row lacks is empty."""
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(key for row in rows for key in row)), restval="", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)


def _text(value: Any, depth: int) -> str:
    """JSON with an object on one line unless it holds objects."""
    if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
        return json.dumps(value)
    pad = " " * depth
    parts = [f"{pad}{json.dumps(key)}: {_text(inner, depth + 1)}" for key, inner in value.items()]
    return "{\n" + ",\n".join(parts) + "\n" + pad[1:] + "}"


def read(file: pathlib.Path) -> Any:
    """What a JSON file holds."""
    return json.loads(file.read_text(encoding="utf-8"))
