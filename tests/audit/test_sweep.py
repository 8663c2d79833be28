"""Sweeps: what cells share changes no result, whoever runs them, and nothing that is finished is done again."""

import csv
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml

from jaxmia import cli, config
from jaxmia.audit import cells as auditing
from jaxmia.audit import cluster, schema
from jaxmia.audit import sweep as sweeping
from jaxmia.core import Process, info
from jaxmia.data import minibatches
from jaxmia.modalities.image import judging
from jaxmia.modalities.image.priors import PRIORS, eigenfaces
from jaxmia.report.sweep_folder import read_sweep
from jaxmia.report.sweep_numbers import points
from tests.tiny import write_config

ATTACKS = """attacks:
  - {name: image/mi_face, alpha: 20, rate: 1.0, start: 0.5}
  - {name: image/gmi, steps: 20, restarts: 1, identity_weight: 1000.0}
  - {name: image/tb_mia, steps: 20}
"""
SWEPT = {"attacks.0.rate": [1.0, 0.3], "attacks.1.rate": [0.02, 0.05], "seed": [0, 1]}


@pytest.fixture(scope="module", autouse=True)
def nowhere(tmp_path_factory):
    """A cache without archives and a PATH without npm: nothing can be downloaded."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("nowhere")
        for shell in filter(None, map(shutil.which, ("bash", "sh"))):  # Ray starts its workers by it
            (folder / pathlib.Path(shell).name).symlink_to(shell)
        patch.setenv("JAXMIA_CACHE", str(folder / "cache"))
        patch.setenv("PATH", str(folder))
        yield


def configured(folder, **more):
    path = write_config(folder)
    config = yaml.safe_load(path.read_text()) | yaml.safe_load(ATTACKS) | more
    path.write_text(yaml.safe_dump(config))
    return path


def sweep(path, out, *more):
    return cli.main(["sweep", str(path), "--out", str(out), *more])


def candidates(folder):
    """By cell, in the order of the table."""
    found = {}
    for file in sorted(folder.glob("*/cells/*/candidates.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            found[f"{file.parts[-4]}/{file.parts[-2]}"] = arrays["candidates"]
    return found


def rows(out):
    with (out / "results.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def committed(out):
    return {file: file.stat().st_mtime_ns for file in out.glob("*/cells/*/*") if file.is_file()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The configuration and folder of a sweep of eight cells in two trainings, and how often it solved."""
    folder = tmp_path_factory.mktemp("swept")
    path, out, counts = configured(folder, sweep=SWEPT), folder / "sweep", {"solve": 0, "run": 0, "judge_candidates": 0}
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((auditing, "solve"), (auditing, "run"), (judging, "judge_candidates")):

            def counted(*arguments, real=getattr(module, name), name=name, **options):
                counts[name] += 1
                return real(*arguments, **options)

            patch.setattr(module, name, counted)
        assert sweep(path, out) == 0
    return path, out, counts


@pytest.mark.nightly
def test_cells_share_what_is_trained_and_the_programs_of_their_attacks(swept):
    _, out, counts = swept
    assert len(list((out / "training").iterdir())) == 2  # one for each seed
    # For each seed: MI-Face and GMI have two settings each, solved as one program; TB-MIA trains, once for one setting.
    # A setting is judged once for all cells that have it, and so is the baseline.
    assert counts["solve"] == 4 and counts["run"] == 2 and counts["judge_candidates"] == 2 * (2 + 2 + 1 + 1)
    assert len({row["run"] for row in rows(out)}) == 8
    for record in out.glob("*/cells/softmax--*/cell.json"):  # four runs of a family, whose seconds were measured as one
        assert json.loads(record.read_text())["seconds_shared_by"] == 4


