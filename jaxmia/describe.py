"""What `jaxmia list`, `data list` and `show` print: known names, and what stands behind one of them."""

import difflib
import inspect
import pathlib
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jaxmia import attacks, audit, config, data, defenses
from jaxmia.core import Card
from jaxmia.sections import settable

__all__ = ["described", "listing", "parameter_docs", "sets", "shown"]

METHODS = {"attacks": attacks, "defenses": defenses}
SECTIONS = {"targets": "targets", "evaluators": "evaluators", "priors": "prior", "data": "data"}
"""Of what is found by a name without being a method: the section of a configuration that names it."""


def listing(kind: str) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
    """Head and rows of the table of a kind, one of `METHODS` or `SECTIONS`."""
    if kind in SECTIONS:
        rows = ((name, modality, _prose(factory)[0]) for modality, name, factory in _factories(kind))
        return ("name", "modality", "what"), rows
    cards = ((name, METHODS[kind].get(name).card) for name in METHODS[kind].names())
    if kind == "attacks":
        head = ("name", "access", "year", "title", "recovers")
        return head, ((name, card.access.name, card.year, card.title, card.recovers) for name, card in cards)
    head = ("name", "hooks", "year", "title", "paper")
    return head, ((name, card.hook, card.year, card.title, card.paper) for name, card in cards)


def sets() -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
    """Head and rows of the table of data sets that can be fetched."""
    rows = (
        (row["name"], row["modality"], row["megabytes"], "yes" if row["cached"] else "no", row["content"],
         row["license"])
        for row in data.listing()
    )  # fmt: skip
    return ("name", "modality", "MB", "cached", "content", "license"), rows


def shown(name: str, overrides: Sequence[str] = ()) -> str:
    """A configuration file with all its defaults, of a sweep every cell; or what `described` says of a name.

    Args:
      name: of a file, or one that `listing` knows.
      overrides: to the configuration, as `config.load` takes them.

    Raises:
      ValueError: it is neither, the configuration is not legal, or something else is to be overridden.
    """
    if pathlib.Path(name).is_file() or pathlib.Path(name).suffix:
        checked = config.load(name, overrides, audit.schema)
        return "---\n".join(config.dump(cell) for cell in config.expand(checked, audit.schema(checked)))
    text = described(name)
    if overrides:
        raise ValueError(f"--set: changes configurations, and {name} is a method; leave it out")
    return text + "\n"


def _factories(kind: str) -> Iterator[tuple[str, str, Callable]]:
    """Modality, name and factory of all that a section may name."""
    for modality in audit.modalities():
        known = audit.schema({"modality": modality})
        for name, factory in (known[SECTIONS[kind]].holder if SECTIONS[kind] in known else {}).items():
            yield modality, name, factory


def _known() -> set[str]:
    names = {name for kind in SECTIONS for _, name, _ in _factories(kind)}
    return names.union(*(registry.names() for registry in METHODS.values()))


def described(name: str) -> str:
    """The card of a method, its inputs, and its keywords with defaults, what is legal, and what they do.

    What several kinds call by one name is described once for each, unless it is the same.

    Raises:
      ValueError: nothing is called so; the message has the names that are most like it.
    """
    if name not in _known():
        close = difflib.get_close_matches(name, sorted(_known()), n=2, cutoff=0.5)
        near = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"{name}: neither a configuration file nor a name that `jaxmia list` knows{near}")
    width = max(40, min(shutil.get_terminal_size().columns, 110))
    titles: dict[Callable, list[str]] = {}
    for kind in SECTIONS:
        for modality, known, factory in _factories(kind):
            if known == name:
                titles.setdefault(factory, []).append(f"{kind} ({modality})")
    cards: dict[Callable, Card] = {}
    for kind, registry in METHODS.items():
        if name in registry.names():
            method = registry.get(name)
            titles[method.factory], cards[method.factory] = [kind], method.card
    return "\n\n".join(
        "\n".join(_described(f"{', '.join(where)}: {name}", factory, cards.get(factory), width))
        for factory, where in titles.items()
    )


def _described(title: str, factory: Callable, card: Card | None, width: int) -> list[str]:
    docs, free = parameter_docs(factory), settable(factory)
    lines = [*textwrap.wrap(title, width), *(_card(card, width) if card else ())]
    for paragraph in _prose(factory):
        lines += ["", *textwrap.wrap(paragraph, width)]
    parameters = inspect.signature(factory).parameters.values()
    inputs = [p.name for p in parameters if p.default is p.empty]
    if inputs and card:
        lines += ["", "inputs, from an audit or your program:"]
        lines += [line for name in inputs for line in _entry(f"{name}: {docs.get(name, '')}", width)]
    keywords = [p.name for p in parameters if p.default is not p.empty]
    if keywords:
        lines += ["", "keywords, with their defaults:"]
    for name in keywords:
        legal, default = free.get(name, ("from Python alone", ""))
        shown = f"{name}: {_yaml(default)} ({legal})" if name in free else f"{name} ({legal})"
        lines += _entry(f"{shown} {docs.get(name, '')}", width)
    return lines


def _card(card: Card, width: int) -> Iterator[str]:
    """The card's fields that say something."""
    fields = {**card._asdict(), "access": card.access.name if card.access is not None else ""}
    if card.access is None:  # a defense, which observes nothing
        del fields["observes"]
    for name, value in fields.items():
        if value:
            yield from _entry(f"{name}: {value}", width)


def _prose(factory: Callable) -> list[str]:
    """The paragraphs of the docstring before its first section (Args, Raises ...)."""
    text = re.split(r"\n\n(?=[A-Z]\w+:\n)", inspect.getdoc(factory) or "")[0]
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def parameter_docs(factory: Callable) -> dict[str, str]:
    """What the docstring says of each parameter under "Args:"."""
    section = re.search(r"^Args:\n((?:  .*\n?|\n)*)", inspect.getdoc(factory) or "", re.MULTILINE)
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _yaml(value: Any) -> str:
    """A default as a configuration would have it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else '""'


def _entry(text: str, width: int) -> list[str]:
    """An indented line, with as many after it as it takes; no word is cut."""
    how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="      ", **how)
