"""The audit of record classifiers, on a part of Fair's survey (which statsmodels carries)."""

import functools
import importlib
import json
import shutil
import sys

import numpy as np
import pytest

import jaxmia.audit.cells
from jaxmia import cli, config, report
from jaxmia.audit import folder, schema
from jaxmia.audit.assembly import check
from jaxmia.audit.run import audit
from jaxmia.modalities.tabular import data as surveys

CONFIG = """
modality: tabular
data: {name: fair, members: 150, public: 300}
targets: [{name: mlp, width: 64, steps: 400}, decision_tree]
controls: [mlp]
attacks: [{name: tabular/attribute_inversion, weighting: confidence}]
"""


def resolved(tmp_path, text=CONFIG):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, [], schema)


def audited(tmp_path):
    checked = resolved(tmp_path)
    run = folder.open_run(tmp_path / "run", checked, "test", check(checked).contents)
    assert audit([(checked, run)]) == {}
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a configuration, and in it the folder of its finished run."""
    where = tmp_path_factory.mktemp("finished")
    audited(where)
    return where


def cells(run):
    return {cell.parent.name: json.loads(cell.read_text()) for cell in sorted(run.glob("cells/*/cell.json"))}


def written(run):
    return {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*") if path.is_file()}


@pytest.mark.nightly
def test_finds_what_a_tree_memorized_and_nothing_in_shuffled_labels(finished):
    run = finished / "run"
    found = cells(run)
    assert set(found) == {
        "baseline--prior", "baseline--imputation", "baseline--imputation_label", "mlp--attribute_inversion",
        "decision_tree--attribute_inversion", "mlp-shuffled--attribute_inversion",
    }  # fmt: skip
    excess = {name: cell["metrics"]["excess_auc_over_imputation"] for name, cell in found.items()}
    assert excess["decision_tree--attribute_inversion"]["low"] > 0.05
    assert excess["mlp-shuffled--attribute_inversion"]["high"] < 0.05
    assert found["baseline--prior"]["metrics"]["auc"]["value"] == 0.5
    assert not found["decision_tree--attribute_inversion"]["control"] and found["baseline--prior"]["control"]
    assert found["mlp-shuffled--attribute_inversion"]["control"]
    assert "leaks" in report.build(run).read_text(encoding="utf-8")

    before = written(run)
    audit([(resolved(finished), run)])  # finished: found, not made again
    assert written(run) == before


def test_a_cell_keeps_what_is_judged_of_training_and_of_held_out_records(finished):
    run, survey = finished / "run", check(resolved(finished))
    for name, record in cells(run).items():
        with np.load(run / "cells" / name / "candidates.npz", allow_pickle=False) as stored:
            arrays = dict(stored)
        assert {len(array) for array in arrays.values()} == {300}, name
        assert record["n"] == 150 == np.sum(~arrays["held_out"]) and not arrays["failed"].any()
        assert sum(record["status"].values()) == 150 and isinstance(record["exhibits"], list)
        assert np.array_equal(arrays["targets"], survey.victims) and np.array_equal(arrays["case_ids"], survey.victims)
        assert np.array_equal(arrays["held_out"], np.isin(arrays["targets"], survey.parts.held_out))
        assert np.array_equal(arrays["wanted"], survey.codes[survey.victims, survey.sensitive])
        right = (arrays["posterior"] > 0.5) == (arrays["wanted"] == 1)
        assert np.array_equal(arrays["success"], right)
        for metric, rows in (("accuracy", ~arrays["held_out"]), ("accuracy_on_held_out_records", arrays["held_out"])):
            assert record["metrics"][metric]["value"] == pytest.approx(right[rows].mean())
        if name == "baseline--imputation_label":  # what all others are held against
            assert np.array_equal(arrays["posterior"], arrays["reference"])
            assert record["metrics"]["excess_auc_over_imputation"]["value"] == 0.0


@pytest.mark.nightly
def test_evaluate_makes_the_same_metrics_from_what_the_cells_keep(finished, tmp_path, monkeypatch):
    run = shutil.copytree(finished / "run", tmp_path / "run")
    before, cell = cells(run), run / "cells" / "decision_tree--attribute_inversion" / "cell.json"
    told = json.loads(cell.read_text())
    told["metrics"]["auc"]["value"] = 0.123  # what is there is made anew, not read
    folder.write_json(cell, told)
    monkeypatch.setattr(jaxmia.audit.cells, "run", lambda *_, **__: pytest.fail("attacked again"))
    assert cli.main(["evaluate", str(run)]) == 0
    assert cells(run) == before
    assert {path.parent.name for path in run.glob("cells/*/done.json")} == before.keys()
    assert "leaks" in (run / "report.html").read_text(encoding="utf-8")


MAJORITY = '''"""A guess from the marginal and one question, for each of a target's records."""

