"""The command line from end to end, on an audit of seconds without a download."""

import ast
import csv
import importlib.metadata
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import yaml

import jaxmia
from jaxmia import attacks, checkpoint, cli, config, defenses, describe, progress, report
from jaxmia.audit import assembly, cells, roles, schema
from jaxmia.audit.modality import Training
from jaxmia.data import faces
from jaxmia.metrics.estimate import bootstrap
from jaxmia.modalities.image import targets, zoo
from jaxmia.modalities.image.data import DATA
from jaxmia.modalities.image.judging import Judge
from tests.report.conftest import NAMES, edit_json, write_run
from tests.report.test_compare import write_run as write_small_run
from tests.report.test_page import Page
from tests.tiny import write_config

HEAVY = {"jax", "jaxlib", "flax", "numpy", "matplotlib", "orbax", "yaml", "pydantic", "rich", "optax", "scipy"}


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """A cache without archives and a PATH without npm: nothing can be downloaded."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("nowhere")
        patch.setenv("JAXMIA_CACHE", str(folder / "cache"))
        patch.setenv("PATH", str(folder))
        yield


@pytest.fixture(scope="module")
def audited(nowhere, tmp_path_factory):
    """The configuration and the run folder of `jaxmia train` and `jaxmia attack`."""
    folder = tmp_path_factory.mktemp("audited")
    path, run = write_config(folder, "controls: [softmax]\n"), folder / "run"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("private: 3}", "private: 3, faces: true}"), encoding="utf-8")
    assert cli.main(["train", str(path), "--out", str(run)]) == 0
    assert not (run / "cells").exists()
    assert cli.main(["attack", str(path), "--out", str(run)]) == 0
    return path, run


def mtimes(*folders):
    return {file: file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("words", [["--help"], ["attack", "--help"], ["data", "--help"], ["atack"], []])
def test_help_and_misspelled_verbs_import_nothing_heavy(words):
    code = f"""if True:
        import sys
        from jaxmia import cli
        try:
            cli.main({words})
        finally:
            print(*sorted({HEAVY} & sys.modules.keys()), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if "--help" in words else 2)
    assert done.stderr.splitlines()[-1] == "", done.stderr


def test_the_command_is_installed():
    scripts = importlib.metadata.entry_points(group="console_scripts", name="jaxmia")
    assert [script.value for script in scripts] == ["jaxmia.cli:main"]


def test_a_run_folder_holds_everything(audited):
    path, run = audited
    assert yaml.safe_load((run / "config.yaml").read_text())["attacks"][0]["beta"] == 100
    environment = json.loads((run / "environment.json").read_text())
    assert environment["command"] == f"jaxmia attack {path} --out {run}" and "jax" in environment
    found = {cell.name: json.loads((cell / "cell.json").read_text()) for cell in (run / "cells").iterdir()}
    assert found.keys() == {"softmax--mi_face", "softmax-shuffled--mi_face", "baseline--nearest_public"}
    attacked = found["softmax--mi_face"]
    assert attacked["n"] == 6 and attacked["metrics"]["attack_accuracy@1 [wide_mlp]"]["n"] == 6
    with np.load(run / "cells" / "softmax--mi_face" / "candidates.npz", allow_pickle=False) as arrays:
        assert arrays["candidates"].shape == (6, 12, 12, 3)
        assert arrays["targets"].tolist() == [0, 1, 2, 0, 1, 2] and arrays["case_ids"].tolist() == list(range(6))
    rows = list(csv.DictReader((run / "results.csv").open()))
    assert {row["cell"] for row in rows} == found.keys() and {row["state"] for row in rows} == {"finished"}
    assert "MI-Face" in (run / "report.html").read_text()


@pytest.mark.nightly
def test_without_npm_the_trained_evaluators_judge_alone_and_it_is_said(audited, capsys):
    path, run = audited
    assert cli.main(["attack", str(path), "--out", str(run)]) == 0
    note = json.loads((run / "environment.json").read_text())["note"]
    assert note.startswith("the face embedding could not be had") and "npm is not on PATH" in note
    assert "once it can be had, `jaxmia evaluate` of the run folder judges by it too" in note
    assert capsys.readouterr().err.count(note) == 1
    assert "could not be had" in (run / "report.html").read_text()
    assert [one["name"] for one in json.loads((run / "evaluators.json").read_text())] == ["wide_mlp"]


