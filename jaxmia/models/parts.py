"""Exchanging a part of a model that somebody else made: its last layer, or its shortcuts."""

import dataclasses
from typing import Any

import flax.linen as nn

__all__ = ["with_part"]


def with_part(module: nn.Module, name: str, value: Any) -> nn.Module:
    """A copy whose attribute is another, also where the module is inside of wrappers such as `CenteredInput`.

    Raises:
      ValueError: for a module that has no such attribute.

    >>> from jaxmia.models import MLP, CenteredInput
    >>> with_part(CenteredInput(MLP(3)), "width", 8).inner.width
    8
    """
    found = _with_part(module, name, value)
    if found is None:
        raise ValueError(f"targets: {type(module).__name__} has no {name!r} to exchange, as this defense wants")
    return found


def _with_part(module: nn.Module, name: str, value: Any) -> nn.Module | None:
    inner = {field.name: getattr(module, field.name) for field in dataclasses.fields(module) if field.name != "parent"}
    if name in inner:
        return module.clone(**{name: value})
    for field, part in inner.items():
        found = _with_part(part, name, value) if isinstance(part, nn.Module) else None
        if found is not None:
            return module.clone(**{field: found})  # pyright: ignore[reportArgumentType]
    return None
