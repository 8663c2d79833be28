"""Successive halving (Jamieson, Talwalkar 2016): all cells on a small budget, the best share on the next, and so on.

    halving: {path: attacks.0.alpha, budgets: [50, 100, 200], keep: 0.5, metric: "attack_accuracy@1 [vgg_hard]"}

Every cell with a budget is a cell like any other, so a sweep that was cut off goes on where it was. The figure that chose
is flattered by the choice: report another evaluator's.
"""

import csv
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from jaxmia import config
from jaxmia.sections import Section, resolve

__all__ = ["Halving"]


class Halving(NamedTuple):
    """How cells are chosen; without a path there is one rung.

    Attributes:
      path: dotted path of the budget.
      budgets: of the rungs, growing.
      keep: share of the cells that go on, at least one.
      metric: as in the column `metric` of results.csv; the mean over what a cell attacked, controls aside.
      goal: "max" or "min".
    """

    path: str = ""
    budgets: tuple[int, ...] = ()
    keep: float = 0.5
    metric: str = ""
    goal: Literal["max", "min"] = "max"

    @classmethod
    def of(cls, checked: dict[str, Any]) -> "Halving":
        """The section of a checked configuration.

        Raises:
          ValueError: naming field, value and what is legal.
        """
        if "halving" not in checked:
            return cls()
        errors: list[str] = []
        found = cls(**resolve({"halving": checked["halving"]}, {"halving": Section(cls)}, errors)["halving"])
        if errors:
            raise ValueError("\n  ".join(errors))
        rising = all(a < b for a, b in zip(found.budgets, found.budgets[1:]))
        for name, good, legal in (
            ("path", bool(found.path), "the dotted path of the budget"),
            ("budgets", len(found.budgets) > 1 and rising and found.budgets[0] > 0, "two or more growing numbers"),
            ("keep", 0 < found.keep < 1, "between 0 and 1"),
            ("metric", bool(found.metric), "a metric of results.csv"),
        ):
            if not good:
                raise ValueError(f"halving.{name}: {getattr(found, name)!r}; legal is {legal}")
        for swept in config.rows(checked["sweep"], [])[0]:
            if f"{found.path}.".startswith(f"{swept}.") or swept.startswith(f"{found.path}."):
                one = "" if swept == found.path else f", in {swept}"
                raise ValueError(f"halving.path: {found.path} is swept as well{one}; drop one")
        return found

    def variants(self, checked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The configuration of every rung."""
        plain = {name: value for name, value in checked.items() if name != "halving"}
        for budget in self.budgets or (None,):
            yield plain if budget is None else config.placed(plain, self.path, budget)

    def best(self, alive: Sequence[int], runs: Sequence[pathlib.Path]) -> list[int]:
        """Those of the finished cells that go on to the next rung."""
        if not self.path or not alive:
            return []
        sign = -1 if self.goal == "max" else 1
        ranked = sorted(alive, key=lambda i: (sign * self._score(runs[i]), i))
        return sorted(ranked[: max(1, math.floor(self.keep * len(ranked)))])

    def _score(self, run: pathlib.Path) -> float:
        with (run / "results.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["control"] == "false"]
        values = [float(row["value"]) for row in rows if row["metric"] == self.metric]
        if not values:
            known = ", ".join(dict.fromkeys(row["metric"] for row in rows))
            raise ValueError(f"halving.metric: {self.metric!r} is not in {run / 'results.csv'}; legal: {known}")
        return sum(values) / len(values)
