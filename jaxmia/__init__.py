"""jaxmia: model inversion attacks and the defenses that blunt them, on JAX."""

from jaxmia.core import Attack, Card, Defense, Info, Prior, Process, Scenario, info
from jaxmia.engine import Plan, Result, Status, fit, run, solve
from jaxmia.oracle import (
    Access,
    Labels,
    Outputs,
    Scores,
    Target,
    ThreatModelError,
    Weights,
    from_callable,
    from_function,
    from_linen,
    from_nnx,
)

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
