"""Who may import whom. A lazy import is a dependency like any other."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "jaxmia"
MAY = {
    "__init__": "adapters attacks composing core data defenses engine metrics models oracle priors recipes report "
    "target train",
    "packages": "",
    "terminal": "",
    "core": "",
    "queries": "core",
    "discovery": "core",
    "models": "models",
    "objectives": "core",
    "composing": "core",
}
MAY |= {"noise": "", "answers": "compiling oracle", "oracle": "core queries"}
MAY |= {"target": "answers compiling core noise oracle queries"}
MAY |= {"torch_modules": "compiling packages"}
MAY |= {"adapters": "adapters answers core oracle packages queries target torch_modules"}
MAY |= {"priors": "core priors torch_modules", "data": "core data", "metrics": "core metrics", "report": "report"}
MAY |= {"recipes": "core oracle objectives priors recipes", "train": "core compiling oracle objectives priors"}
MAY |= {"ranges": "", "starters": ""}
MAY |= dict.fromkeys(("attacks", "defenses"), "core discovery packages oracle objectives priors ranges recipes models")
ENGINE = "core queries cases compiling identity engine fitting holding journal plan slots parallel checkpoint progress"
MAY |= dict.fromkeys(ENGINE.split()[2:], ENGINE)
ANY = "config", "sections", "audit", "modalities", "describe", "cli", "testing"  # experiments import what they like
MAY |= dict.fromkeys(ANY)
JAX = {"jax", "jaxlib", "flax", "optax", "chex", "orbax"}
WRONG = """core: import jaxmia.oracle; models: import jaxmia; priors: from . import pixels; slots: from jaxmia import data
attacks: from jaxmia.target import Target; attacks: from jaxmia import target; attacks: import jaxmia.attacks.image.gmi
report: import jax.numpy; audit: from orbax.checkpoint import v1; recipes: from jaxmia.adapters.linen import from_linen
audit: from jaxmia.modalities.image import MODALITY; audit: from jaxmia import modalities; report: import jaxmia.audit"""


def may(layer, name):
    root, module = (name.split(".") + [""])[:2]
    if root == "jaxmia" and (known := MAY[layer]) is not None:
        return module in known.split()
    if root == "jaxmia" and module == "modalities":
        return layer != "audit"  # which finds them by name
    if root == "orbax":
        return layer == "checkpoint"
    return root != "" and not (layer == "report" and root in JAX)  # relative imports are not resolved, so refused


def violations(layer, source):
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            home = "." * node.level + f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names += [home + alias.name for alias in node.names]
    return [name for name in names if not may(layer, name)]


def test_layers():
    layers = {path: path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert set(layers.values()) == set(MAY), "a new module needs a layer above"
    assert "utils.py" not in {path.name for path in layers}, "name the topic"
    assert not {path: found for path, layer in layers.items() if (found := violations(layer, path.read_text("utf-8")))}


def sources(folder):
    return {path: path.read_text("utf-8") for path in sorted((PACKAGE / folder).rglob("*.py"))}


def test_the_audit_finds_modalities_by_name_in_one_place():
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path, source in sources("audit").items()
        if "import_module" in source or "jaxmia.modalities" in source
    ]
    assert found == ["audit/__init__.py"]


@pytest.mark.parametrize("folder", ["audit", "report"])
def test_nothing_that_serves_every_modality_asks_which_one_it_is(folder):
    """What is true of one alone is said in its own folder."""
    asking = re.compile(r"""modality\S* (==|!=|in) ["'(\[{]""")
    assert not [path.name for path, source in sources(folder).items() if asking.search(source)]
    assert folder == "audit" or not [path for path, source in sources(folder).items() if "modality ==" in source]


@pytest.mark.parametrize("wrong", WRONG.replace("\n", "; ").split("; "))
def test_a_wrong_import_is_found_inside_a_function(wrong):
    layer, line = wrong.split(": ")
    assert len(violations(layer, f"import json\ndef lazy():\n    {line}")) == 1


def test_everything_is_compiled_with_the_options_of_its_platform():
    """`jax.jit` alone leaves out what `compiling.compiler_options` says; `parallel` hands that on when it compiles."""
    bare = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("compiling.py", "parallel.py") and "testing" not in path.parts
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("jax.jit", "nnx.jit", "nn.jit", "jax.pmap")
    ]
    assert not bare, "use compiling.jit"


@pytest.mark.parametrize("module", ["jaxmia.cli", "jaxmia.report"])
def test_starts_without_jax(module):
    code = f"import sys, {module}; print(*{JAX}.intersection(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []
