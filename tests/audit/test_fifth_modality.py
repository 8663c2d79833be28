"""A modality of another package runs through every command without an edit elsewhere."""

import csv
import importlib.metadata

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Outputs, Target, cli
from jaxmia.metrics.estimate import bootstrap
from jaxmia.testing import Bench, check_attack
from tests.signals import LENGTH, PEOPLE, slope

CONFIG = """
modality: signals
data: signals
targets: [linear]
controls: [linear]
defenses: {name: bido, lambda_x: 0.1}
attacks: signals/slope
"""


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """What the package says of itself, as pip would have it."""
    found = importlib.metadata.entry_points
    known = {
        "jaxmia.modalities": [importlib.metadata.EntryPoint("signals", "tests.signals", "jaxmia.modalities")],
        "jaxmia.attacks": [importlib.metadata.EntryPoint("signals/slope", "tests.signals.slope", "jaxmia.attacks")],
    }
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [*found(group=group), *known.get(group, [])])


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return {row["cell"]: row for row in csv.DictReader(file)}


def test_it_is_audited_judged_again_and_reported(tmp_path, capsys):
    (tmp_path / "signals.yaml").write_text(CONFIG)
    run = tmp_path / "run"
    assert cli.main(["attack", str(tmp_path / "signals.yaml"), "--out", str(run)]) == 0
    found = rows(run)
    assert float(found["linear--slope"]["low"]) > float(found["linear-shuffled--slope"]["high"])
    assert float(found["linear--slope"]["low"]) > float(found["baseline--flat"]["high"])
    assert found["linear+bido--slope"]["defense"] == "bido" and found["baseline--flat"]["control"] == "true"
    page = (run / "report.html").read_text()
    assert "Slope" in page and "The mean signal" in page
    assert cli.main(["evaluate", str(run)]) == 0
    assert {name: row["value"] for name, row in rows(run).items()} == {n: row["value"] for n, row in found.items()}
    assert cli.main(["plan", str(tmp_path / "signals.yaml")]) == 0
    assert "slope on linear" in capsys.readouterr().out


@pytest.mark.nightly
def test_it_is_swept(tmp_path):
    (tmp_path / "signals.yaml").write_text(CONFIG.replace("defenses", "sweep: {data.noise: [0.1, 0.5]}\ndefenses"))
    where = tmp_path / "sweep"
    assert cli.main(["sweep", str(tmp_path / "signals.yaml"), "--out", str(where)]) == 0
    assert (where / "report.html").exists() and "sweep.data.noise" in (where / "results.csv").read_text()


def test_its_attack_keeps_the_contracts():
    patterns = np.eye(LENGTH, dtype=np.float32)[:PEOPLE]

    def build(weights, **options):
        return Target(lambda w, x: Outputs(w @ x, {}), jnp.asarray(weights), classes=PEOPLE, **options)

    bench = Bench(
        build=build,
        params={"leaks": patterns, "shuffled": np.roll(patterns, 1, 0), "constant": np.zeros_like(patterns)},
        inputs={"length": LENGTH},
        cases=lambda target, card: np.arange(PEOPLE, dtype=np.int32),
        judge=lambda output: bootstrap((np.asarray(output).argmax(1) == np.arange(PEOPLE)).astype(float)),
        chance=1 / LENGTH,
        candidate=jnp.zeros(LENGTH),
    )
    check_attack("signals/slope", slope, bench=bench)
