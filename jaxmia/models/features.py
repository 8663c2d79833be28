"""The one way in which the models name their hidden layers."""

from typing import Any

import flax.linen as nn

__all__ = ["expose"]


def expose(module: nn.Module, name: str, value: Any) -> None:
    """Sows `value` into "features" under `name`, but not while parameters are initialized.

    `sow` appends, and `init` returns every collection: layers sown there would stay in the variables and come
    before the real ones in every later call.
    """
    if not module.is_initializing():
        module.sow("features", name, value)
