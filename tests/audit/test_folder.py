"""A run folder is of one run: what may change goes on, what may not is refused in a sentence, and nobody disturbs."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from jaxmia import cli, config, identity
from jaxmia.audit import cells, folder, schema
from jaxmia.audit.assembly import check
from jaxmia.engine import fit
from jaxmia.holding import held
from jaxmia.modalities.image import data as scenes
from tests.tiny import write_config


@pytest.fixture(scope="module", autouse=True)
def nowhere(tmp_path_factory):
    """A cache without archives and a PATH without npm: nothing can be downloaded."""
    with pytest.MonkeyPatch.context() as patch:
        where = tmp_path_factory.mktemp("nowhere")
        patch.setenv("JAXMIA_CACHE", str(where / "cache"))
        patch.setenv("PATH", str(where))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A configuration, and the folder of its finished run."""
    where = tmp_path_factory.mktemp("finished")
    path = write_config(where)
    assert cli.main(["attack", str(path), "--out", str(where / "run")]) == 0
    return path, where / "run"


@pytest.fixture
def audited(finished, tmp_path):
    """The same, to be changed."""
    path, run = finished
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(path.parent / "people", tmp_path / "people")
    text = path.read_text().replace(str(path.parent), str(tmp_path))
    (tmp_path / "run.yaml").write_text(text)
    folder.write_config(tmp_path / "run", config.load(tmp_path / "run.yaml", [], schema))  # it names its data
    return tmp_path / "run.yaml", tmp_path / "run"


def attack(audited, *more, verb="attack"):
    path, run = audited
    return cli.main([verb, str(path), "--out", str(run), *(["--set", *more] if more else [])])


def refused(capsys, audited, *more):
    before = files(audited[1])
    assert attack(audited, *more) == 2
    assert files(audited[1]) == before, "a folder that is refused is left alone"
    return capsys.readouterr().err


def files(*folders):
    return {file: file.stat().st_mtime_ns for where in folders for file in where.rglob("*") if file.is_file()}


def made(run):
    """What took time: trainings, and cells with what they wrote on the way."""
    return files(run / "training", run / "cells")


def repaint(people, *names):
    rng = np.random.default_rng(5)
    for name in names:
        for picture in sorted((people / name).iterdir()):
            pixels = rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(picture)


# Pictures


@pytest.mark.nightly
def test_the_same_pictures_at_another_place_are_the_same_data(audited, monkeypatch):
    path, run = audited
    people = path.parent / "people"
    people.rename(people.with_name("moved"))
    before = made(run)
    monkeypatch.setattr(cells, "run", lambda *_, **__: pytest.fail("attacked again"))
    assert attack(audited, f"data.root={people.with_name('moved')}") == 0
    assert made(run) == before


@pytest.mark.nightly
@pytest.mark.parametrize("which", ["public", "private"])
def test_other_pictures_under_a_run_folder_are_refused_and_named(which, audited, capsys):
    path, _ = audited
    assert attack(audited) == 0
    names = check(config.load(path, [], schema)).names
    everyone = {f"p{i}" for i in range(5)}
    repaint(path.parent / "people", *(names[:1] if which == "private" else sorted(everyone - set(names))[:1]))
    told = refused(capsys, audited)
    parts = "public" if which == "public" else "train, validation, test"
    assert f"its data has changed since it was made ({parts}: other pictures or records)" in told
    assert cli.main(["evaluate", str(audited[1])]) == 2
    assert "its data has changed" in capsys.readouterr().err


@pytest.mark.nightly
def test_the_name_and_the_pinned_digest_of_a_data_set_are_of_its_pictures(audited):
    people = audited[0].parent / "people"
    options = {"root": str(people), "size": 12, "private": 3}
    first = scenes.folder(**options)
    assert scenes.folder(**options, sha256=first.digest).name == first.name == f"folder {first.digest[:12]}"
    repaint(people, sorted({f"p{i}" for i in range(5)} - set(first.names))[0])
    second = scenes.folder(**options)
    assert second.name != first.name and second.contents["train"] == first.contents["train"]
    with pytest.raises(ValueError, match="data.sha256: .* the pictures have"):
        scenes.folder(**options, sha256=first.digest)


# Configurations


@pytest.mark.nightly
@pytest.mark.parametrize(
    "more", [["plan.chunk=2"], ["plan.block=3", "plan.loop=host"], ["plan.training=data_parallel"]]
)
def test_another_plan_finds_what_is_finished(more, audited, monkeypatch):
    before = made(audited[1])
    monkeypatch.setattr(cells, "run", lambda *_, **__: pytest.fail("attacked again"))
    assert attack(audited, *more) == 0
    assert made(audited[1]) == before


