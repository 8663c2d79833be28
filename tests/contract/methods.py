"""Every attack, of the package and of the skeletons, and how its contracts are compiled."""

import contextlib

from jaxmia import attacks, discovery
from tests.compiling import as_users_do

__all__ = ["CHAOTIC", "LONG", "METHODS", "TRAINED", "compiled_for"]

SKELETONS = "tests.contract.skeletons.attacks"
METHODS = [attacks.get(name) for name in attacks.names()]
METHODS += [discovery.get(SKELETONS, name) for name in discovery.names(SKELETONS)]
CHAOTIC = {  # what their golden numbers and bounds were recorded of shows how a compiler rounds
    f"image/{name}" for name in ("cdm_mi", "fsha", "kkt", "lokt", "plg_mi", "ppdg_mi", "secret_gen", "updates_leak")
}
TRAINED = {  # their training on a bench takes ten seconds or more
    f"image/{name}" for name in ("cdm_mi", "fsha", "gamin", "lokt", "plg_mi", "ppdg_mi", "secret_gen", "smi", "vmi")
}
LONG = {"image/rlb_mi"}  # every step trains an agent: hasty code takes longer than the compiling that it saves


def compiled_for(method):
    """A context in which the method is compiled as its tests want it."""
    return as_users_do() if method.name in CHAOTIC | LONG else contextlib.nullcontext()
