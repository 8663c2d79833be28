"""The skeletons are short enough to copy, and the one that is printed is the one that is tested."""

import pathlib

import pytest

from tests.contract import skeletons

FOLDER = pathlib.Path(skeletons.__file__).parent
FILES = sorted(file for file in FOLDER.rglob("*.py") if file.name != "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_skeleton_has_at_most_forty_lines(file):
    assert len(file.read_text().splitlines()) <= 40


def test_the_printed_skeleton_is_the_tested_one():
    printed = (FOLDER.parents[2] / "CONTRIBUTING.md").read_text().split("```python\n")[1].split("```")[0]
    assert printed == (FOLDER / "attacks" / "image" / "optimize.py").read_text()
