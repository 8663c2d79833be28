"""Methods found by module name: one paper is one file with a CARD and a factory named as the module."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxmia.core import Card

__all__ = ["Method", "get", "names"]


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
    """All method names below `package` ("jaxmia.attacks"), sorted."""
    root = importlib.import_module(package)
    found = (module.name for module in pkgutil.walk_packages(root.__path__, package + ".") if not module.ispkg)
    return tuple(sorted(name[len(package) + 1 :].replace(".", "/") for name in found))


def get(package: str, name: str) -> Method:
    """The method called `name`.

    Raises:
      ValueError: for an unknown name, with the nearest known ones.
    """
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"{package.rsplit('.', 1)[1][:-1]}: there is no {name!r}; {hint}")
    module = importlib.import_module(f"{package}.{name.replace('/', '.')}")
    return Method(name, module.CARD, getattr(module, name.rsplit("/", 1)[-1]))