@pytest.mark.nightly
def test_a_defense_that_accounts_for_poisson_sampling_gets_it(audited):
    scene = DATA["folder"](root=str(audited[0].parent / "people"), size=12, private=3)
    recipe, labels = zoo.TARGETS["softmax"](batch_size=6), scene.split.train.labels

    def first(process, key, batches, **_):
        return batches(0), None

    guarded = {"name": "dp_sgd", "noise_multiplier": 1.0}
    for defense, names in (([], {"x", "y"}), ([guarded], {"x", "y", "mask"})):
        how = Training(first, audited[1] / "none", 0, "", defense)
        _, batch, _, spent = targets.classifier(recipe, scene, labels, how)
        assert batch.keys() == names and spent.startswith("epsilon ") == bool(defense)
    assert len(batch["mask"]) > 6 and batch["mask"].sum() < len(batch["mask"])


@pytest.mark.nightly
def test_a_finished_run_is_not_run_again(audited, monkeypatch):
    path, run = audited
    before = mtimes(run / "training", run / "cells")
    assert len(before) > 20
    monkeypatch.setattr(cells, "run", lambda *_, **__: pytest.fail("attacked again"))
    assert cli.main(["attack", str(path), "--out", str(run)]) == 0
    assert mtimes(run / "training", run / "cells") == before


@pytest.mark.nightly
def test_an_unfinished_cell_is_judged_again_from_its_candidates(audited, monkeypatch):
    path, run = audited
    cell = run / "cells" / "softmax--mi_face"
    record = (cell / "cell.json").read_text()
    (cell / "done.json").unlink()
    monkeypatch.setattr(cells, "run", lambda *_, **__: pytest.fail("attacked again"))
    assert cli.main(["attack", str(path), "--out", str(run)]) == 0
    assert (cell / "done.json").exists() and (cell / "cell.json").read_text() == record


def test_the_report_is_rebuilt_alone(audited, capsys):
    _, run = audited
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert cli.main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == page
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"


@pytest.mark.nightly
def test_an_evaluator_that_can_be_had_later_judges_what_is_finished(audited, monkeypatch):
    path, run = audited
    before = mtimes(run / "training", *(run / "cells").glob("*/work"))

    def judge(scene, weights):
        def features(images):
            return np.asarray(images, np.float32).reshape(len(images), -1)

        train = scene.split.train
        private = features(train.images / np.float32(255))
        means = np.stack([private[train.labels == c].mean(0) for c in range(len(scene.names))])
        right = bootstrap(np.ones(3), np.arange(3))
        return Judge("face_embedding", "0" * 64, features, lambda f: f @ means.T, private, train.labels, right)

    monkeypatch.setattr(faces, "load_weights", dict)
    monkeypatch.setattr(targets, "embedding_judge", judge)
    assert cli.main(["attack", str(path), "--out", str(run)]) == 0
    for record in (run / "cells").glob("*/cell.json"):
        assert "knn_distance [face_embedding]" in json.loads(record.read_text())["metrics"]
    assert "note" not in json.loads((run / "environment.json").read_text())
    assert mtimes(run / "training", *(run / "cells").glob("*/work")) == before


@pytest.mark.nightly
def test_evaluate_changes_evaluators_and_nothing_else(nowhere, audited, capsys):
    path, run = audited
    candidates = {}
    for cell in (run / "cells").iterdir():
        with np.load(cell / "candidates.npz", allow_pickle=False) as arrays:
            candidates[cell] = arrays["candidates"]
    other = "evaluators=[{name: wide_mlp, steps: 10, width: 16}, {name: wide_mlp, steps: 5, width: 8}]"
    assert cli.main(["evaluate", str(run), "--set", other]) == 0
    for cell, pixels in candidates.items():
        record = json.loads((cell / "cell.json").read_text())
        assert "attack_accuracy@1 [wide_mlp-2]" in record["metrics"]
        with np.load(cell / "candidates.npz", allow_pickle=False) as arrays:
            np.testing.assert_array_equal(arrays["candidates"], pixels)
    assert "wide_mlp-2" in (run / "results.csv").read_text() and "wide mlp-2" in (run / "report.html").read_text()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["evaluated"] == shlex.join(["jaxmia", "evaluate", str(run), "--set", other])
    assert environment["command"] == f"jaxmia attack {path} --out {run}"
    assert len(yaml.safe_load((run / "config.yaml").read_text())["evaluators"]) == 2
    assert cli.main(["attack", str(path), "--out", str(run)]) == 0, "the command that made the run goes on"
    assert yaml.safe_load((run / "config.yaml").read_text())["evaluators"]["name"] == "wide_mlp"
    for cell in candidates:
        assert "wide_mlp-2" not in (cell / "cell.json").read_text()