@pytest.mark.nightly
def test_a_training_has_all_that_its_cells_share(tmp_path, monkeypatch):
    """The prior too, so that tasks that wait for a training leave it as it is; a decoder is trained by its attack."""

    def mean(public, train, *, steps: int = 3):
        process = Process(
            lambda key, batch: 0.0 * batch["x"].mean(0),
            lambda key, x, batch: (x + 0.1 * (batch["x"].mean(0) - x), info(0.0)),
            lambda x: x,
            steps,
        )
        train(process, minibatches({"x": public}, 4, 0), "mean")
        return eigenfaces(public, None, components=3)

    def files(training):
        return {file: file.stat().st_mtime_ns for file in pathlib.Path(training).rglob("*") if file.is_file()}

    def train_first(tasks):
        (training,) = {task.training for task in tasks}
        assert len(tasks) == 2
        sweeping.train_for(tasks[0])
        before = files(training)
        assert any(file.parent.name.startswith("mean-") for file in before)
        for task in tasks:
            yield task, sweeping.work_off(task)
            assert files(training) == before

    monkeypatch.setitem(PRIORS, "mean", mean)
    attack = {"name": "image/gmi", "steps": 2, "restarts": 1}
    path = configured(tmp_path, prior="mean", attacks=attack, sweep={"decoder.width": [2, 4]})
    sweeping.sweep(config.load(path, [], schema), tmp_path / "sweep", "", train_first)


@pytest.mark.parametrize(
    ("modality", "section", "trained", "role"),
    [
        ("image", "networks", False, "adversary"),
        ("image", "decoder", False, "adversary"),
        ("image", "attacks", False, "adversary"),
        ("image", "attacked_classes", False, "adversary"),
        ("image", "split", False, "target"),  # where a defender cuts the model, which is trained whole
        ("image", "plan", False, "speed"),
        ("image", "prior", True, "adversary"),
        ("image", "evaluators", True, "judge"),
        ("image", "targets", True, "target"),
        ("image", "controls", True, "target"),
        ("tabular", "attacks", False, "adversary"),
        ("tabular", "defenses", True, "target"),
        ("tabular", "plan", False, "speed"),
        ("tabular", "targets", True, "target"),
    ],
)
def test_a_section_says_whose_it_is_and_whether_cells_train_by_it(modality, section, trained, role):
    found = schema({"modality": modality})[section]
    assert (found.is_trained, found.role) == (trained, role)


@pytest.mark.nightly
def test_a_sweep_of_the_adversarys_networks_is_of_one_target_trained_once(tmp_path):
    path = configured(
        tmp_path, attacks="image/mi_face", sweep={"networks.width": [4, 8], "split": ["block1", "block2"]}
    )
    out = tmp_path / "sweep"
    assert sweep(path, out) == 0
    assert len(list((out / "training").iterdir())) == 1
    roles = json.loads((out / "sweep.json").read_text())["roles"]
    assert roles == {"networks.width": "adversary", "split": "target"}
    table = read_sweep(out)
    assert [point.values for point in points(table.paths, table.settings)] == [{"split": "block1"}, {"split": "block2"}]


@pytest.mark.nightly
def test_a_cell_of_a_sweep_is_what_it_is_alone(swept, tmp_path):
    path, out, _ = swept
    alone = tmp_path / "alone"
    config = yaml.safe_load(path.read_text())
    del config["sweep"]
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(config))
    settings = ["attacks.0.rate=0.3", "attacks.1.rate=0.05", "seed=1"]
    assert cli.main(["attack", str(tmp_path / "alone.yaml"), "--out", str(alone), "--set", *settings]) == 0
    digest = (alone / "config.sha256").read_text()[:12]
    for name in ("mi_face", "gmi", "tb_mia"):
        cell = f"cells/softmax--{name}/candidates.npz"
        with (
            np.load(alone / cell, allow_pickle=False) as one,
            np.load(out / digest / cell, allow_pickle=False) as other,
        ):
            np.testing.assert_allclose(one["candidates"], other["candidates"], atol=1e-5)
    found = candidates(out)
    assert len(found) == 32 and len({array.tobytes() for name, array in found.items() if name.endswith("gmi")}) == 4


