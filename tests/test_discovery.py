"""Methods of other packages are found like jaxmia's own."""

import pathlib
import sys

import pytest

from jaxmia import attacks, defenses

SKELETONS = pathlib.Path(__file__).parent / "contract" / "skeletons" / "attacks" / "image"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Another package with an attack, installed as pip does it."""
    package = tmp_path / "mine_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "choose.py").write_text((SKELETONS / "choose.py").read_text())
    (package / "empty.py").write_text("")
    record = tmp_path / "mine_package-1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: mine_package\nVersion: 1\n")
    (record / "entry_points.txt").write_text(
        "[jaxmia.attacks]\nmine_package/choose = mine_package.choose\n"
        "mine_package/empty = mine_package.empty\ngmi = mine_package.choose\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("mine_package")]:
        del sys.modules[name]


def test_an_installed_attack_is_found_by_its_entry_point(installed):
    assert "mine_package/choose" in attacks.names()
    assert "mine_package/choose" not in defenses.names()
    found = attacks.get("mine_package/choose")
    assert found.card.title == "Choose" and found.factory.__module__ == "mine_package.choose"
    assert "gmi" not in attacks.names()


def test_an_installed_module_without_a_card_is_refused(installed):
    with pytest.raises(ValueError, match="mine_package/empty.*mine_package.empty has no CARD"):
        attacks.get("mine_package/empty")
