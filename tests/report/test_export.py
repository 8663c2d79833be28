"""What an export holds, who may read it, and what is refused."""

import csv
import hashlib
import io
import json
import os
import shutil
import stat

import numpy as np
import pytest
from PIL import Image

from jaxmia import report

from .conftest import edit_json, write_cell, write_json


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def described(run):
    """Digests beside the run, as an audit leaves them."""
    (run / "config.sha256").write_text("c" * 64)
    data = {"train": "d" * 64, "public": "e" * 64}
    write_json(run / "identity.json", {"sections": {}, "data": data, "versions": {"jax": "0.10.2"}})
    edit_json(run / "targets.json", lambda targets: targets[0].update(digest="a" * 64))


def only(run, cell, exhibit, **arrays):
    """One cell alone, of another kind than pictures."""
    for path in (run / "cells").iterdir():
        if path.name != cell:
            shutil.rmtree(path)
    edit_json(run / "cells" / cell / "cell.json", lambda record: record.update(exhibits=[exhibit]))
    np.savez(run / "cells" / cell / "candidates.npz", **arrays)
    (run / "truth.npz").unlink()


def test_every_candidate_is_a_picture_as_it_is(run):
    for name in ("plain--gmi", "plain--gmi-2"):
        shutil.move(run / "cells" / f"gmi-plain-{int(name[-1] == '2')}", run / "cells" / name)
    where = report.export(run)
    assert where == run / "export"
    with np.load(run / "cells" / "plain--gmi-2" / "candidates.npz", allow_pickle=False) as arrays:
        kept, classes = arrays["candidates"], arrays["targets"]
    folder = where / "plain" / "gmi-2"
    assert len(list(folder.glob("*.png"))) == len(kept) == 60
    of_class = kept[classes == 7]
    for k, image in enumerate(of_class):
        shown = np.asarray(Image.open(folder / f"class-7-{k}.png"), float) / 255
        assert np.abs(shown - image).max() <= 0.5 / 255 + 1e-6
    table = rows(folder / "cases.csv")
    assert [row["file"] for row in table if row["targets"] == "7"] == [f"class-7-{k}.png" for k in range(5)]
    assert {"true", "false"} == {row["success"] for row in table} and len(table[0]["distance"]) > 3
    assert (where / "brep_mi-plain-0" / "class-0-0.png").is_file(), "a cell that is not called TARGET--ATTACK"


def test_gray_candidates_are_gray_pictures(run):
    path = run / "cells" / "gmi-plain-0" / "candidates.npz"
    with np.load(path, allow_pickle=False) as arrays:
        changed = {**arrays, "candidates": arrays["candidates"].mean(-1, keepdims=True)}
    np.savez(path, **changed)
    image = Image.open(report.export(run) / "gmi-plain-0" / "class-0-0.png")
    assert (image.mode, image.size) == ("L", (40, 48))


def test_results_say_unit_interval_direction_access_queries_and_seeds(run):
    where = report.export(run)
    table = rows(where / "results.csv")
    (row,) = [row for row in table if row["cell"] == "gmi-plain-1" and row["metric"] == "feature_distance"]
    assert (row["stronger"], row["seed"], row["access"]) == ("lower", "1", "WEIGHTS")
    cells = {cell["cell"]: cell for cell in json.loads((where / "results.json").read_text())["cells"]}
    assert cells.keys() == {path.name for path in (run / "cells").iterdir()}
    found = cells["brep_mi-plain-0"]
    assert found["access"] == "LABELS" and found["queries"] == {"mean": 24310.5, "max": 100000.0, "training": 0.0}
    accuracy = found["metrics"]["attack_accuracy"]
    assert accuracy["unit"] == "share" and accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["confidence"] == 0.95 and found["metrics"]["feature_distance"]["stronger"] == "lower"


