"""Cells: what the page calls them, and the controls whose cells must find nothing."""

import json
import pathlib

import pytest

from jaxmia import cli, config
from jaxmia.audit import cells, schema
from jaxmia.audit.roles import listed, named
from tests.tiny import write_config

CONFIGS = pathlib.Path(__file__).parent.parent.parent / "configs"


def labels(checked):
    return [cells._label(name, section, checked) for name, section in named(listed(checked["attacks"]))]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[image/gmi, image/ppa]", ["GMI", "PPA"]),
        ("[image/ppa, {name: image/ppa, views: 0}]", ["PPA", "PPA (ppa-2)"]),
        ("[image/vmi, {name: image/vmi, posterior: gaussian}]", ["VMI, flow", "VMI, gaussian"]),
        ("[image/gmi, image/gmi]", ["GMI", "GMI (gmi-2)"]),
        ("[{name: image/lomma, base: image/gmi}, {name: image/lomma, base: image/ked_mi}]",
         ["LOMMA (lomma_gmi)", "LOMMA (lomma_ked_mi)"]),
    ],
)  # fmt: skip
def test_the_same_attack_twice_is_told_apart_by_its_words_or_its_name(written, expected, tmp_path):
    assert labels(config.load(write_config(tmp_path), [f"attacks={written}"], schema)) == expected


@pytest.mark.parametrize(
    "written",
    [
        "[{name: image/lomma, base: image/gmi}, {name: image/lomma, base: image/ked_mi}, "
        "{name: image/lomma, distill_steps: 7, base: image/gmi}]",
        "[{name: image/lomma, base: {name: image/gmi, steps: 2}}, {name: image/lomma, base: {name: image/gmi, steps: 3}}]",
    ],
)
def test_no_two_attacks_have_one_label(written, tmp_path):
    found = labels(config.load(write_config(tmp_path), [f"attacks={written}"], schema))
    assert len(set(found)) == len(found), found


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_two_attacks_of_a_configuration_have_one_label(path):
    if path.stem != "particular_images":  # of a script, and no audit's
        told = config.load(path, [], schema)
        for one in config.expand(told, schema(told)):
            found = labels(one)
            assert len(set(found)) == len(found), found


@pytest.mark.nightly
def test_a_control_is_of_any_kind_that_the_modality_has(tmp_path, monkeypatch):
    """Targets that never learned: the first weights, and zeros, which answer the same to everything."""
    for name in ("JAXMIA_CACHE", "PATH"):  # no npm, hence no face embedding, which takes its time
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    path = write_config(tmp_path, "controls: [softmax-constant, softmax, softmax-untrained]\n")
    assert cli.main(["attack", str(path), "--out", str(tmp_path / "run")]) == 0
    targets = {one["name"]: one for one in json.loads((tmp_path / "run" / "targets.json").read_text())}
    assert list(targets) == ["softmax", "softmax-shuffled", "softmax-untrained", "softmax-constant"]
    for name, words in {
        "softmax": "", "softmax-shuffled": " on shuffled labels", "softmax-untrained": " on a target that is untrained",
        "softmax-constant": " on a target that is constant",
    }.items():  # fmt: skip
        record = json.loads((tmp_path / "run" / "cells" / f"{name}--mi_face" / "cell.json").read_text())
        assert record["label"] == "MI-Face" + words and record["control"] == (name != "softmax")
    # Zeros call everything the first of three people, who have as many test pictures each.
    assert targets["softmax-constant"]["test_accuracy"]["value"] == pytest.approx(1 / 3)
    assert targets["softmax"]["test_accuracy"]["value"] > 0.9
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "on a target that is untrained" in page and "on a target that is constant" in page
