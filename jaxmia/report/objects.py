"""Objects from JSON files: by name, checked, with errors that name the file and the place in it."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

__all__ = ["Object", "existing", "read_object", "read_objects"]


class Object:
    """A JSON object that says where it stood when it lacks something.

    Attributes:
      where: the file, and the place in it.
      values: what the object holds, by name.

    Every method reads one value by name, and raises ValueError where it is missing or of another kind.
    """

    def __init__(self, where: Any, values: Any):
        if not isinstance(values, dict):
            raise ValueError(f"{where}: holds {type(values).__name__}; legal is an object")
        self.where, self.values = where, values

    def field(self, name: str, kinds: Any, legal: str) -> Any:
        """The value called `name`, an instance of `kinds`, which `legal` words; numbers are finite, no booleans.

        Raises:
          ValueError: it is missing or something else.
        """
        if name not in self.values:
            raise ValueError(f"{self.where}: {name} is missing; legal is {legal}")
        value = self.values[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise ValueError(f"{self.where}: {name} is {value!r}; legal is {legal}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{self.where}: {name} is {value}; legal is a finite number")
        return value

    def text(self, name: str) -> str:
        return self.field(name, str, "text")

    def number(self, name: str) -> float:
        return float(self.field(name, int | float, "a number"))

    def maybe(self, name: str) -> float | None:
        value = self.field(name, int | float | None, "a number or null")
        return None if value is None else float(value)

    def whole(self, name: str) -> int:
        return self.field(name, int, "a whole number")

    def inner(self, name: str) -> "Object":
        return Object(f"{self.where}: {name}", self.field(name, dict, "an object"))

    def one_of(self, name: str, legal: Sequence[str]) -> str:
        value = self.text(name)
        if value not in legal:
            raise ValueError(f"{self.where}: {name} is {value!r}; legal is one of {', '.join(legal)}")
        return value


def existing(path: pathlib.Path) -> pathlib.Path:
    """The same path; FileNotFoundError unless it is a file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing")
    return path


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(existing(path).read_text(encoding="utf-8"))
    except ValueError as error:  # also UnicodeDecodeError
        raise ValueError(f"{path}: damaged, not JSON: {error}") from None


def read_object(path: pathlib.Path) -> Object:
    """The object that a JSON file holds.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or holds something else.
    """
    return Object(path, _json(path))


def read_objects(path: pathlib.Path) -> list[Object]:
    """The objects of the list that a JSON file holds; errors as in `read_object`."""
    values = _json(path)
    if not isinstance(values, list):
        raise ValueError(f"{path}: holds {type(values).__name__}; legal is a list of objects")
    return [Object(f"{path}: item {i}", value) for i, value in enumerate(values)]
