"""The whole page: what is on it, what is not, and what refuses to be put on it."""

import csv
import errno
import html.parser
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxmia import report

from .conftest import NAMES, edit_json, estimate, faces, write_cell, write_json


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; refuses what is left open."""

    VOID = {"meta", "img", "source", "br", "link"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def values(self, tag, name):
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


def built(folder):
    path = report.build(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(pristine):
    return built(pristine)


@pytest.mark.nightly
def test_the_page_is_self_contained(pristine, page):
    text = (pristine / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    papers = {f"https://example.org/image/{name}" for name in ("mi_face", "gmi", "rlb_mi", "brep_mi")}
    assert set(page.values("a", "href")) == papers
    assert text.count("http") == text.count('href="https://example.org/') + text.count("http-equiv")
    sources = page.values("img", "src") + page.values("source", "srcset")
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in text and "@import" not in text
    assert all(page.values("img", "alt"))


def test_every_cell_metric_person_and_target_shows(page):
    for words in (
        "Do face classifiers give away their faces?", "MI-Face", "GMI", "RLB-MI", "BREP-MI", "GMI, shuffled labels",
        "plain", "bido (BiDO, HSIC)", "labels only", "weights and gradients", "24,310", "at most 100,000",
        "jaxmia attack configs/faces.yaml seed=0", "steps: 1500", "Attribute inversion", "most frequent value",
        "attack accuracy ↑", "feature distance ↓", "n = 60 in 12 groups", "0.12.8", "2026-11-24", "seed 1",
        "2 went non-finite", "184,220", *NAMES[:10],
    ):  # fmt: skip
        assert words.replace("\u00a0", " ") in page.text.replace("\u00a0", " "), words
    assert NAMES[10] not in page.text  # ten persons at most
    per_target = 10 * (1 + 5 + 1)  # private, four attacks and a control, nearest public
    drawings = 1 + 1 + 2  # heat map, intervals, one curve per target
    assert page.tags.count("img") == 2 * per_target + drawings


def test_controls_are_marked_wherever_they_stand(page):
    rows = [value for _, _, value in page.attributes if value == "control"]
    assert len(rows) >= 1 + 2 * 10 + 2 + 1 + 2  # threat model, pictures, metrics, further table, cost
    assert page.text.count("control") >= 8


def test_sections_stand_in_order(page):
    heads = ["Threat model", "Pictures", "Success by class", "How much is recovered", "Over the steps"]
    heads += ["Attribute inversion", "Targets", "Cost", "Reproduce", "Environment"]
    places = [page.text.index(f" {head} ") for head in heads]
    assert places == sorted(places)


@pytest.mark.nightly
def test_the_verdict_follows_the_numbers(run):
    text = built(run).text.replace("\u00a0", " ")
    sentence = r"The model leaks: the strongest of 2 attacks, GMI \(seed \d\) on plain, reaches attack accuracy \d\d %"
    assert re.search(sentence, text)
    assert "by the strongest control, GMI, shuffled labels" in text

    for path in (run / "cells").glob("*-control/cell.json"):
        edit_json(path, lambda cell: cell["metrics"]["attack_accuracy"].update(value=0.9, low=0.8, high=1.0))
    assert "No leak is shown: the strongest of 2 attacks" in built(run).text

    for path in (run / "cells").glob("*/cell.json"):
        edit_json(path, lambda cell: cell.update(control=False))
    assert "Not decided:" in built(run).text


def test_a_metric_where_lower_is_stronger_can_be_the_headline(run):
    for path in (run / "cells").glob("*/cell.json"):
        edit_json(path, lambda cell: cell.update(headline="feature_distance"))
    text = built(run).text.replace("\u00a0", " ")
    reached = r"reaches feature distance 1.08 \[0.98, 1.18\], against 1.87"
    assert re.search(rf"The model leaks: .* GMI .* on plain, {reached}", text)
    assert "Lower is a stronger attack" in text


def test_unfinished_cells_are_listed_not_dropped(run):
    write_cell(run, "image/rlb_mi", "plain", strength=0.5, seed=3, done=False)
    (run / "cells" / "never-begun").mkdir()
    text = built(run).text
    assert "2 of 6 cells are unfinished" in text
    assert text.count("never-begun") == 2 and text.count("rlb_mi-plain-3") == 2  # the warning and the cost table
    with (run / "results.csv").open(newline="") as file:
        states = {row["cell"]: row["state"] for row in csv.DictReader(file)}
    assert states["never-begun"] == "unfinished" and states["gmi-plain-0"] == "finished"


def test_a_run_with_nothing_finished_is_a_page_too(run):
    for path in (run / "cells").glob("*/done.json"):
        path.unlink()
    text = built(run).text
    assert "4 of 4 cells are unfinished" in text and "nothing can be said yet" in text


def test_results_table(pristine, page):
    with (pristine / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 2
    (row,) = [row for row in rows if row["cell"] == "brep_mi-bido-0" and row["metric"] == "attack_accuracy"]
    assert row["access"] == "LABELS" and row["defense"] == "BiDO, HSIC" and row["control"] == "false"
    assert float(row["low"]) < float(row["value"]) < float(row["high"]) and row["n"] == "60" and row["groups"] == "12"
    assert float(row["queries_mean"]) == 24310.5 and float(row["queries_training"]) == 0
    targets = {entry["name"]: entry for entry in json.loads((pristine / "targets.json").read_text())}
    assert float(row["test_accuracy"]) == targets["bido"]["test_accuracy"]["value"]


def test_what_training_asked_is_told_from_what_each_case_asked(pristine, page):
    cells = [json.loads(path.read_text()) for path in pristine.glob("cells/*/cell.json")]
    trained = [cell for cell in cells if cell["queries"] and cell["queries"]["training"]]
    rows = {(cell["label"], cell["attack"], cell["control"]) for cell in trained}
    words = " ".join(page.text.split())
    threats, costs = words.split(" Cost ", 1)
    assert len(re.findall("61,200 ?at most 100,000 ?and 5,000 in training, once for all cases", threats)) == len(rows)
    assert len(re.findall("61,200 ?and 5,000 in training, once for all cases", costs)) == len(trained) > 0
    assert words.count("in training, once") == len(rows) + len(trained), "of a BREP-MI that trains nothing it is said"


@pytest.mark.nightly
def test_the_same_folder_gives_the_same_bytes(pristine, page):
    before = (pristine / "report.html").read_bytes(), (pristine / "results.csv").read_bytes()
    report.build(pristine)
    assert ((pristine / "report.html").read_bytes(), (pristine / "results.csv").read_bytes()) == before
    assert not list(pristine.glob("*.partial"))


def test_hostile_names_stay_text(run):
    evil = "<script>alert('$x$')</script>"
    edit_json(run / "environment.json", lambda e: e.update(title=evil, command=evil, device=evil))
    edit_json(run / "targets.json", lambda targets: targets[0].update(architecture=evil, dataset=evil))
    (run / "config.yaml").write_text("</code>" + evil, encoding="utf-8")
    (run / "cells" / "a&b'").mkdir()
    for path in (run / "cells").glob("brep_mi-*/cell.json"):

        def change(cell):
            cell.update(label=evil, hyperparameters={evil: evil})
            cell["metrics"] = {evil: cell["metrics"]["attack_accuracy"]}
            cell["curve"] = {evil: [1.0, 0.5]}
            cell["card"].update(title=evil, url="javascript:alert(1)", knows='"><img src=x onerror=alert(1)>')

        edit_json(path, change)
    names = np.array([evil, *NAMES[1:]])
    np.savez(run / "truth.npz", private=faces(len(NAMES), 1), names=names)
    page = built(run)
    assert "script" not in page.tags and evil in page.text
    assert not any("javascript" in (value or "") for _, name, value in page.attributes if name == "href")
    assert all(source.startswith("data:image/png") for source in page.values("img", "src"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_without_truth_gray_and_many_classes(run):
    (run / "truth.npz").unlink()
    for path in (run / "cells").glob("*/candidates.npz"):
        with np.load(path) as old:
            gray = old["candidates"].mean(-1, keepdims=True)
        n = len(gray)
        np.savez(path, candidates=gray, targets=np.arange(n), case_ids=np.arange(n), success=np.arange(n) % 3 == 0,
                 nearest_public=gray[::-1])  # fmt: skip
    page = built(run)
    assert "class 9" in page.text and "class 10" not in page.text
    assert "private" not in page.values("td", "class") and "public image nearest to BREP-MI" in page.text


def test_other_modalities_need_no_pictures(run):
    for path in (run / "cells").glob("*/cell.json"):
        edit_json(path, lambda cell: cell.update(exhibits=[]))
        (path.parent / "candidates.npz").unlink()
    (run / "truth.npz").unlink()
    (run / "tables.json").unlink()
    text = built(run).text
    assert "Pictures" not in text and "Success by class" not in text and "How much is recovered" in text


def test_an_image_cell_needs_its_candidates(run):
    (run / "cells" / "gmi-plain-0" / "candidates.npz").unlink()
    with pytest.raises(FileNotFoundError, match="gmi-plain-0/candidates.npz"):
        report.build(run)


def flipped(data):
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"not an archive", flipped],
    ids=["half", "empty", "other", "flipped"],
)
@pytest.mark.parametrize("name", ["cells/gmi-plain-1/candidates.npz", "truth.npz"])
def test_a_damaged_archive_is_named(run, name, damage):
    path = run / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(name) + ": damaged"):
        report.build(run)
    assert not (run / "report.html").exists()


def replaced(path, **changes):
    with np.load(path) as old:
        arrays = {**old, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"success": None}, "lacks success"),
        ({"success": np.zeros(3, bool)}, "success has 3 rows; cell.json says n = 60"),
        ({"success": np.zeros(60)}, "success is float64"),
        ({"targets": np.full(60, 12)}, "class 12; truth.npz has 12 classes"),
        ({"targets": np.zeros(60)}, "targets is float64"),
        ({"targets": np.full(60, -1)}, "legal are class indices"),
        ({"case_ids": np.zeros(60, int)}, "case_ids repeat"),
        ({"candidates": np.full((60, 4, 4, 3), 2.0)}, "legal is \\[0, 1\\]"),
        ({"candidates": np.full((60, 4, 4, 3), np.nan)}, "legal is \\[0, 1\\]"),
        ({"candidates": np.zeros((60, 4, 4))}, "legal is float \\[n, h, w, 1 or 3\\]"),
        ({"candidates": np.zeros((60, 4, 4, 3), np.uint8)}, "legal is float"),
        ({"case_ids": np.array([object()] * 60)}, "damaged"),
    ],
)
def test_arrays_that_do_not_fit_are_named(run, changes, message):
    path = run / "cells" / "gmi-plain-0" / "candidates.npz"
    replaced(path, **changes)
    with pytest.raises(ValueError, match=f"gmi-plain-0/candidates.npz: .*{message}"):
        report.build(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("card"), "card is missing"),
        (lambda c: c.update(n="60"), "n is '60'; legal is a whole number"),
        (lambda c: c.update(control=0), "control is 0; legal is true or false"),
        (lambda c: c.update(seed=True), "seed is True; legal is a whole number"),
        (lambda c: c.update(target="other"), "target 'other' is not in targets.json, which has plain"),
        (lambda c: c.update(headline="other"), "headline is 'other'; legal is one of its metrics"),
        (lambda c: c.update(status={"RUNNING": 1}), "does not add up to n = 60"),
        (lambda c: c["card"].update(access="ROOT"), "access is 'ROOT'; legal is one of NONE, LABELS"),
        (lambda c: c["metrics"].update(x={"value": 1}), "metrics: x: low is missing"),
        (lambda c: c["metrics"].update(x=estimate(float("nan"), 0, 1, 5)), "value is nan; legal is a finite number"),
        (lambda c: c["metrics"].update(x=estimate(0, 1, 0, 5)), "low 1.0 is above high 0.0"),
        (lambda c: c["metrics"].update(x=estimate(0, 0, 1, 5, stronger="up")), "stronger is 'up'"),
        (lambda c: c.update(queries={"mean": 3}), "queries: max is missing"),
        (lambda c: c.update(queries={"mean": 3, "max": 3}), "queries: training is missing; legal is a number"),
        (lambda c: c["curve"].update(other=[1.0]), "curve 'other'; legal are finite numbers, as many in every"),
        (lambda c: c["curve"].update(loss=[None] * 60), "curve 'loss'; legal are finite numbers"),
    ],
)
def test_cells_that_do_not_fit_are_named(run, change, message):
    path = run / "cells" / "gmi-plain-0" / "cell.json"
    edit_json(path, change)
    with pytest.raises(ValueError, match=f"gmi-plain-0/cell.json: .*{message}"):
        report.build(run)


def test_other_files_that_are_missing_or_damaged_are_named(run):
    for name in ("config.yaml", "environment.json", "targets.json"):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            report.build(run)
        (run / name).write_bytes(kept)
    for name in ("environment.json", "targets.json", "tables.json", "cells/gmi-plain-0/cell.json"):
        kept = (run / name).read_bytes()
        for broken in (kept[:-5], b"3", b"\xff\xfe"):
            (run / name).write_bytes(broken)
            with pytest.raises(ValueError, match=name):
                report.build(run)
        (run / name).write_bytes(kept)
    edit_json(run / "environment.json", lambda e: e.pop("command"))
    with pytest.raises(ValueError, match="environment.json: command is missing"):
        report.build(run)
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        report.build(run / "nowhere")


def test_targets_and_tables_that_do_not_fit(run):
    kept = (run / "targets.json").read_bytes()
    edit_json(run / "targets.json", lambda targets: targets.append(targets[0]))
    with pytest.raises(ValueError, match="targets.json: item 1: name 'plain' is given twice"):
        report.build(run)
    (run / "targets.json").write_bytes(kept)
    for row, message in ((["a"], "row 0 is .'a'.; legal is a list of 2"), (["a", [1]], "rows hold")):
        write_json(run / "tables.json", [{"title": "t", "columns": ["x", "y"], "rows": [row]}])
        with pytest.raises(ValueError, match=f"tables.json: item 0: {message}"):
            report.build(run)


@pytest.mark.nightly
def test_the_report_needs_no_jax(pristine):
    code = "import sys, jaxmia.report as r; r.build(sys.argv[1]); assert 'jax' not in sys.modules, 'jax'"
    subprocess.run([sys.executable, "-c", code, str(pristine)], check=True, timeout=120)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["report.html", "results.csv"])
def test_a_full_disk_names_the_file_and_leaves_what_was_there(name, run, monkeypatch):
    report.build(run)
    before, replace = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}, os.replace

    def full(part, path):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(part, path)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=rf"{name}: cannot be written \(No space left on device\)") as error:
        report.build(run)
    assert error.value.errno == errno.ENOSPC
    assert {file: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


@pytest.mark.parametrize("name", ["cell.json", "candidates.npz"])
def test_a_cell_that_lost_a_file_says_how_it_is_made_anew(name, run):
    cell = run / "cells" / "gmi-plain-0"
    (cell / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"{name}.*; delete the folder {cell}, and `jaxmia attack` makes it anew"
    ):
        report.build(run)


def test_an_exhibit_of_an_unknown_kind_is_refused_with_those_that_are(run):
    edit_json(run / "cells" / "gmi-plain-0" / "cell.json", lambda cell: cell.update(exhibits=[{"kind": "sounds"}]))
    with pytest.raises(ValueError, match="kind is 'sounds'; legal is one of edges, guesses, passages, pictures, ranks"):
        report.build(run)
