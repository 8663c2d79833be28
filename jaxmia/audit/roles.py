"""What each section of a configuration decides: the targets, the adversary, the judging, or the speed alone.

A run folder is of one set of targets and adversaries. What is judged by may change, and so may the speed; and the lists
of `GROWING` may get longer, since what is there stays as it is.
"""

import pathlib
from typing import Any

from jaxmia.audit import schema
from jaxmia.config import digest

__all__ = [
    "GROWING",
    "decisions",
    "differing",
    "keywords",
    "listed",
    "named",
    "run_digest",
    "trained",
    "training",
]

GROWING = ("targets", "defenses", "controls", "attacks")
"""Sections that are lists of what is made one by one."""

ALLOWANCES = ("budget", "per_call")
"""Keywords of a target that limit how it is asked, and change no answer: a run may go on with others."""


def run_digest(config: dict[str, Any]) -> str:
    """sha256 (64 hex digits) of a configuration without what changes the speed alone."""
    known = schema(config)
    return digest({name: value for name, value in config.items() if known[name].role != "speed"})


def training(config: dict[str, Any]) -> str:
    """sha256 of what decides which targets are trained; runs that agree in it may share their training."""
    known = schema(config)
    chosen = {name: value for name, value in config.items() if known[name].role == "target"}
    return digest({name: value for name, value in chosen.items() if known[name].is_trained})


def trained(config: dict[str, Any]) -> str:
    """sha256 of what decides all that a run trains before it attacks: targets, evaluators and prior."""
    known = schema(config)
    return digest({name: value for name, value in config.items() if known[name].is_trained})


def decisions(config: dict[str, Any]) -> dict[str, Any]:
    """What decides the results of a run, as sha256 by section; of a section that may grow by name."""
    found: dict[str, Any] = {}
    known = schema(config)
    for section, value in config.items():
        if known[section].role in ("judge", "speed"):
            continue
        if section == "controls":
            found[section] = {name: "" for name in value}
        elif section in GROWING:
            dropped = ALLOWANCES if section == "targets" else ()
            found[section] = {
                name: digest({k: v for k, v in settings.items() if k not in dropped} if dropped else settings)
                for name, settings in named(listed(value))
            }
        else:
            found[section] = digest({section: value})
    return found


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In words, which of the `decisions` of a run another configuration does not keep.

    >>> differing({"seed": "a", "attacks": {"gmi": "b"}}, {"seed": "a", "attacks": {"gmi": "b", "ppa": "c"}})
    []
    >>> differing({"seed": "a", "attacks": {"gmi": "b"}}, {"seed": "d", "attacks": {}})
    ['attacks (gmi) is gone', 'seed is another']
    """
    words = []
    for section in sorted(found.keys() | wanted.keys()):
        before, after = found.get(section), wanted.get(section)
        if isinstance(before, dict) and isinstance(after, dict):
            words += [f"{section} ({name}) is gone" for name in before if name not in after]
            words += [
                f"{section} ({name}) is another" for name in before if after.get(name, before[name]) != before[name]
            ]
        elif before != after:
            words.append(f"{section} is another")
    return words


def listed(section: Any) -> list[Any]:
    """A section that may be absent, one, or a list, as a list."""
    return section if isinstance(section, list) else [section] if section else []


def keywords(section: dict[str, Any]) -> dict[str, Any]:
    """A section without its name."""
    return {key: value for key, value in section.items() if key != "name"}


def _short(section: dict[str, Any] | None) -> str:
    parts = []
    while section:
        code = section.get("make") or section.get("predict") or ""  # the user's own, FILE.py:FUNCTION
        own = pathlib.Path(code.rpartition(":")[0]).stem
        parts.append(own or section["name"].rsplit("/", 1)[-1])
        section = section.get("base")
    return "_".join(parts)


def named(sections: list[Any]) -> list[tuple[str, Any]]:
    """Each section with a name of its own, that of its base with it: what stands more than once is numbered. A list of
    sections, of defenses that act together, is named by all of them; what code of the user's makes, by its file.

    >>> [name for name, _ in named([{"name": "image/gmi"}, {"name": "image/gmi", "steps": 5}])]
    ['gmi', 'gmi-2']
    >>> named([{"name": "image/lomma", "base": {"name": "image/gmi"}}])[0][0]
    'lomma_gmi'
    >>> named([[{"name": "bido"}, {"name": "rounding"}]])[0][0]
    'bido_and_rounding'
    >>> named([{"name": "python", "make": "my_model.py:target"}])[0][0]
    'my_model'
    """
    seen: dict[str, int] = {}
    out = []
    for section in sections:
        short = "_and_".join(_short(part) for part in listed(section))
        seen[short] = seen.get(short, 0) + 1
        out.append((short if seen[short] == 1 else f"{short}-{seen[short]}", section))
    return out
