"""The README's tables of methods are what the cards say, and its commands name files that exist."""

import pathlib
import re

from jaxmia import attacks, defenses

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def attack_row(name: str) -> str:
    card = attacks.get(name).card
    return (
        f"| `{name}` | [{card.title}]({card.url}), {card.year} | {card.access.name} | {card.knows} | {card.recovers} |"
    )


def defense_row(name: str) -> str:
    card = defenses.get(name).card
    return f"| `{name}` | [{card.title}]({card.url}), {card.year} | {card.hook} |"


def test_every_method_has_its_row():
    missing = [
        row for row in (*map(attack_row, attacks.names()), *map(defense_row, defenses.names())) if row not in README
    ]
    assert not missing, "add to README.md:\n" + "\n".join(missing)


def test_named_files_exist():
    for path in set(re.findall(r"\b(?:configs|experiments|jaxmia)/[\w./]+\.(?:yaml|py|json|csv|md)\b", README)):
        assert (ROOT / path).exists(), path
