"""An audit: from a checked configuration to a run folder that `jaxmia.report` reads.

Each modality is one module here, chosen by the configuration's `modality`, with `SCHEMA` (what its configurations may
hold), `check`, `train`, `audit`, `evaluate` and `family` (what runs that are audited together have in common). All are
resumable: what is finished is found in the run folder and not done again. `sweep` runs the cells of a sweep.
"""

import importlib
from types import ModuleType
from typing import Any

__all__ = ["MODALITIES", "module"]

MODALITIES = ("image", "tabular")
"""Names of the modules; a new modality adds its own."""


def module(config: dict[str, Any]) -> ModuleType:
    """The module that audits what a configuration, resolved or as written, describes.

    Raises:
      ValueError: for an unknown modality.
    """
    modality = config.get("modality", "image")
    if modality not in MODALITIES:
        raise ValueError(f"modality: {modality!r}; legal is one of {', '.join(MODALITIES)}")
    return importlib.import_module(f"jaxmia.audit.{modality}")
