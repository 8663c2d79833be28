"""The one way in which the models name their hidden layers, and defenses find them."""

from typing import Any

import flax.linen as nn

__all__ = ["expose", "named_features"]


def expose(module: nn.Module, name: str, value: Any) -> None:
    """Sows `value` into "features" under `name`, but not while parameters are initialized.

    `sow` appends, and `init` returns every collection: layers sown there would stay in the variables and come
    before the real ones in every later call.
    """
    if not module.is_initializing():
        module.sow("features", name, value)


def named_features(features: dict[str, Any], layers: tuple[str, ...] | None) -> list[Any]:
    """The features of those names, or all; a name also counts behind a wrapper's: "inner/block1".

    Raises:
      ValueError: for a name that the model does not sow, or where it sows none.

    >>> named_features({"inner/block1": 1, "inner/head/_mean": 2}, None)
    [1]
    """
    shown = {path: path.rsplit("/", 1)[-1] for path in features}
    # Names that begin with "_" are those of other defenses.
    layer_paths = [path for path, last in shown.items() if not last.startswith("_")]
    wanted = tuple(layer_paths) if layers is None else layers
    paths = [[p for p in shown if name == p] or [p for p in shown if name == shown[p]] for name in wanted]
    missing = [name for name, found in zip(wanted, paths) if not found]
    if missing or not wanted:
        known = ", ".join(layer_paths) or "no feature"
        raise ValueError(f"layers: {missing or 'none'}; legal is one or more of what the model sows: {known}")
    return [features[path] for found in paths for path in found]