@pytest.mark.nightly
def test_a_sweep_is_one_folder_per_cell_and_one_table(nowhere, tmp_path, capsys, monkeypatch):
    path, out = write_config(tmp_path), tmp_path / "sweep"
    command = ["sweep", str(path), "--out", str(out), "--set", "candidates=1", "--set", "sweep.attacks.0.alpha=[5, 9]"]
    assert cli.main(command) == 0
    expanded = config.expand(config.load(path, command[5::2], schema), schema({"modality": "image"}))
    names = [roles.run_digest(cell)[:12] for cell in expanded]
    assert [cell["attacks"][0]["alpha"] for cell in expanded] == [5, 9]
    assert sorted([*names, "training"]) == sorted(item.name for item in out.iterdir() if item.is_dir())
    assert len(list((out / "training").iterdir())) == 1, "trained once for both"
    told = capsys.readouterr().err
    assert f"cell {names[1]} (attacks.0.alpha=9): finished" in told and "2/2 cells, 0 failed" in told
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [name for name in rows[0]][:3] == ["run", "sweep.attacks.0.alpha", "cell"]
    assert {(row["run"], row["sweep.attacks.0.alpha"]) for row in rows} == {(names[0], "5"), (names[1], "9")}
    single = list(csv.DictReader((out / names[0] / "results.csv").open()))
    assert [{k: v for k, v in row.items() if k in single[0]} for row in rows if row["run"] == names[0]] == single

    before, table = mtimes(*(out / name for name in names)), (out / "results.csv").read_bytes()
    monkeypatch.setattr(assembly, "check", lambda *_: pytest.fail("checked again"))
    assert cli.main(command) == 0
    assert mtimes(*(out / name for name in names)) == before and (out / "results.csv").read_bytes() == table
    assert capsys.readouterr().err.count("found finished") == 2


@pytest.mark.nightly
def test_a_failing_cell_does_not_stop_a_sweep(nowhere, tmp_path, capsys):
    path, out = write_config(tmp_path), tmp_path / "sweep"
    assert cli.main(["sweep", str(path), "--out", str(out), "--set", "sweep.targets.momentum=[100, 0.9]"]) == 2
    told = capsys.readouterr().err
    assert "1 of 2 cells failed" in told and "(targets.momentum=100): train softmax: the loss is" in told
    assert {row["sweep.targets.momentum"] for row in csv.DictReader((out / "results.csv").open())} == {"0.9"}


def test_show_prints_what_would_run(tmp_path, capsys):
    path = write_config(tmp_path)
    assert cli.main(["show", str(path), "--set", "seed=3"]) == 0
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
    shown = config.load(tmp_path / "shown.yaml", (), schema)
    assert shown == config.load(path, ["seed=3"], schema) and shown["attacks"][0]["gamma"] == 0.99
    assert cli.main(["show", str(path), "--set", "sweep.seed=[4, 5]"]) == 0
    assert [cell["seed"] for cell in yaml.safe_load_all(capsys.readouterr().out)] == [4, 5]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("list attacks", ["image/brep_mi", "LABELS", "graph/graph_mi"]),
        ("list defenses", ["dp_sgd", "grads", "2016"]),
        ("list targets", ["softmax", "convnet"]),
        ("list evaluators", ["group_norm_cnn", "wide_mlp"]),
        ("list priors", ["eigenfaces", "wgan", "stylegan2"]),
        ("list data", ["orl", "folder", "tabular", "adult"]),
        ("data list", ["orl", "70,000 grey digits", "CC BY 4.0"]),
    ],
)
def test_lists_are_aligned_text_or_a_table_on_a_terminal(nowhere, words, expected, capsys, monkeypatch):
    assert cli.main(words.split()) == 0
    plain = capsys.readouterr().out
    assert all(word in plain for word in expected)
    lines = plain.splitlines()
    second = lines[0].index(lines[0].split()[1])
    assert len(lines) > 2 and all(line[second - 2 : second] == "  " and line[second] != " " for line in lines)
    assert "\x1b" not in plain and "│" not in plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(words.split()) == 0
    table = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)
    assert "│" in table and all(len(line) <= 200 for line in table.splitlines())