def test_what_is_added_is_done_and_what_is_there_stays(audited, capsys):
    path, run = audited
    before = made(run)
    cell = run / "cells" / "softmax--mi_face"
    grown = (
        "attacks=[{name: image/gmi, steps: 3, restarts: 1}, {name: image/mi_face, alpha: 20, rate: 1.0, start: 0.5}]",
        "controls=[softmax]",
        "defenses=rounding",
    )
    assert attack(audited, *grown) == 0
    assert {file: when for file, when in made(run).items() if file in before} == before
    found = {done.parent.name for done in run.glob("cells/*/done.json")}
    attacked, attacks = ("softmax", "softmax+rounding", "softmax-shuffled"), ("gmi", "mi_face")
    assert found == {f"{target}--{name}" for target in attacked for name in attacks} | {"baseline--nearest_public"}
    assert "controls=[softmax]" in json.loads((run / "environment.json").read_text())["command"]
    assert cell.exists() and len(json.loads((run / "targets.json").read_text())) == 3
    told = refused(capsys, audited)  # without them it would be another run
    assert "attacks (gmi) is gone, controls (softmax) is gone, defenses (rounding) is gone" in told


@pytest.mark.parametrize(
    ("more", "named"),
    [("seed=1", "seed"), ("data.size=10", "data"), ("prior.components=2", "prior"), ("candidates=3", "candidates"),
     ("attacks.0.alpha=21", "attacks (mi_face)"), ("targets.steps=31", "targets (softmax)"),
     ("decoder.width=5", "decoder")],
)  # fmt: skip
def test_what_decides_the_cells_is_refused_by_name(more, named, audited, capsys):
    assert f"holds a run of another configuration ({audited[1] / 'config.yaml'}): {named} is another" in refused(
        capsys, audited, more
    )


@pytest.mark.nightly
def test_an_interrupted_run_goes_on_with_a_smaller_chunk_and_trains_nothing_anew(audited, monkeypatch):
    path, _ = audited
    run = path.parent / "cut"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cells, "run", killed)
        assert attack((path, run)) == 130
    before = files(run / "training")
    assert before and not list(run.glob("cells/softmax--mi_face/done.json"))
    assert attack((path, run), "plan.chunk=2") == 0
    assert files(run / "training") == before


@pytest.mark.nightly
def test_what_check_refuses_writes_nothing(audited, tmp_path, capsys):
    path, _ = audited
    for wrong in ("data.root=nowhere", "networks.width=0", "attacks.0.alpha=-1"):
        assert cli.main(["attack", str(path), "--out", str(tmp_path / "new"), "--set", wrong]) == 2
        assert not (tmp_path / "new").exists(), wrong
    assert "alpha" in capsys.readouterr().err
    assert attack((path, tmp_path / "new")) == 0


@pytest.mark.nightly
def test_other_versions_are_refused_and_named(audited, capsys, monkeypatch):
    now = {**identity.versions(), "flax": "99.1"}
    monkeypatch.setattr(folder, "versions", lambda: now)
    told = refused(capsys, audited)
    assert f"was made with flax {identity.versions()['flax']}, and this is flax 99.1; go on with the former" in told
    assert cli.main(["report", str(audited[1])]) == 0


# Sweeps


@pytest.mark.nightly
def test_a_sweep_trains_once_for_all_adversaries_plans_and_evaluators(audited, monkeypatch):
    path, _ = audited
    out = path.parent / "sweep"
    trained = []

    def counted(process, key, batches, *, title, **how):
        trained.append(title)
        return fit(process, key, batches, title=title, **how)

    for where in ("targets", "run"):  # of targets, and of evaluators
        monkeypatch.setattr(f"jaxmia.audit.{where}.fit", counted)

    def sweep(*more):
        assert cli.main(["sweep", str(path), "--out", str(out), "--set", "sweep.networks.width=[2, 3]", *more]) == 0
        return {file.parent.name for file in out.glob("*/done.json")}, files(*(out / "training").glob("*/softmax"))

    found, trainings = sweep()
    assert len(found) == 2 and len(list((out / "training").iterdir())) == 1
    assert set(trained) == {"train softmax", "train wide_mlp"}
    trained.clear()
    assert sweep("plan.chunk=2") == (found, trainings) and not trained
    more, again = sweep("evaluators.steps=11")
    assert more > found and again == trainings and len(list((out / "training").iterdir())) == 1
    repaint(path.parent / "people", "p0", "p1", "p2", "p3", "p4")
    assert cli.main(["sweep", str(path), "--out", str(out), "--set", "sweep.networks.width=[2, 3, 4]"]) == 2


# Two commands


