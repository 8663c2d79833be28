"""Data of image audits: who may be private, what is noticed in a folder of pictures, and what the
report says of it."""

import json
import os
import shutil

import numpy as np
import pytest

from jaxmia import cli, config
from jaxmia.audit import modality_of, schema
from jaxmia.audit.assembly import check
from jaxmia.audit.inputs import Inputs
from jaxmia.data import faces
from jaxmia.engine import fit
from jaxmia.modalities.image import data as scenes
from jaxmia.modalities.image import targets
from jaxmia.modalities.image.judging import Judge
from tests.tiny import write_config, write_people


@pytest.fixture(scope="module", autouse=True)
def nowhere(tmp_path_factory):
    """A cache without archives and a PATH without npm: nothing can be downloaded."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("nowhere")
        patch.setenv("JAXMIA_CACHE", str(folder / "cache"))
        patch.setenv("PATH", str(folder))
        yield


@pytest.fixture
def people(tmp_path):
    """Five people; at split_seed 0 with three private, p2, p3 and p4 are private, p0 and p1
    public."""
    write_people(tmp_path / "people")
    return tmp_path / "people"


def test_who_is_private_in_these_tests(people):
    made = scenes.folder(root=str(people), size=12, private=3)
    assert (set(made.names), set(made.split.public.names)) == ({"p2", "p3", "p4"}, {"p0", "p1"})
    assert made.notes == () and not made.faces


@pytest.mark.parametrize("private", [0, 1, 5, 6])
def test_too_few_or_too_many_private_people_are_refused_with_what_is_legal(private, people):
    with pytest.raises(ValueError, match=rf"data\.private: {private}; legal is 2 to 4, some people must stay public"):
        scenes.folder(root=str(people), size=12, private=private)


def test_where_the_public_is_elsewhere_all_may_be_private(people, tmp_path):
    shutil.move(people / "p0", tmp_path / "strangers")
    there = {"size": 12, "public_root": str(tmp_path / "strangers")}
    assert len(scenes.folder(root=str(people), private=4, **there).names) == 4
    with pytest.raises(ValueError, match=r"data\.private: 1; legal is 2 to 4$"):
        scenes.folder(root=str(people), private=1, **there)
    with pytest.raises(
        ValueError, match=r"data\.private: 2; legal is 2 or more, and there are 2 people, some people must"
    ):
        for name in ("p1", "p2"):
            shutil.rmtree(people / name)
        scenes.folder(root=str(people), size=12, private=2)


def test_one_private_person_of_a_manifest_is_refused_before_training(people, tmp_path):
    from jaxmia.data import identity_manifest, image_folder

    images = image_folder(people, 12)
    identity_manifest(
        images.labels, images.names, dataset="d", private=["p1"], public=["p0"], validation=0.1, test=0.2
    ).write(tmp_path / "one.json")
    checked = config.load(write_config(tmp_path), [f"data.manifest={tmp_path / 'one.json'}"], schema)
    with pytest.raises(ValueError, match="data: p1 alone is private; legal is 2 or more, which an interval needs"):
        check(checked)


@pytest.mark.nightly
def test_one_class_may_be_attacked_alone(tmp_path):
    path, run = write_config(tmp_path, "attacked_classes: 1\n"), tmp_path / "run"
    assert cli.main(["attack", str(path), "--out", str(run), "--set", "candidates=4"]) == 0
    record = json.loads((run / "cells" / "softmax--mi_face" / "cell.json").read_text())
    assert record["n"] == 4 and record["failed"] == 0


def test_a_person_linked_under_two_names_is_refused(people):
    shutil.rmtree(people / "p1")
    (people / "p1").symlink_to(people / "p2", target_is_directory=True)
    with pytest.raises(ValueError, match="data: all 6 pictures of p2, who is private, are public too, as p1; remove"):
        scenes.folder(root=str(people), size=12, private=3)
    # The same from elsewhere.
    (people / "p1").unlink()
    with pytest.raises(ValueError, match="pictures of p4, who is private, are public too, as p4; remove"):
        scenes.folder(root=str(people), size=12, private=4, public_root=str(people / "p4"))


def test_a_photo_on_both_sides_is_noted(people):
    shutil.copy(people / "p2" / "0.png", people / "p1" / "again.png")
    shutil.copy(people / "p3" / "1.png", people / "p0" / "too.png")
    shutil.copy(people / "p1" / "1.png", people / "p0" / "public_twice.png")  # nobody's loss
    (note,) = scenes.folder(root=str(people), size=12, private=3).notes
    assert note.startswith("Private pictures are public too")
    assert "p2 as p1" in note and "p3 as p0" in note and "p4" not in note


@pytest.mark.nightly
def test_what_was_left_out_heads_the_report(people, tmp_path, capsys):
    (people / "p3" / "2.png").write_bytes(b"\x89PNG")
    (people / "p0" / "a.heic").write_bytes(b"0")
    path, run = write_config(tmp_path), tmp_path / "run"
    command = ["attack", str(path), "--out", str(run)]
    assert cli.main(command) == 2
    told = capsys.readouterr().err
    assert "1 of 30 pictures cannot be read" in told and str(people / "p3" / "2.png") in told
    assert not run.exists()
    assert cli.main([*command, "--set", "data.broken=0.04"]) == 0
    note = "1 of 30 pictures cannot be read and are left out: p3/2.png."
    told = capsys.readouterr().err
    assert note in told and "1 .heic, such as p0/a.heic" in told
    warning = json.loads((run / "environment.json").read_text())["warning"]
    assert note in warning and "1 .heic" in warning
    assert f"<strong>Beware:</strong> {warning}" in (run / "report.html").read_text(encoding="utf-8")


def test_a_division_into_train_and_test_is_refused(people, tmp_path, capsys):
    for part in ("train", "val"):
        shutil.copytree(people, tmp_path / "layout" / part)
    path = write_config(tmp_path)
    words = ["attack", str(path), "--out", str(tmp_path / "run"), "--set", f"data.root={tmp_path / 'layout'}"]
    assert cli.main([*words, "data.private=2"]) == 2
    assert (
        "holds train, val, which look like a division of pictures of p0, p1, p2 and others" in capsys.readouterr().err
    )


def test_gray_and_oblong_pictures_are_audited(people, tmp_path):
    path = write_config(tmp_path)
    checked = config.load(path, ["data.size=[12, 8]", "data.channels=1"], schema)
    assert checked["data"]["size"] == (12, 8) and check(checked).split.train.images.shape[1:] == (12, 8, 1)
    assert config.load(path, [], schema)["data"]["size"] == 12
    (tmp_path / "again.yaml").write_text(config.dump(checked), encoding="utf-8")
    assert config.load(tmp_path / "again.yaml", [], schema) == checked
    for override, message in (
        ("data.channels=4", r"data\.channels: 4; legal is one of 1, 3"),
        ("data.size=big", r"data\.size: 'big'; legal is a whole number or a list of 2"),
    ):
        with pytest.raises(ValueError, match=message):
            config.load(path, [override], schema)


def test_a_home_folder_may_be_written_short(people, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = scenes.folder(root="~/people", size=12, private=3, public_root="~/people/p0")
    assert made.names == scenes.folder(root=str(people), size=12, private=3, public_root=str(people / "p0")).names
    images = {"labels": np.repeat(np.arange(5), 6), "names": tuple(f"p{i}" for i in range(5))}
    manifest = scenes.splits.identity_manifest(
        **images, dataset="d", private=["p1", "p2"], public=["p0"], validation=0.1, test=0.2
    )
    manifest.write("~/division.json")
    assert (tmp_path / "division.json").exists()
    assert scenes.folder(root="~/people", size=12, manifest="~/division.json").names == ("p1", "p2")
    from jaxmia import checkpoint

    monkeypatch.chdir(tmp_path)
    assert checkpoint.private_folder("~/runs") == tmp_path / "runs" and not os.path.exists("~")


@pytest.mark.nightly
@pytest.mark.parametrize(("faced", "judges"), [("", ["wide_mlp"]), (", faces: true", ["wide_mlp", "face_embedding"])])
def test_the_face_embedding_judges_only_what_is_known_to_be_faces(faced, judges, tmp_path, monkeypatch):
    """And is not fetched otherwise."""
    path, fetched = write_config(tmp_path), []
    path.write_text(path.read_text(encoding="utf-8").replace("private: 3}", f"private: 3{faced}}}"), encoding="utf-8")
    checked = config.load(path, ["evaluators.steps=1"], schema)
    scene = check(checked)

    def named(name):
        return lambda *_: Judge(name, name, *[None] * 5)

    monkeypatch.setattr(faces, "load_weights", lambda: fetched.append(1) or {})
    monkeypatch.setattr(targets, "embedding_judge", named("face_embedding"))
    given = Inputs(modality_of(checked), checked, scene, lambda *_: pytest.fail("trained"))
    panel = targets.evaluators(given, tmp_path / "training", fit)
    assert [judge.name for judge in panel.judges] == judges and panel.absent == () and panel.note == ""
    assert len(fetched) == len(judges) - 1