@pytest.mark.nightly
def test_finished_cells_are_never_done_again(swept, monkeypatch):
    path, out, _ = swept
    before, table = committed(out), (out / "results.csv").read_bytes()
    lost = sorted(out.glob("*/done.json"))[3].parent
    (lost / "done.json").unlink()
    for file in lost.glob("cells/softmax--mi_face/*.json"):
        file.unlink()
    assert sweep(path, out) == 0
    again = [file for file, when in committed(out).items() if before[file] != when]
    assert {file.parent for file in again} == {lost / "cells/softmax--mi_face"}
    assert (out / "results.csv").read_bytes().count(b"\n") == table.count(b"\n")


@pytest.mark.nightly
def test_the_page_of_a_sweep_leads_to_its_cells(swept, capsys):
    _, out, _ = swept
    page = (out / "report.html").read_text(encoding="utf-8")
    for run in {row["run"] for row in rows(out)}:
        assert f'href="{run}/report.html"' in page and (out / run / "report.html").exists()
    assert "attacks.0.rate" in page and "<script" not in page
    before = (out / "report.html").read_bytes()
    assert cli.main(["report", str(out)]) == 0 and (out / "report.html").read_bytes() == before


@pytest.mark.nightly
def test_a_ray_sweep_is_the_sweep(swept, tmp_path):
    pytest.importorskip("ray")
    path, out, _ = swept
    command = [sys.executable, "-m", "jaxmia.cli", "sweep", str(path), "--out", str(tmp_path / "ray")]
    told = subprocess.run(
        [*command, "--executor", "ray", "--workers", "2"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},  # without --address no other cluster is joined
    )
    assert told.returncode == 0 and "8/8 cells, 0 failed" in told.stderr, told.stderr
    found, expected = candidates(tmp_path / "ray"), candidates(out)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)
    assert len(rows(tmp_path / "ray")) == len(rows(out))


@pytest.mark.nightly
def test_a_cell_that_kills_its_workers_does_not_stop_the_others(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "RETRIES", 1)
    monkeypatch.setattr(cluster, "_train", lambda task, home: "")
    # Nested, so that it travels to the workers whole.
    monkeypatch.setattr(cluster, "_work", lambda task, home, wrong: os._exit(1) if task.training == "bad" else {})
    tasks = [sweeping.Task(name, (({}, str(tmp_path / name)),), "") for name in ("bad", "good")]
    wrong = {task.training: told for task, told in cluster.on_ray(workers=1)(tasks)}
    assert wrong["good"] == {} and "died 2 times" in wrong["bad"][str(tmp_path / "bad")]


@pytest.mark.nightly
def test_halving_runs_the_better_half_on(tmp_path, capsys):
    halving = {
        "path": "attacks.0.alpha", "budgets": [2, 4, 8], "keep": 0.5, "metric": "attack_accuracy@1 [wide_mlp]"
    }  # fmt: skip
    path = configured(tmp_path, halving=halving, sweep={"attacks.0.rate": [1e-6, 3e-6, 3.0, 1.0]})
    out = tmp_path / "sweep"
    assert sweep(path, out) == 0
    table = rows(out)
    entered = [{row["sweep.attacks.0.rate"] for row in table if row["rung"] == rung} for rung in "012"]
    assert [len(rates) for rates in entered] == [4, 2, 1] and entered[2] < entered[1] < entered[0]
    scores = {}
    for row in table:
        if row["rung"] == "0" and row["metric"] == halving["metric"] and row["control"] == "false":
            scores.setdefault(row["sweep.attacks.0.rate"], []).append(float(row["value"]))
    best = sorted(scores, key=lambda rate: -sum(scores[rate]))[:2]
    assert min(sum(scores[rate]) for rate in entered[1]) >= sum(scores[best[1]])
    for run in {row["run"] for row in table}:
        told = yaml.safe_load((out / run / "config.yaml").read_text())["attacks"][0]["alpha"]
        assert told == halving["budgets"][int(next(row["rung"] for row in table if row["run"] == run))]
    before = committed(out)
    assert sweep(path, out) == 0 and committed(out) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "halving.keep=1.5"], "halving.keep: 1.5; legal is between 0 and 1"),
        (["--set", "halving.budgets=[4, 2]"], "halving.budgets: (4, 2); legal is two or more growing numbers"),
        (["--set", "halving.path=attacks.0.rate"], "halving.path: attacks.0.rate is swept as well; drop one"),
        (
            ["--set", "sweep={attacks: [[image/mi_face], [image/gmi]]}"],
            "attacks.0.alpha is swept as well, in attacks; drop",
        ),
        (["--set", "halving.path=attacks.0.alfa"], "attacks.0.alfa: unknown key, did you mean alpha"),
        (["--set", "halving.kep=1"], "halving.kep: unknown key, did you mean keep?"),
        (["--workers", "2"], "--address, --workers: are of Ray; legal with --executor ray"),
        (["--executor", "ray", "--workers", "0"], "workers: 0; legal is 1 or more"),
    ],
)
def test_what_is_refused_before_anything_runs(words, message, tmp_path, capsys):
    if "ray" in words:
        pytest.importorskip("ray")
    halving = {"path": "attacks.0.alpha", "budgets": [2, 4], "metric": "loss"}
    path = configured(tmp_path, halving=halving, sweep={"attacks.0.rate": [1.0, 0.3]})
    assert sweep(path, tmp_path / "sweep", *words) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "sweep").glob("*"))