@pytest.mark.nightly
@pytest.mark.parametrize("kind", cli.KINDS)
@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 160])
def test_a_terminal_of_any_width_cuts_no_name_and_no_color_means_no_escapes(kind, columns, capsys, monkeypatch):
    head, rows = describe.listing(kind)
    rows = [list(map(str, row)) for row in rows]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert cli.main(["list", kind]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    words = set(shown.replace("│", " ").split())
    assert {row[0] for row in rows} <= words
    assert {word for row in rows for entry in row for word in entry.split()} <= words
    assert all(len(line) <= columns or " " not in line.strip() for line in shown.splitlines())
    monkeypatch.delenv("NO_COLOR")
    assert cli.main(["list", kind]) == 0
    assert ("\x1b" in capsys.readouterr().out) == ("│" in shown), "a table has a bold head unless told otherwise"


def test_no_color_shows_progress_in_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    with progress.Progress("attack", 10, "steps", quiet=1e-9, every=0.0) as bar:
        bar.update(1)
        bar.update(5)
    shown = capsys.readouterr().err
    assert "attack: 5/10 steps" in shown and "\x1b" not in shown


def test_show_describes_a_method(capsys):
    assert cli.main(["show", "image/gmi"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "attacks: image/gmi",
        "paper: Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer. CVPR 2020",
        "access: WEIGHTS",
        "oracle: white-box access.",
        "rate: 0.02 (a number) step size.",
        "nesterov: true (true or false) the released code's form of momentum.",
        "objective (from Python alone) L_id",
    ):
        assert f"  {line}" in shown or shown.startswith(line), shown
    assert cli.main(["show", "dp_sgd"]) == 0
    shown = capsys.readouterr().out
    assert "hook: grads" in shown and "observes" not in shown and "clip_norm: 1.0 (a number) C, most" in shown
    assert cli.main(["show", "mlp"]) == 0
    assert re.findall(r"^targets .*", capsys.readouterr().out, re.M) == [
        "targets (graph): mlp",
        "targets (image): mlp",
        "targets (tabular): mlp",
    ]


@pytest.mark.nightly
def test_whatever_is_listed_can_be_shown_with_all_its_keywords(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for kind in cli.KINDS:
        for name, *_ in describe.listing(kind)[1]:
            shown = describe.described(name)
            assert f"{kind}" in shown and all(len(line) <= 40 or len(line.split()) == 1 for line in shown.splitlines())
    for registry in (attacks, defenses):
        for name in registry.names():
            method, shown = registry.get(name), describe.described(name)
            assert describe.parameter_docs(method.factory).keys() == {*method.inputs, *method.hyperparameters}
            assert all(re.search(rf"^  {key}\b", shown, re.M) for key in (*method.inputs, *method.hyperparameters))


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    metadata = tomllib.loads((pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert done.value.code == 0 and capsys.readouterr().out == f"jaxmia {metadata['project']['version']}\n"


def test_who_has_read_enough_hears_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from jaxmia import cli; sys.exit(cli.main(['list', 'defenses']))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.nightly
def test_an_attack_cut_off_goes_on_with_targets_that_are_read_back(nowhere, tmp_path, monkeypatch):
    """What is trained in one process and read back in another must be the same run to the engine."""
    path, run = write_config(tmp_path), tmp_path / "run"
    # It asks twice a step: constants that are equal but not the same would be counted twice.
    command = ["attack", str(path), "--out", str(run), "--set", "attacks=[{name: image/brep_mi, steps: 20}]"]

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_part", cut_off)
        assert cli.main(command) == 130
    assert list(run.rglob("solve/run.json"))
    assert cli.main(command) == 0


def test_completion_offers_the_public_names_and_help_one_line_for_each_without_loading_jax():
    code = """if True:
        import sys, pydoc, jaxmia
        from jaxmia import _PUBLIC
        assert {name for name in dir(jaxmia) if not name.startswith("_")} == set(jaxmia.__all__) == set(_PUBLIC)
        assert not {"jax", "numpy"} & sys.modules.keys()
        shown = pydoc.render_doc(jaxmia, renderer=pydoc.plaintext).splitlines()
        for name, (_, what) in _PUBLIC.items():
            assert f"        {name:<17} {what}" in shown, name
            assert getattr(jaxmia, name).__name__.removeprefix("jaxmia.") == name
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_type_checkers_find_every_public_name_where_it_is():
    tree = ast.parse(pathlib.Path(jaxmia.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("jaxmia")]
    found = {alias.name: node.module.partition(".")[2] for node in imports for alias in node.names}
    assert found == {name: home for name, (home, _) in jaxmia._PUBLIC.items()}


def test_a_warning_is_one_line_without_code():
    code = """if True:
        import warnings
        from jaxmia import cli
        usual = warnings.formatwarning
        cli._VERBS["list"] = lambda _: warnings.warn("step-3 cannot be used; trying the one before")
        assert cli.main(["list", "attacks"]) == 0 and warnings.formatwarning is usual
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "jaxmia: step-3 cannot be used; trying the one before\n")


@pytest.fixture
def finished(tmp_path):
    """A finished run of drawn faces, which no program made."""
    return write_run(tmp_path / "drawn", full=False)


def test_a_page_to_share_has_no_pictures_no_texts_and_no_names_of_people_and_says_so(finished, capsys):
    assert cli.main(["report", str(finished)]) == 0
    with_pictures = Page((finished / "report.html").read_text(encoding="utf-8"))
    cell = finished / "cells" / "brep_mi-plain-0" / "cell.json"
    passage = {"made": "the number is 12", "true": "the number is 17", "note": "1 digit alike"}
    guesses = {"kind": "guesses", "values": ["absent", "present"], "counts": [[40, 3], [2, 15]]}
    edit_json(cell, lambda c: c["exhibits"].extend([{"kind": "passages", "rows": [passage]}, guesses]))
    (finished / "truth.npz").unlink()  # neither the truth nor any candidate is even read
    for path in finished.glob("cells/*/candidates.npz"):
        path.unlink()
    assert cli.main(["report", str(finished), "--no-pictures"]) == 0
    page = Page((finished / "report.html").read_text(encoding="utf-8"))
    assert "Left out, so that this page can be shared" in page.text
    assert "Left out, so that" not in with_pictures.text and NAMES[0] in with_pictures.text
    for words in ("the number is", "Pictures", "Success by class", *NAMES):
        assert words not in page.text, words
    assert "absent, guessed present" in page.text and "How much is recovered" in page.text
    assert page.tags.count("img") == 2 < with_pictures.tags.count("img"), "intervals and curves"


def test_pictures_are_not_left_out_of_a_sweep_whose_cells_have_them(tmp_path, capsys):
    (tmp_path / "0123456789ab").mkdir()
    assert cli.main(["report", str(tmp_path), "--no-pictures"]) == 2
    assert "--no-pictures: " in capsys.readouterr().err


def test_status_3_names_the_attacks_that_surely_recover_more_than_is_allowed(finished, capsys):
    for path in finished.glob("cells/*/cell.json"):
        low = {"gmi-plain-0": 0.3, "gmi-plain-1": 0.2}.get(
            path.parent.name, 0.9 if "control" in path.parent.name else 0.1
        )
        shares = {"value": max(low, 0.5), "low": low, "high": max(low, 0.6)}
        edit_json(path, lambda c, shares=shares: c["metrics"]["attack_accuracy"].update(shares))
    assert cli.main(["report", str(finished), "--fail-above", "0.2"]) == 3
    page, told = capsys.readouterr().out.splitlines()
    assert page == f"report: {finished / 'report.html'}"
    assert told == "above 0.2: GMI (seed 0) on plain, attack accuracy 50 % [30, 60]", (
        "not the control, not what is at 0.2"
    )
    assert cli.main(["report", str(finished), "--fail-above", "0.3"]) == 0
    assert capsys.readouterr().out.splitlines() == [page]


@pytest.fixture
def without_page(monkeypatch):
    """No page is made, which takes seconds."""
    monkeypatch.setattr(report, "build_any", lambda *_: "none")


def test_a_limit_is_not_kept_by_what_nobody_measured(finished, without_page, capsys):
    command = ["report", str(finished), "--fail-above", "1"]
    assert cli.main(command) == 0
    (finished / "cells" / "gmi-plain-1" / "done.json").unlink()
    assert cli.main(command) == 2
    assert "gmi-plain-1: unfinished, so it is not known whether an attack lies above 1" in capsys.readouterr().err
    assert cli.main([*command[:-1], "0.1"]) == 3, "what is above is, whatever is unfinished"
    for path in finished.glob("cells/*"):
        shutil.rmtree(path)
    assert cli.main(command) == 2
    assert "no attack has finished with a metric, so it is not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"unit": "bits"}, {"unit": "share", "high": 1.2}, {"unit": "share", "stronger": "lower"}]
)
def test_a_limit_is_for_shares_of_which_more_is_stronger(finished, without_page, change, capsys):
    edit_json(
        finished / "cells" / "gmi-plain-0" / "cell.json", lambda c: c["metrics"]["attack_accuracy"].update(change)
    )
    assert cli.main(["report", str(finished), "--fail-above", "0.5"]) == 2
    told = capsys.readouterr().err
    assert "headline 'attack_accuracy' of GMI" in told and "legal with a limit is a share in [0, 1]" in told


@pytest.mark.parametrize("value", ["1.2", "-0.1", "nan", "much"])
@pytest.mark.parametrize("verb", ["attack", "evaluate", "report"])
def test_a_limit_that_is_no_share_is_refused_before_any_work(verb, value, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([verb, "nowhere", f"--fail-above={value}"])
    assert done.value.code == 2 and "argument --fail-above: " in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["attack", "evaluate", "report"])
def test_help_tells_of_status_3(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    shown = capsys.readouterr().out
    assert "exit with status 3 if the lower end of the interval" in shown and "--no-pictures" in shown


@pytest.mark.parametrize("verb", ["attack", pytest.param("evaluate", marks=pytest.mark.nightly)])
def test_attack_and_evaluate_hand_on_what_the_page_leaves_out_and_the_limit(verb, audited, monkeypatch, capsys):
    path, run = audited
    command = [verb, str(path), "--out", str(run)] if verb == "attack" else [verb, str(run)]
    asked = []
    monkeypatch.setattr(
        report, "above", lambda where, limit: asked.append((str(where), limit)) or "above it: an attack"
    )
    assert cli.main([*command, "--no-pictures", "--fail-above", "0.25"]) == 3
    assert asked == [(str(run), 0.25)] and capsys.readouterr().out.splitlines()[-1] == "above it: an attack"
    assert "Left out, so that this page can be shared" in (run / "report.html").read_text(encoding="utf-8")
    assert cli.main(["report", str(run)]) == 0 and len(asked) == 1
    assert "Left out, so that" not in (run / "report.html").read_text(encoding="utf-8")


def test_export_says_where_it_is(finished, tmp_path, capsys):
    assert cli.main(["export", str(finished), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"exported: {tmp_path / 'out'}\n"
    assert (tmp_path / "out" / "MANIFEST").is_file()


def test_compare_prints_the_table_what_to_beware_of_and_the_page(tmp_path, capsys):
    runs = [str(write_small_run(tmp_path / name, 0.8)) for name in ("one", "two")]
    other = str(write_small_run(tmp_path / "three", 0.2, data={"train": "0" * 64}))
    page = tmp_path / "page.html"
    assert cli.main(["compare", *runs, other, "--out", str(page)]) == 0
    shown = capsys.readouterr()
    head, *lines = shown.out.splitlines()
    assert head.split("  ")[0] == "attack" and "three less one" in head and lines[-1] == f"report: {page}"
    assert shown.err.startswith("jaxmia: The private data of three are not those of one") and page.is_file()
