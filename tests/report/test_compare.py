"""Runs side by side: which rows meet, what a difference says, and who cannot be compared."""

import math
import shutil
import stat

import pytest

from jaxmia import report
from jaxmia.report.compare import compared, difference, listed
from jaxmia.report.folder import Measured

from .conftest import edit_json, write_json
from .sweeps import part, write_cell, write_targets
from .test_page import Page

DATA = {"train": "d" * 64, "public": "e" * 64}


def write_run(folder, reached, *, target="mlp", defense="", data=DATA, config="seed: 0\n", metric="accuracy"):
    """A run on one target with two attacks and a control, which reach `reached`, half of it and 5 %."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    write_json(folder / "environment.json", {"command": f"jaxmia attack {folder.name}.yaml", "jax": "0.10.2"})
    write_json(folder / "identity.json", {"sections": {}, "data": data, "versions": {"jax": "0.10.2"}})
    write_json(folder / "evaluators.json", [{"name": "wide_mlp", "digest": "f" * 64}])
    write_targets(folder, {target: (0.9, defense)})
    more = {"distance": {**part(0.5), "unit": "", "stronger": "lower"}}
    write_cell(folder, "image/gmi", target, {metric: part(reached), **more})
    write_cell(folder, "image/brep_mi", target, {metric: part(reached / 2)})
    write_cell(folder, "image/gmi", target, {metric: part(0.05)}, control=True, label="GMI, shuffled labels")
    return folder


@pytest.fixture
def pair(tmp_path):
    """A model, and the same with a defense."""
    defended = "seed: 0\ndefenses: {name: bido, weights: [0.1, on]}\n"
    return [
        write_run(tmp_path / "plain", 0.8),
        write_run(tmp_path / "bido", 0.4, target="mlp+bido", defense="bido", config=defended),
    ]


def page_of(folders, out):
    path, _ = report.build_comparison(folders, out)
    return Page(path.read_text(encoding="utf-8").replace("&nbsp;", " ").replace("\u00a0", " "))


def test_targets_of_other_names_meet_where_each_run_has_one(pair, tmp_path):
    page = page_of(pair, tmp_path / "compare.html")
    for words in (
        "bido against plain: of 2 attacks, 2 clearly weaker, 0 clearly stronger, 0 not clear.",
        "80 % [70, 90]", "40 % [30, 50]", "-40 points [-54.1, -25.9] attack weaker", "defenses.weights.1", "mlp+bido",
        "90 % [88, 92]", "GMI, shuffled labels", "0 points [-11.2, +11.2] not clear", "distance ↓", "jaxmia attack bido",
        "How to read the intervals", "Runs on different private data are not comparable",
    ):  # fmt: skip
        assert words in page.text, words
    assert "Beware" not in page.text and "seed" not in page.text.split("What differs")[1].split("Made of")[0]


def test_the_page_is_self_contained_and_its_owners_alone(pair, tmp_path):
    page = page_of(pair, tmp_path / "compare.html")
    assert not {"script", "link", "iframe", "object", "form", "a"} & set(page.tags)
    assert all(source.startswith("data:image/png;base64,") for source in page.values("img", "src"))
    assert stat.S_IMODE((tmp_path / "compare.html").stat().st_mode) == 0o600
    first = (tmp_path / "compare.html").read_bytes()
    report.build_comparison(pair, tmp_path / "compare.html")
    assert (tmp_path / "compare.html").read_bytes() == first


def test_the_table_for_a_terminal_has_the_same_rows(pair):
    head, rows = listed(compared(pair))
    rows = list(rows)
    assert head == ["attack", "metric", "plain", "bido", "bido less plain"]
    told = ["80 % [70, 90]", "40 % [30, 50]", "-40 points [-54.1, -25.9] attack weaker"]
    assert ["GMI", "accuracy", *told] in rows
    assert ["BREP-MI", "distance", *told] not in rows and len(rows) == 4
    assert rows[-1][0] == "GMI, shuffled labels (control)"


def test_a_difference_squares_and_adds_the_ends_that_face_each_other():
    first = Measured(0.6, 0.5, 0.65, 20, None, 0.95, "bootstrap", "share", "higher")
    other = first._replace(value=0.3, low=0.28, high=0.45)
    found = difference(first, other)
    assert found.value == pytest.approx(-0.3)
    assert found.low == pytest.approx(-0.3 - math.hypot(0.02, 0.05))
    assert found.high == pytest.approx(-0.3 + math.hypot(0.15, 0.1))
    assert found.leaks == -1 and difference(other, first).leaks == 1
    lower = [m._replace(stronger="lower") for m in (first, other)]
    assert difference(*lower).leaks == 1, "where lower is stronger"
    assert difference(first, first).leaks == 0


def test_a_difference_of_wilson_intervals_is_newcombes():
    """Newcombe (1998), example 1 of method 10: 56/70 against 48/80."""

    def wilson(k, n, z=1.959964):
        p, d = k / n, 1 + z * z / n
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
        return Measured(
            p, (p + z * z / (2 * n)) / d - half, (p + z * z / (2 * n)) / d + half, n, None, 0.95, "", "share", "higher"
        )

    found = difference(wilson(48, 80), wilson(56, 70))
    assert [round(x, 4) for x in found[:3]] == [0.2, 0.0524, 0.3339]


def test_other_private_data_have_no_difference_and_it_is_said(pair, tmp_path):
    third = write_run(tmp_path / "third", 0.2, data={**DATA, "train": "0" * 64})
    page = page_of([*pair, third], tmp_path / "compare.html")
    said = "The private data of third are not those of plain (their digests differ)."
    assert page.text.count(said) == 1 and "these runs are not comparable" in page.text
    row = next(row for row in compared([*pair, third]).rows if row.label == "GMI" and row.headline)
    assert [one and round(one.value, 3) for one in row.differences] == [-0.4, None]
    assert "third against plain" not in page.text and "bido against plain" in page.text


def test_unknown_private_data_have_no_difference_either(pair):
    (pair[1] / "identity.json").unlink()
    found = compared(pair)
    assert {one for row in found.rows for one in row.differences} == {None}
    assert [
        text.startswith("Whether the private data of bido are those of plain is not known") for text in found.warnings
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda run: edit_json(run / "identity.json", lambda i: i["data"].update(public="0" * 64)),
            "The public data of",
        ),
        (
            lambda run: edit_json(run / "evaluators.json", lambda e: e[0].update(digest="0" * 64)),
            "The evaluators of bido",
        ),
        (lambda run: (run / "cells" / "a--b").mkdir(), "bido: a--b: unfinished"),
    ],
)
def test_what_else_makes_runs_differ_is_a_warning(pair, change, message):
    change(pair[1])
    found = compared(pair)
    assert len(found.warnings) == 1 and found.warnings[0].startswith(message)
    assert all(one for row in found.rows if row.headline for one in row.differences)


def test_several_targets_meet_by_name_and_several_seeds_are_pooled(pair):
    for run, targets in zip(pair, ("mlp", "mlp+bido")):
        write_targets(run, {targets: (0.9, ""), "convnet": (0.8, "")})
        write_cell(run, "image/gmi", "convnet", {"accuracy": part(0.3)})
        cell = run / "cells" / "convnet--gmi"
        shutil.copytree(cell, run / "cells" / "convnet--gmi-1")
        edit_json(run / "cells" / "convnet--gmi-1" / "cell.json", lambda c: c.update(seed=1))
        edit_json(run / "cells" / "convnet--gmi-1" / "cell.json", lambda c: c["metrics"]["accuracy"].update(value=0.34))
    rows = {(row.target, row.label): row for row in compared(pair).rows if row.headline}
    both = rows["convnet", "GMI"].found
    assert [(p.seeds, round(p.measured.value, 3)) for p in both] == [(2, 0.32)] * 2
    assert [one is None for one in rows["mlp", "GMI"].found] == [False, True]
    assert listed(compared(pair))[0][1] == "target"


def test_hostile_names_stay_text(pair, tmp_path):
    evil = "<script>alert(1)</script>"
    for run in pair:
        for path in (run / "cells").glob("*--gmi/cell.json"):
            edit_json(path, lambda c: c.update(label=evil))
    (pair[1] / "config.yaml").write_text(f"seed: '{evil}'\n")
    page = page_of(pair, tmp_path / "compare.html")
    assert "script" not in page.tags and page.text.count(evil) >= 3


def other_modality(run):
    for path in run.glob("cells/*/cell.json"):
        edit_json(path, lambda c: c["card"].update(modality="text"))


def other_metric(run):
    for path in run.glob("cells/*/cell.json"):
        edit_json(path, lambda c: c.update(metrics={"auc": part(0.5)}))


def other_unit(run):
    for path in run.glob("cells/*/cell.json"):
        edit_json(path, lambda c: c["metrics"]["accuracy"].update(unit="bits"))


def nothing_finished(run):
    for path in run.glob("cells/*/done.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_modality, "modality: image in plain, text in bido; legal are runs that agree"),
        (other_metric, "metrics: accuracy in plain, auc in bido; legal are runs that agree"),
        (other_unit, "metrics: accuracy has .*share.* and .*bits.* in plain and bido"),
        (nothing_finished, "bido: no attack has finished with a metric"),
        (lambda run: (run / "config.yaml").write_text("a: [1"), r"bido/config.yaml: damaged, not YAML"),
    ],
)
def test_runs_on_no_common_scale_are_refused_with_one_sentence(pair, change, message, tmp_path):
    change(pair[1])
    with pytest.raises(ValueError, match=message) as error:
        report.build_comparison(pair, tmp_path / "compare.html")
    assert "\n" not in str(error.value) and not (tmp_path / "compare.html").exists()


def test_what_is_no_set_of_runs_is_refused(pair, tmp_path):
    for folders in ([pair[0]], [pair[0], pair[1], pair[0] / ".." / "plain"]):
        with pytest.raises(ValueError, match="runs: .*; legal are two or more, each once"):
            compared(folders)
    with pytest.raises(ValueError, match="legal is a file"):
        report.build_comparison(pair, tmp_path)
    (tmp_path / "sweep" / "0123456789ab").mkdir(parents=True)
    with pytest.raises(ValueError, match="is a sweep"):
        compared([pair[0], tmp_path / "sweep"])
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        compared([pair[0], tmp_path / "none"])


def test_runs_of_one_name_are_told_apart_by_their_paths(pair, tmp_path):
    other = shutil.copytree(pair[1], tmp_path / "second" / "plain")
    assert compared([pair[0], other]).names == [str(pair[0]), str(other)]
