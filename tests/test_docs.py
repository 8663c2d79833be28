"""Pages are what `make pages` writes, README is short and has no figure of its own, and its commands and code run."""

import importlib.util
import os
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_page_differs_from_its_numbers_and_cards():
    made = generator().pages()
    stale = [
        str(page.relative_to(ROOT)) for page, text in made.items() if not page.exists() or page.read_text() != text
    ]
    assert not stale, "run `make pages`"
    methods = ROOT / "docs" / "methods"
    assert set(methods.glob("*.md")) == {page for page in made if page.parent == methods}


def test_a_changed_figure_is_found():
    made = generator()
    file = ROOT / "docs" / "results" / "graphs.md"
    text = file.read_text()
    assert (
        made.BLOCK.sub(lambda found: found[1] + made.TABLES[found[2]]() + found[3], text.replace("0.857", "0.9"))
        == text
    )


def test_readme_is_short_and_has_no_figure_of_its_own():
    assert len(README.splitlines()) <= 150
    prose = re.sub(r"```.*?```|<!-- table.*?<!-- end -->|^    .*?$", "", README, flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"\d+(?:\.\d+)? ?(?:%|percent)|\d+\.\d+ ?(?:x|times)", prose), (
        "figures belong to docs/results"
    )


def test_named_files_exist():
    for path in set(re.findall(r"\b(?:configs|experiments|jaxmia)/[\w./]+\.(?:yaml|py|json|csv|md)\b", README)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", WRITTEN, ids=[str(page.relative_to(ROOT)) for page in WRITTEN])
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            assert (page.parent / link).exists(), link


PYTHON = [
    (page, code)
    for page in WRITTEN
    if page.name != "CONTRIBUTING.md"
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]


@pytest.mark.nightly
@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(PYTHON)])
def test_python_in_pages_runs_as_printed(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, os.fspath(page), "exec"), {"__name__": "printed"})
