"""Methods found by module name: one paper is one file with a CARD and a factory named as the module."""

import difflib
import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from jaxmia.core import Card

__all__ = ["Method", "get", "method", "names"]


class Method(NamedTuple):
    """One attack or defense.

    Attributes:
      name: "image/mi_face", "bido".
      card: its card.
      factory: makes it. Parameters without a default are inputs that an experiment supplies by name (oracle, shape,
        prior, decoder ...); keyword-only ones are hyperparameters with the paper's defaults.
    """

    name: str
    card: Card
    factory: Callable[..., Any]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the parameters an experiment must supply."""
        parameters = inspect.signature(self.factory).parameters.values()
        return tuple(p.name for p in parameters if p.default is p.empty)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and defaults of the rest."""
        parameters = inspect.signature(self.factory).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}


def names(package: str) -> tuple[str, ...]:
    """All method names below `package` ("jaxmia.attacks"), and those of other installed packages, sorted."""
    root = importlib.import_module(package)
    found = (module.name for module in pkgutil.walk_packages(root.__path__, package + ".") if not module.ispkg)
    return tuple(sorted([name[len(package) + 1 :].replace(".", "/") for name in found] + list(_installed(package))))


def get(package: str, name: str) -> Method:
    """The method called `name`.

    Another package registers its methods as entry points of the group `package`: the entry's name is the method's, with
    a slash in it, and its value the module that holds CARD and factory.

        [project.entry-points."jaxmia.attacks"]
        "my_package/my_attack" = "my_package.my_attack"

    Raises:
      ValueError: for an unknown name, with the nearest known ones; for an installed module without CARD or factory.
    """
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"{package.rsplit('.', 1)[1][:-1]}: there is no {name!r}; {hint}")
    path = _installed(package).get(name, f"{package}.{name.replace('/', '.')}")
    return method(name, importlib.import_module(path))


def method(name: str, module: ModuleType) -> Method:
    """The method that a module holds: its CARD, and the function called as the last part of `name`.

    Raises:
      ValueError: if the module has no such card or function.
    """
    factory = name.rsplit("/", 1)[-1]
    for needed in ("CARD", factory):
        if not hasattr(module, needed):
            raise ValueError(f"{name}: the module {module.__name__} has no {needed}; a method needs both")
    return Method(name, module.CARD, getattr(module, factory))


def _installed(package: str) -> dict[str, str]:
    """Methods of other packages, name to module; a name without a slash could hide one of ours and is passed over."""
    found = importlib.metadata.entry_points(group=package)
    return {entry.name: entry.value for entry in found if "/" in entry.name}
