"""Configuration files: YAML sections that name a factory and set its keywords, checked against its signature.

A section looks like `attack: {name: image/mi_face, steps: 500}`, is a list of such, or is just the name. There is no
second schema: the pydantic model of a section is derived from the factory's signature. Parameters without a default
are inputs that an experiment supplies (oracle, prior, shape ...) and no keys; parameters that are functions or arrays
keep their defaults.

YAML is read by the 1.2 core rules, since PyYAML's own 1.1 rules turn `no` and `on` into booleans, `010` into 8 and
`1e-3` into text. Here `no` and `on` are text (and still legal where a boolean is wanted), `010` is 10 and `1e-3` is a
number. The same holds for `key=value` overrides.

A `sweep:` block maps dotted paths to lists. Their product, times the rows of an optional `zip:` block of equally long
lists, gives the cells, all of them checked before anything runs:

    sweep:
      attack.rate: [0.1, 0.01]
      zip: {target.epochs: [5, 20], target.rate: [1e-2, 1e-3]}
"""

import copy
import hashlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from jaxmia.sections import Config, Schema, resolve, section

__all__ = ["digest", "dump", "expand", "load", "placed", "rows", "section"]


def load(
    path: str | os.PathLike,
    overrides: Sequence[str],
    schema: Schema | Callable[[Config], Schema],
    complete: Callable[[Config], Config] = lambda written: written,
) -> Config:
    """Read a file, apply overrides, check everything.

    Args:
      path: of the YAML file.
      overrides: `"attack.steps=100"`: a dotted path (numbers index lists) and a YAML value. `attack=image/gmi`
        replaces the whole section, `attack.name=image/gmi` only the name; `sweep.attack.rate=[1, 2]` sets a sweep.
      schema: name to `Section`, whose holder is a registry with `names()` and `get(name)`, a
        mapping of names to factories, one factory (then the section has no name), or a type (`int`,
        `tuple[int, ...]`) for a plain value. A function is called with the overridden text and
        returns the schema, where what is written decides what is legal.
      complete: adds sections to the overridden text.

    Returns:
      Without a sweep, every section resolved, defaults included. With one, the checked text with its overrides, for
      `expand`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: with all errors at once, one dotted path per line.
    """
    path = pathlib.Path(path).expanduser()
    config, errors = _read(path), []
    overridden = [_override(config, text, errors) for text in overrides]
    config, sweep = complete(config), config.get("sweep")
    for swept in [*sweep, *_zip_block(sweep)] if isinstance(sweep, dict) else ():
        if swept in overridden:
            errors.append(f"{swept}: overridden and swept; write sweep.{swept}=[...] or drop it from the sweep")
    if "halving" in config and "sweep" not in config:
        errors.append("halving: there is no sweep whose cells it could choose from; drop it, or give a sweep")
    cells = _cells(config, schema(config) if callable(schema) else schema, errors)
    _refuse(str(path), errors)
    return config if "sweep" in config else cells[0]


def expand(config: Config, schema: Schema) -> list[Config]:
    """The cells of a configuration, each resolved and without a sweep; the last path of the sweep varies fastest.

    Raises:
      ValueError: with all errors of all cells at once; also for two equal cells.
    """
    errors: list[str] = []
    cells = _cells(config, schema, errors)
    _refuse("configuration", errors)
    return cells


def digest(config: Any) -> str:
    """sha256 of the canonical JSON (64 hex digits): the id of a cell.

    >>> digest({"seed": 0, "rate": 0.5}) == digest({"rate": 0.5, "seed": 0})
    True
    """
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def dump(config: Config) -> str:
    """YAML that `load` reads back as the same configuration."""
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _cells(config: Config, schema: Schema, errors: list[str]) -> list[Config]:
    """Every cell resolved; what is wrong is appended to `errors`, where one message stands once for all cells."""
    base = {name: value for name, value in config.items() if name not in ("sweep", "halving")}
    cells, seen = [], {}
    for row in rows(config.get("sweep", {}), errors):
        cell = copy.deepcopy(base)
        for path, value in row.items():
            _place(cell, path, value, errors)
        cell = resolve(cell, schema, errors)
        cells.append(cell)
        if not errors and seen.setdefault(digest(cell), row) is not row:
            errors.append(f"sweep: the cells {seen[digest(cell)]} and {row} are the same")
    return cells


def placed(config: Config, path: str, value: Any) -> Config:
    """A copy with a value at a dotted path.

    Raises:
      ValueError: if the path leads nowhere.
    """
    copied, errors = copy.deepcopy(config), []
    _place(copied, path, value, errors)
    _refuse("configuration", errors)
    return copied


