"""What `jaxmia init` writes is a configuration that is checked to the end but for the pictures and the model."""

import ast

import pytest

from jaxmia import cli, config, starters
from jaxmia.audit import battery, schema


@pytest.mark.parametrize("kind", starters.KINDS)
def test_a_starter_is_a_legal_configuration_and_a_model_file(kind, tmp_path, capsys, monkeypatch):
    assert cli.main(["init", kind, "--out", str(tmp_path / "new")]) == 0
    assert "jaxmia audit" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "new")
    wanted = {"callable": "predict"}.get(kind, "target")
    made = ast.parse((tmp_path / "new" / "my_model.py").read_text())
    assert wanted in [node.name for node in made.body if isinstance(node, ast.FunctionDef)]
    monkeypatch.setattr(battery, "granted", lambda section: battery.Access.SCORES)
    checked = config.load("audit.yaml", [], schema, battery.complete)
    assert checked["targets"]["name"] == ("callable" if kind == "callable" else "python")
    assert list(checked["controls"]) == ["my_model-permuted"]
    assert checked["data"]["private"] == "pictures/train" and checked["attacks"]
    assert cli.main(["init", kind, "--out", str(tmp_path / "new")]) == 2 and "there already" in capsys.readouterr().err


def test_an_unknown_starter_is_refused(tmp_path):
    with pytest.raises(ValueError, match="kind: 'keras'; legal is one of callable, torch"):
        starters.write("keras", tmp_path)
    assert not list(tmp_path.iterdir())
