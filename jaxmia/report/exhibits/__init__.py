"""What a page shows of its cells beside their metrics, one module for each kind of exhibit.

A kind is a module here with `FIRST`, whether it stands before the metrics, `CONTENT`, whether it shows what is private or
was recovered and no mere count of it, and `section(run, shown) -> (template, values)`, which makes its part of the page of
all cells that have such an exhibit: `shown` are pairs of a cell and its exhibit.
"""

import importlib
import pkgutil
from typing import Any

import jinja2
from markupsafe import Markup

from jaxmia.report.folder import Cell, Run

__all__ = ["kinds", "sections"]


def kinds() -> list[str]:
    """Names of all kinds."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def sections(run: Run, environment: jinja2.Environment, content: bool = True) -> list[dict[str, Any]]:
    """The parts of a page, those of what cells have, in the order in which they first have it.

    Args:
      run: whose page.
      environment: with the templates.
      content: whether what shows private or recovered content is among them.

    Raises:
      ValueError: for a kind that there is none of, naming the cell.
    """
    found: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
    for cell in run.cells:
        for exhibit in cell.exhibits:
            found.setdefault(exhibit["kind"], []).append((cell, exhibit))
    made = []
    for kind, shown in found.items():
        if kind not in kinds():
            where = run.folder / "cells" / shown[0][0].name / "cell.json"
            raise ValueError(f"{where}: exhibits: kind is {kind!r}; legal is one of {', '.join(kinds())}")
        module = importlib.import_module(f"{__name__}.{kind}")
        if module.CONTENT and not content:
            continue
        template, values = module.section(run, shown)
        html = environment.get_template(f"exhibits/{template}.html.j2").render(values)
        made.append({"first": module.FIRST, "html": Markup(html)})  # noqa: S704 (rendered, with escapes)
    return made