def _zip_block(sweep: dict[str, Any]) -> dict[str, Any]:
    block = sweep.get("zip")
    return block if isinstance(block, dict) else {}


def rows(sweep: Any, errors: list[str]) -> list[dict[str, Any]]:
    """What each cell of a `sweep:` block sets, as `{path: value}`, in the order of `expand`; one empty row for none.

    What is wrong with the block is appended to `errors`.

    >>> rows({"seed": [0, 1], "zip": {"a": [1, 2], "b": [3, 4]}}, [])[1]
    {'seed': 0, 'a': 2, 'b': 4}
    """
    if not isinstance(sweep, dict):
        errors.append(f"sweep: {sweep!r}; legal is a section of dotted paths with lists")
        return []
    zipped = _zip_block(sweep)
    grid = {path: values for path, values in sweep.items() if path != "zip"}
    if "zip" in sweep and not zipped:
        errors.append(f"sweep.zip: {sweep['zip']!r}; legal is a section of dotted paths with lists of one length")
    found = len(errors)
    for prefix, block in (("sweep", grid), ("sweep.zip", zipped)):
        for path, values in block.items():
            if not isinstance(values, list) or not values:
                errors.append(f"{prefix}.{path}: {values!r}; legal is a list of at least one value")
    errors.extend(f"sweep.zip.{path}: also in the grid; drop one" for path in zipped if path in grid)
    if len(errors) > found:
        return []
    if len({len(values) for values in zipped.values()}) > 1:
        lengths = ", ".join(f"{path} has {len(values)}" for path, values in zipped.items())
        errors.append(f"sweep.zip: {lengths}; legal are lists of one length")
        return []
    pairs = [dict(zip(zipped, values)) for values in zip(*zipped.values())] or [{}]
    return [dict(zip(grid, values)) | pair for *values, pair in itertools.product(*grid.values(), pairs)]


def _override(config: Config, text: str, errors: list[str]) -> str:
    """Apply one `key=value`; the path it set."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        errors.append(f"override {text!r}: legal is key=value with a dotted key")
        return path
    try:
        parsed = yaml.load(value, Loader=_Loader)  # a SafeLoader with other rules for scalars
    except yaml.YAMLError as error:
        errors.append(f"{path}: {value!r} is not YAML: {getattr(error, 'problem', error)}")
        return path
    if path.startswith("sweep."):
        block, swept = config.setdefault("sweep", {}), path.removeprefix("sweep.")
        if isinstance(block, dict) and swept.startswith("zip."):
            block, swept = block.setdefault("zip", {}), swept.removeprefix("zip.")
        if isinstance(block, dict):  # what is not is refused when the sweep is read
            block[swept] = parsed
    else:
        _place(config, path, parsed, errors)
    return path


def _place(config: Config, path: str, value: Any, errors: list[str]) -> None:
    """Set the value at a dotted path, making sections on the way."""
    node: Any = config
    *parents, last = str(path).split(".")
    for depth, key in enumerate([*parents, last]):
        where = ".".join(parents[:depth])
        here: Any = int(key) if isinstance(node, list) and key.isdecimal() else key
        if isinstance(node, list) and here not in range(len(node)):
            errors.append(f"{path}: {where} is a list of {len(node)}; legal is {where}.0 and so on, not .{key}")
            return
        if not isinstance(node, dict | list):
            errors.append(f"{path}: {where} is {node!r}, no section")
            return
        if depth == len(parents):
            node[here] = copy.deepcopy(value)
            return
        child = node[here] if isinstance(node, list) else node.get(here)
        if child is None or isinstance(child, str):  # an empty section, or one written as its name
            child = {} if child is None else {"name": child}
            node[here] = child
        node = child


def _read(path: pathlib.Path) -> Config:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: holds {type(config).__name__}; legal is a mapping of sections")
    return config


def _refuse(where: str, errors: list[str]) -> None:
    if errors:
        errors = list(dict.fromkeys(errors))
        count = f"{len(errors)} errors" if len(errors) > 1 else "1 error"
        raise ValueError("\n  ".join([f"{where}: {count}", *errors]))


class _Loader(yaml.SafeLoader):
    """Safe, with YAML 1.2 core scalars, and refusing a key given twice."""

    yaml_implicit_resolvers: dict = {}

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what either set of rules would read as something else than text, and writes no aliases."""

    yaml_implicit_resolvers: dict = {key: list(rules) for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


_NUMBER_STARTS = list("-+.0123456789")
_INTEGER = re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
for _tag, _rule, _starts in (
    ("bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<$"), ["<"]),
    ("int", _INTEGER, _NUMBER_STARTS),
    ("float", _FLOAT, _NUMBER_STARTS),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _rule, _starts)
    if _tag in ("int", "float"):
        _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _rule, _starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