def test_the_manifest_has_the_digests_of_what_was_used_and_of_every_file(run):
    described(run)
    where = report.export(run)
    head, *lines = (where / "MANIFEST").read_text(encoding="utf-8").splitlines()
    told = f"# configuration sha256:{'c' * 64}, data train sha256:{'d' * 64}, data public sha256:{'e' * 64}, "
    assert head == told + f"model plain sha256:{'a' * 64}"
    sums = dict(reversed(line.split("  ", 1)) for line in lines)
    files = {path.relative_to(where).as_posix() for path in where.rglob("*") if path.is_file()}
    assert sums.keys() == files - {"MANIFEST"}
    assert all(hashlib.sha256((where / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())


def test_digests_that_the_run_does_not_have_are_unknown(run):
    head = (report.export(run) / "MANIFEST").read_text().splitlines()[0]
    assert head == "# configuration unknown, data unknown, model unknown"


def test_nobody_else_may_read_it(run, tmp_path):
    before = os.umask(0)
    try:
        (tmp_path / "out").mkdir(0o777)
        where = report.export(run, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [where, *where.rglob("*")]}
    assert len(modes) > 200 and {0o700} == {mode for path, mode in modes.items() if path.is_dir()}
    assert {0o600} == {mode for path, mode in modes.items() if path.is_file()}


def test_the_likeliest_pairs_are_edges_as_many_as_there_are(run):
    scores = np.array([[0, 0.5, 0.25, 0.9], [0.5, 0, 0.5, 0], [0.25, 0.5, 0, 0.1], [0.9, 0, 0.1, 0]], np.float32)
    nodes = np.array([3, 5, 8, 13])
    exhibit = {"kind": "edges", "found": [[1, 1]], "edges": 3, "pairs": 6}
    only(run, "gmi-plain-0", exhibit, scores=scores, targets=nodes, case_ids=nodes)
    folder = report.export(run) / "gmi-plain-0"
    assert (folder / "edges.csv").read_text() == "node,other,score\n3,13,0.9\n3,5,0.5\n5,8,0.5\n"
    assert not list(folder.glob("*.png"))


def test_texts_are_files_and_records_are_rows(run):
    passages = {"kind": "passages", "rows": [{"made": "the number is 12\n", "true": "the number is 17", "note": ""}]}
    arrays = {"posterior": np.array([0.25, 1.0]), "metric:gain": np.array([0.1, 2], np.float32)}
    only(run, "gmi-plain-0", passages, targets=np.array([4, 9]), case_ids=np.array([4, 9]), **arrays)
    folder = report.export(run) / "gmi-plain-0"
    assert (folder / "passage-0.txt").read_text() == "the number is 12\n"
    assert (folder / "cases.csv").read_text() == "targets,case_ids,posterior,gain\n4,4,0.25,0.1\n9,9,1.0,2.0\n"


def test_an_unfinished_cell_is_named_and_not_exported(run):
    write_cell(run, "image/rlb_mi", "plain", strength=0.5, done=False)
    where = report.export(run)
    assert not (where / "rlb_mi-plain-0").exists()
    assert json.loads((where / "results.json").read_text())["unfinished"] == ["rlb_mi-plain-0"]


def test_a_cell_folder_cannot_lead_out_of_the_export(run):
    shutil.move(run / "cells" / "gmi-plain-0", run / "cells" / "..--..")
    where = report.export(run, run / "deep" / "export")
    assert (where / "..--.." / "class-0-0.png").is_file()
    assert {path.name for path in (run / "deep").iterdir()} == {"export"}


def test_what_holds_something_is_not_exported_to(run, tmp_path):
    report.export(run)
    with pytest.raises(ValueError, match=r"--out: .*export; legal is a folder that is new or empty"):
        report.export(run)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="legal is a folder that is new or empty"):
        report.export(run, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_damaged_is_named_and_no_manifest_says_that_all_is_there(run):
    path = run / "cells" / "gmi-plain-1" / "candidates.npz"
    with np.load(path, allow_pickle=False) as arrays:
        changed = {**arrays, "targets": arrays["targets"][:-1]}
    np.savez(path, **changed)
    with pytest.raises(ValueError, match=r"gmi-plain-1/candidates.npz: candidates has 60 rows, targets has 59"):
        report.export(run)
    assert not (run / "export" / "MANIFEST").exists()


def test_a_sweep_is_not_exported(tmp_path):
    (tmp_path / "0123456789ab").mkdir()
    with pytest.raises(ValueError, match="is a sweep; legal is one of its run folders"):
        report.export(tmp_path)