def hold(run, command="jaxmia attack other.yaml"):
    """A process that holds a run folder until it is killed."""
    code = (
        "import sys, time; from jaxmia.holding import held\n"
        f"with held({str(run)!r}, {command!r}):\n    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=pathlib.Path(__file__).parents[2]
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.nightly
def test_a_second_command_is_told_who_holds_the_folder_until_it_ends(audited, capsys):
    _, run = audited
    holder = hold(run)
    try:
        told = refused(capsys, audited)
        who = f"process {holder.pid} on {socket.gethostname()} (jaxmia attack other.yaml)"
        words = f"is in use by {who}; wait until it ends"
        assert words in told
        assert cli.main(["evaluate", str(run)]) == 2 and words in capsys.readouterr().err
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (run / "lock").exists(), "what is killed leaves its lock"
    assert attack(audited) == 0
    assert not (run / "lock").exists()


def test_the_lock_of_another_host_is_respected_and_its_removal_told(audited, capsys):
    _, run = audited
    (run / "lock").write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere", "command": "jaxmia attack x"}))
    told = refused(capsys, audited)
    assert (
        f"process {os.getpid()} on elsewhere (jaxmia attack x); if it does not run any more, delete {run / 'lock'}"
        in told
    )
    (run / "lock").unlink()
    assert attack(audited) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_lock_that_says_nothing_is_nobodys(content, tmp_path):
    (tmp_path / "lock").write_text(content)
    with held(tmp_path, "mine"):
        assert json.loads((tmp_path / "lock").read_text())["command"] == "mine"
        with pytest.raises(ValueError, match="is in use by process"), held(tmp_path, "another"):
            pytest.fail("held twice")
    assert not (tmp_path / "lock").exists()


@pytest.mark.nightly
def test_of_many_that_want_a_folder_at_once_one_has_it(tmp_path):
    code = (
        "import sys, time; from jaxmia.holding import held\n"
        "sys.stdin.readline()\n"
        f"try:\n    with held({str(tmp_path)!r}, 'x'):\n        print('held', flush=True); sys.stdin.readline()\n"
        "except ValueError as error:\n    print(error, flush=True)"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=pathlib.Path(__file__).parents[2],
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in many:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.stdout.readline() for process in many]
    for process in many:
        process.communicate("done\n", timeout=120)
    assert told.count("held\n") == 1 and sum("is in use by" in line for line in told) == 2


# What the page says the results were made with


@pytest.mark.nightly
def test_a_finished_run_keeps_the_environment_that_it_was_made_in(audited, monkeypatch):
    _, run = audited
    assert attack(audited) == 0  # its note names the folder that it was copied from
    before = json.loads((run / "environment.json").read_text())
    other = {**folder.environment(), "devices": ["tpu: v9"]}
    monkeypatch.setattr(folder, "environment", lambda: other)
    assert attack(audited) == 0
    assert json.loads((run / "environment.json").read_text()) == before
    cell = run / "cells" / "softmax--mi_face"
    assert json.loads((cell / "cell.json").read_text())["environment"]["devices"] == before["devices"]
    shutil.rmtree(cell)
    assert attack(audited) == 0
    assert json.loads((cell / "cell.json").read_text())["environment"]["devices"] == ["tpu: v9"]
    page = (run / "report.html").read_text()
    assert "tpu: v9" in page and before["devices"][0] in page


# What is missing or damaged


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "how"), [("candidates.npz", "gone"), ("cell.json", "damaged")])
def test_a_cell_that_lost_a_file_says_how_it_is_made_anew(name, how, audited, capsys):
    _, run = audited
    cell = run / "cells" / "softmax--mi_face"
    if how == "gone":
        (cell / name).unlink()
    else:
        (cell / name).write_bytes((cell / name).read_bytes()[:20])
    remedy = f"delete the folder {cell}, and `jaxmia attack` makes it anew"
    assert cli.main(["report", str(run)]) == 2
    told = capsys.readouterr().err
    assert str(cell / name) in told and told.count("; delete the folder") == 1 and remedy in told
    (cell / "done.json").unlink()  # then it is to be judged
    assert attack(audited) == 2
    assert remedy in capsys.readouterr().err
    shutil.rmtree(cell)
    assert attack(audited) == 0


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_any_other_file_is_written_anew_by_the_same_command(how, audited, capsys):
    _, run = audited
    before = made(run)
    for name in ("config.yaml", "environment.json", "targets.json", "truth.npz", "evaluators.json"):
        content = (run / name).read_bytes()
        if how == "gone":
            (run / name).unlink()
        else:
            (run / name).write_bytes(b"\xff{")
        if cli.main(["report", str(run)]) == 2:  # what it can do without is not looked at
            told = capsys.readouterr().err
            assert str(run / name) in told and "the command that made the run writes it anew" in told, told
        else:
            assert name in ("truth.npz", "evaluators.json")
        (run / name).write_bytes(content)
    for name in ("config.yaml", "environment.json", "targets.json", "truth.npz", "evaluators.json"):
        (run / name).unlink() if how == "gone" else (run / name).write_bytes(b"\xff{")
    assert attack(audited) == 0
    assert made(run) == before and yaml.safe_load((run / "config.yaml").read_text())["seed"] == 0


def test_a_folder_that_lost_its_identity_is_refused(audited, capsys):
    _, run = audited
    (run / "identity.json").write_text("{")
    assert (
        f"{run / 'identity.json'}: damaged" in (told := refused(capsys, audited)) and f"delete the folder {run}" in told
    )
    (run / "identity.json").unlink()
    told = refused(capsys, audited)
    assert f"{run / 'identity.json'}: missing" in told and "delete that folder, or name another" in told
