"""jaxmia: model inversion attacks and the defenses that blunt them, on JAX.

Names are loaded when first used, so that the command line and the report start without importing JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxmia import attacks, data, defenses, metrics, models, priors, recipes, report, train
    from jaxmia.adapters.function import from_function
    from jaxmia.adapters.host import from_callable
    from jaxmia.adapters.http import from_http
    from jaxmia.adapters.linen import from_linen
    from jaxmia.adapters.nnx import from_nnx
    from jaxmia.adapters.onnx import from_onnx
    from jaxmia.adapters.pytorch import from_torch
    from jaxmia.composing import compose
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
    from jaxmia.target import Target

__version__ = "0.1.0"

# Where each public name is, and what it is; without a module it is one itself.
_PUBLIC = {
    "Access": ("oracle", "what a threat model grants: NONE, LABELS, SCORES or WEIGHTS"),
    "Attack": ("core", "a chain of processes: training stages, then one solve per case"),
    "Card": ("core", "what a method is: paper, access, what it recovers"),
    "Defense": ("core", "hooks into training and serving"),
    "Info": ("core", "what one step says of one case: loss, queries, done"),
    "Labels": ("oracle", "an oracle that answers classes"),
    "Outputs": ("oracle", "logits and named features of a model"),
    "Plan": ("engine", "what may change the speed and never the result"),
    "Prior": ("core", "where candidates live, and what is believed about them"),
    "Process": ("core", "anything that iterates: init, step, read"),
    "Result": ("engine", "what `solve` and `run` return"),
    "Scenario": ("core", "a target, the observed cases, public data"),
    "Scores": ("oracle", "an oracle that answers scores"),
    "Status": ("engine", "how a case ended"),
    "Target": ("target", "a model under audit; attacks get a `view` of it"),
    "ThreatModelError": ("oracle", "an attack asked for more than it is granted"),
    "Weights": ("oracle", "a white-box oracle: answers, parameters, gradients"),
    "attacks": ("", "attacks by name: `attacks.names()`, `attacks.get(name)`"),
    "compose": ("composing", "several defenses as one"),
    "data": ("", "data sets, folders of pictures, splits, minibatches"),
    "defenses": ("", "defenses by name, as `attacks`"),
    "fit": ("engine", "trains one process over minibatches"),
    "from_callable": ("adapters.host", "a target from a Python function (PyTorch, scikit-learn, HTTP)"),
    "from_function": ("adapters.function", "a target from `(params, batch) -> logits`"),
    "from_http": ("adapters.http", "a target from an HTTP endpoint that answers JSON"),
    "from_linen": ("adapters.linen", "a target from a Flax Linen module"),
    "from_nnx": ("adapters.nnx", "a target from a Flax NNX module"),
    "from_onnx": ("adapters.onnx", "a target from an ONNX file"),
    "from_torch": ("adapters.pytorch", "a target from a PyTorch module, with weights and gradients"),
    "info": ("core", "makes an `Info`"),
    "metrics": ("", "figures per case, and their intervals"),
    "models": ("", "Flax modules"),
    "priors": ("", "priors: pixels, eigenfaces, a generator's latents ..."),
    "recipes": ("", "what attacks are made of: descend, regress, evolve ..."),
    "report": ("", "pages of run folders"),
    "run": ("engine", "runs an attack on a scenario"),
    "solve": ("engine", "runs a process once per case"),
    "train": ("", "processes that train models"),
}

__all__ = list(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]

__doc__ = (__doc__ or "") + "\n" + "\n".join(f"    {name:<17} {what}" for name, (_, what) in _PUBLIC.items())


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'jaxmia' has no attribute {name!r}")
    home, _ = _PUBLIC[name]
    module = importlib.import_module(f"jaxmia.{home or name}")
    return getattr(module, name) if home else module


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, *(name for name in globals() if name.startswith("__"))])
