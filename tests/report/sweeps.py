"""A sweep's folder as `jaxmia sweep` leaves it, of made-up numbers and without any array."""

import csv
import hashlib
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

from jaxmia.report import folder as run_folder
from jaxmia.report import tables

from .conftest import CARDS, estimate, write_json

Values = dict[str, Any]


def part(value: float, half: float = 0.1) -> dict[str, Any]:
    """A share of 60 with an interval of twice `half`."""
    return estimate(value, max(value - half, 0.0), min(value + half, 1.0), 60, unit="share", groups=12)


def write_cell(
    run: pathlib.Path, attack: str, target: str, metrics: Values, *, seed: int = 0, control: bool = False,
    label: str | None = None,
) -> None:  # fmt: skip
    title, year, access, knows, recovers = CARDS[attack]
    cell = run / "cells" / f"{target}--{attack.split('/')[1]}{'-control' * control}"
    cell.mkdir(parents=True)
    card = {
        "title": title, "paper": "Some Authors, A Venue", "url": f"https://example.org/{attack}", "year": year,
        "modality": "image", "access": access, "recovers": recovers, "knows": knows,
    }  # fmt: skip
    write_json(
        cell / "cell.json",
        {
            "attack": attack, "label": label or title, "target": target, "seed": seed, "control": control, "card": card,
            "hyperparameters": {}, "n": 60, "seconds": 3.5, "queries": None, "status": {"RUNNING": 60},
            "metrics": metrics, "exhibits": [],
        },
    )  # fmt: skip
    write_json(cell / "done.json", {})


def write_targets(run: pathlib.Path, accuracies: dict[str, tuple[float, str]]) -> None:
    """targets.json of name: (test accuracy, defense)."""
    write_json(
        run / "targets.json",
        [
            {
                "name": name, "dataset": "Drawn faces", "architecture": "convolution", "test_accuracy": part(x, 0.02),
                "defense": defense, "granted": "WEIGHTS", "parameters": 184_220, "seconds": 73.2,
            }
            for name, (x, defense) in accuracies.items()
        ],
    )  # fmt: skip


def run_of(values: Values) -> str:
    """Twelve digits, as of a cell's digest."""
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:12]


def write_sweep(
    folder: pathlib.Path, swept: dict[str, list], fill: Callable[[pathlib.Path, Values], None], zipped: bool = False
) -> pathlib.Path:
    """The product of `swept` as run folders, which `fill` gives targets and cells, and their table."""
    cells = [dict(zip(swept, row)) for row in (zip if zipped else itertools.product)(*swept.values())]
    for values in cells:
        run = folder / run_of(values)
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
        write_json(run / "environment.json", {"command": "jaxmia sweep faces.yaml", "jax": "0.10.2", "device": "cpu"})
        fill(run, values)
        (run / "report.html").write_text("the page of this cell", encoding="utf-8")
        write_json(run / "done.json", {})
    write_table(folder, cells)
    return folder


def role_of(path: str) -> str:
    return "adversary" if path.split(".")[0] in ("attacks", "networks", "prior") else "target"


def write_table(folder: pathlib.Path, cells: list[Values]) -> None:
    """results.csv of the runs of these values; a value called `rung` is a column of its own."""
    rows = []
    for values in cells:
        run = run_of(values)
        lead = {"run": run, **{("" if name == "rung" else "sweep.") + name: str(x) for name, x in values.items()}}
        text = tables.results(run_folder.read(folder / run, arrays=False))
        rows += [{**lead, **row} for row in csv.DictReader(text.splitlines())]
    roles = {path: role_of(path) for path in cells[0] if path != "rung"}
    write_json(folder / "sweep.json", {"roles": roles})
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def defended(run: pathlib.Path, values: Values) -> None:
    """Two targets, two attacks and a control: a defense of growing weight, an attack of growing steps, two seeds."""
    weight, steps, seed = values["defenses.weight"], values["attacks.0.steps"], values["seed"]
    write_targets(run, {"mlp": (0.97 - 0.3 * weight + 0.01 * seed, ""), "convnet": (0.99 - 0.5 * weight, "bido")})
    for target, scale in (("mlp", 1.0), ("convnet", 0.6)):
        reached = scale * (0.8 - 0.6 * weight**0.5) * (0.7 if steps == 100 else 1.0) + 0.02 * seed
        write_cell(run, "image/gmi", target, {"accuracy": part(reached), "distance": part(0.5)}, seed=seed)
        write_cell(run, "image/brep_mi", target, {"accuracy": part(0.7 * reached)}, seed=seed)
        control = {"accuracy": part(0.05 + 0.01 * seed, 0.04)}
        write_cell(run, "image/gmi", target, control, seed=seed, control=True, label="GMI, shuffled labels")


DEFENDED = {"defenses.weight": [0, 0.01, 0.1, 1], "attacks.0.steps": [100, 1000], "seed": [0, 1, 2]}
