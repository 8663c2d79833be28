"""jaxmia: model inversion attacks and the defenses that blunt them, on JAX.

Names are loaded when first used, so that the command line and the report start without importing JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxmia.core import Attack, Card, Defense, Info, Prior, Process, Scenario, info
    from jaxmia.engine import Plan, Result, Status, fit, run, solve
    from jaxmia.oracle import (
        Access,
        Labels,
        Outputs,
        Scores,
        ThreatModelError,
        Weights,
    )
    from jaxmia.target import Target, from_callable, from_function, from_linen, from_nnx

__version__ = "0.1.0"

__all__ = [
    "Access",
    "Attack",
    "Card",
    "Defense",
    "Info",
    "Labels",
    "Outputs",
    "Plan",
    "Prior",
    "Process",
    "Result",
    "Scenario",
    "Scores",
    "Status",
    "Target",
    "ThreatModelError",
    "Weights",
    "fit",
    "from_callable",
    "from_function",
    "from_linen",
    "from_nnx",
    "info",
    "run",
    "solve",
]

_CORE = ("Attack", "Card", "Defense", "Info", "Prior", "Process", "Scenario", "info")
_ENGINE = ("Plan", "Result", "Status", "fit", "run", "solve")
_ORACLE = ("Access", "Labels", "Outputs", "Scores", "ThreatModelError", "Weights")


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'jaxmia' has no attribute {name!r}")
    homes = {"core": _CORE, "engine": _ENGINE, "oracle": _ORACLE}
    home = next((home for home, names in homes.items() if name in names), "target")
    return getattr(importlib.import_module(f"jaxmia.{home}"), name)