import jax.numpy as jnp

from jaxmia.core import Attack, Card
from jaxmia.oracle import Access, lower
from jaxmia.recipes import score

CARD = Card("Majority", "", "", 2026, "tabular", Access.LABELS, "", "", "record")


def majority(oracle, marginals, columns, *, scored: bool = False, rounds: int = 1):
    view = lower(oracle, Access.SCORES if scored else Access.LABELS, "tabular/majority")

    def guess(key, case):
        asked = view.answer(key, jnp.zeros(sum(columns)))
        return jnp.asarray(marginals, jnp.float32) + 0.0 * asked.sum()

    return Attack(lambda fitted: score(guess))
'''


@pytest.mark.nightly
def test_a_second_attack_on_records_needs_no_line_of_the_audit(tmp_path, monkeypatch):
    """Whatever its keywords, its access and its output; the labels of two say which settings differ."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "majority.py").write_text(MAJORITY, encoding="utf-8")
    package = importlib.import_module("jaxmia.attacks.tabular")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "more")])
    loads = []
    fair = surveys.DATA["fair"]

    @functools.wraps(fair)
    def counted(**options):
        loads.append(options)
        return fair(**options)

    monkeypatch.setitem(surveys.DATA, "fair", counted)
    text = (
        CONFIG.split("targets")[0] + "targets: [softmax_regression]\nattacks: [{name: tabular/majority, scored: true}, "
    )
    text += "{name: tabular/majority, rounds: 2}]\n"
    monkeypatch.setitem(sys.modules, "jaxmia.attacks.tabular.majority", None)
    monkeypatch.delitem(sys.modules, "jaxmia.attacks.tabular.majority")
    checked = resolved(tmp_path, text)
    data = check(checked)
    run = folder.open_run(tmp_path / "run", checked, "test", data.contents)
    assert audit([(checked, run)], data=data) == {}
    found = cells(run)
    scored, labeled = found["softmax_regression--majority"], found["softmax_regression--majority-2"]
    assert (scored["card"]["access"], labeled["card"]["access"]) == ("SCORES", "LABELS")
    assert (scored["label"], labeled["label"]) == ("Majority", "Majority (majority-2)")  # numbers are no words
    assert scored["metrics"]["auc"]["value"] == 0.5 and "encoding" not in scored["hyperparameters"]
    assert len(loads) == 1  # once for checking, training and attacking


def test_split_is_disjoint_and_drawn_by_the_seed():
    survey = surveys.fair(0, members=100, public=200)
    rows = np.concatenate(survey.parts)
    assert len(set(rows.tolist())) == len(rows) == 400
    assert [len(part) for part in survey.parts] == [100, 100, 200]
    other = surveys.fair(1, members=100, public=200)
    assert np.array_equal(survey.codes, other.codes) and not np.array_equal(rows, np.concatenate(other.parts))
    assert np.array_equal(rows, np.concatenate(surveys.split(len(survey.codes), 100, 200, 0)))
    whole = np.column_stack([survey.codes, survey.labels])
    assert len(np.unique(whole, axis=0)) == len(whole)  # an equal record among the public would be the answer


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CONFIG.replace("members: 150", "members: 0"), "data.members.*0.*legal is 1 or more"),
        (CONFIG.replace("public: 300", "public: 999999"), "data.public.*999999.*legal"),
        (CONFIG.replace("controls: [mlp]", "controls: [convnet]"), "controls: convnet.*legal is mlp, decision_tree"),
        (CONFIG.replace("tabular/attribute_inversion", "graph/graph_mi").replace(", weighting: confidence", ""),
         "graph/graph_mi is for graph; legal are attacks on tabular"),
    ],
)  # fmt: skip
def test_refuses_before_training(tmp_path, text, told):
    with pytest.raises(ValueError, match=told):
        check(resolved(tmp_path, text))


@pytest.mark.nightly
def test_a_sweep_over_seeds_goes_on_though_each_seed_divides_the_survey_otherwise(tmp_path):
    """What was made of one division says nothing against another."""
    text = CONFIG.split("targets")[0] + "targets: [decision_tree]\nattacks: [tabular/attribute_inversion]\n"
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    command = ["sweep", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "sweep"), "--set"]
    assert cli.main([*command, "sweep.seed=[0, 1]"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("*/cells/*/*") if path.is_file()}
    assert cli.main([*command, "sweep.seed=[0, 1, 2]"]) == 0
    assert len(list((tmp_path / "sweep").glob("*/done.json"))) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
