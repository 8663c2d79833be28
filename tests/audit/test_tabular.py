"""The audit of record classifiers, on a part of Fair's survey (which statsmodels carries)."""

import functools
import importlib
import json
import sys

import numpy as np
import pytest

from jaxmia import config, report
from jaxmia.audit import folder, surveys, tabular

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
    return config.load(path, [], tabular.SCHEMA)


def audit(tmp_path):
    checked = resolved(tmp_path)
    run = folder.open_run(tmp_path / "run", checked, "test", tabular.check(checked).contents)
    assert tabular.audit([(checked, run)]) == {}
    return run


def cells(run):
    return {cell.parent.name: json.loads(cell.read_text()) for cell in sorted(run.glob("cells/*/cell.json"))}


def test_finds_what_a_tree_memorized_and_nothing_in_shuffled_labels(tmp_path):
    run = audit(tmp_path)
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
    assert "leaks" in report.build(run).read_text(encoding="utf-8")

    before = {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*") if path.is_file()}
    tabular.audit([(resolved(tmp_path), run)])  # finished: found, not made again
    assert {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*") if path.is_file()} == before


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


def test_a_second_attack_on_records_needs_no_line_of_the_audit(tmp_path, monkeypatch):
    """Whatever its keywords, its access and its output; two that differ in numbers alone have
    labels of their own."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "majority.py").write_text(MAJORITY, encoding="utf-8")
    package = importlib.import_module("jaxmia.attacks.tabular")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "more")])
    loads = []
    fair = tabular.SURVEYS["fair"]

    @functools.wraps(fair)
    def counted(**options):
        loads.append(options)
        return fair(**options)

    monkeypatch.setitem(tabular.SURVEYS, "fair", counted)
    text = (
        CONFIG.split("targets")[0] + "targets: [softmax_regression]\nattacks: [{name: tabular/majority, scored: true}, "
    )
    text += "{name: tabular/majority, rounds: 2}]\n"
    monkeypatch.setitem(sys.modules, "jaxmia.attacks.tabular.majority", None)
    monkeypatch.delitem(sys.modules, "jaxmia.attacks.tabular.majority")
    checked = resolved(tmp_path, text)
    data = tabular.check(checked)
    run = folder.open_run(tmp_path / "run", checked, "test", data.contents)
    assert tabular.audit([(checked, run)], data=data) == {}
    found = cells(run)
    scored, labeled = found["softmax_regression--majority"], found["softmax_regression--majority-2"]
    assert (scored["card"]["access"], labeled["card"]["access"]) == ("SCORES", "LABELS")
    assert (scored["label"], labeled["label"]) == ("Majority (majority)", "Majority (majority-2)")
    assert scored["metrics"]["auc"]["value"] == 0.5 and "encoding" not in scored["hyperparameters"]
    assert len(loads) == 1  # once for checking, training and attacking


def test_split_is_disjoint_and_drawn_by_the_seed():
    survey = surveys.fair(members=100, public=200)
    parts = surveys.split(survey, 0)
    rows = np.concatenate(parts)
    assert len(set(rows.tolist())) == len(rows) == 400
    assert len(np.unique(survey.codes[rows], axis=0)) >= 1 and not np.array_equal(
        rows, np.concatenate(surveys.split(survey, 1))
    )
    whole = np.column_stack([survey.codes, survey.labels])
    assert len(np.unique(whole, axis=0)) == len(whole)  # an equal record among the public would be the answer


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CONFIG.replace("members: 150", "members: 0"), "data.members.*0.*legal is 1 or more"),
        (CONFIG.replace("public: 300", "public: 999999"), "data.public.*999999.*legal"),
        (CONFIG.replace("controls: [mlp]", "controls: [convnet]"), "controls: convnet.*legal is mlp, decision_tree"),
        (CONFIG.replace("tabular/attribute_inversion", "graph/graph_mi").replace(", weighting: confidence", ""),
         "graph/graph_mi is for graph; legal are attacks on records"),
    ],
)  # fmt: skip
def test_refuses_before_training(tmp_path, text, told):
    with pytest.raises(ValueError, match=told):
        tabular.check(resolved(tmp_path, text))