def test_halving_without_a_sweep_is_refused(tmp_path, capsys):
    path = configured(tmp_path, halving={"path": "attacks.0.alpha", "budgets": [2, 4], "metric": "loss"})
    for verb in ("attack", "sweep"):
        assert cli.main([verb, str(path), "--out", str(tmp_path / "run")]) == 2
        assert "halving: there is no sweep whose cells it could choose from" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_metric_that_is_not_there_is_told_with_those_that_are(tmp_path, capsys):
    halving = {"path": "attacks.0.alpha", "budgets": [2, 4], "metric": "accuracy"}
    path = configured(tmp_path, halving=halving, sweep={"attacks.0.rate": [1.0, 0.3]})
    assert sweep(path, tmp_path / "sweep") == 2
    told = capsys.readouterr().err
    assert "halving.metric: 'accuracy' is not in" in told and "attack_accuracy@1 [wide_mlp]" in told


@pytest.mark.nightly
def test_a_setting_that_goes_non_finite_does_not_stop_its_family(tmp_path, capsys):
    path = configured(tmp_path, sweep={"attacks.0.rate": [1.0, float("inf"), 0.3]})
    assert sweep(path, tmp_path / "sweep") == 2
    assert "1 of 3 cells failed" in (told := capsys.readouterr().err) and "went non-finite" in told
    assert {row["sweep.attacks.0.rate"] for row in rows(tmp_path / "sweep")} == {"1.0", "0.3"}
    assert len([1 for file in (tmp_path / "sweep").glob("*/done.json") if json.loads(file.read_text())]) == 2


@pytest.mark.nightly
def test_two_processes_audit_as_one(tmp_path):
    """`--coordinator` on the loopback: the cases are shared out, the first process writes, and nothing else changes."""
    path = configured(tmp_path, candidates=3, plan={"chunk": 2})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": ""}
    base = [sys.executable, "-m", "jaxmia.cli", "attack", str(path), "--out"]
    together = ["--coordinator", address, "--num-processes", "2", "--process-id"]
    commands = [[*base, str(tmp_path / "one")]]
    commands += [[*base, str(tmp_path / "two"), *together, str(process)] for process in (0, 1)]
    running = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for command in commands
    ]
    for process in running:
        words = process.communicate(timeout=300)
        assert process.returncode == 0, words
    for name in ("mi_face", "gmi", "tb_mia"):
        cell = f"cells/softmax--{name}/candidates.npz"
        with np.load(tmp_path / "one" / cell) as one, np.load(tmp_path / "two" / cell) as two:
            np.testing.assert_array_equal(one["candidates"], two["candidates"])
            assert len(np.unique(two["candidates"].reshape(9, -1), axis=0)) >= 3
    assert (tmp_path / "two" / "report.html").exists()
