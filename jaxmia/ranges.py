"""Legal ranges of numbers that may be traced, of which nothing can be said while a program is traced."""

import math
from typing import Any

import jax

__all__ = ["above_zero", "at_least_zero", "fraction"]


def above_zero(**numbers: Any) -> None:
    """Refuse what is not finite and above 0 (ValueError naming it).

    >>> above_zero(rate=0.0)
    Traceback (most recent call last):
    ValueError: rate: 0.0; legal is finite and above 0
    """
    _check(numbers, lambda x: 0 < x < math.inf, "finite and above 0")


def at_least_zero(**numbers: Any) -> None:
    """Refuse what is not finite and 0 or more (ValueError naming it)."""
    _check(numbers, lambda x: 0 <= x < math.inf, "finite and 0 or more")


def fraction(**numbers: Any) -> None:
    """Refuse what is not 0 to 1 (ValueError naming it)."""
    _check(numbers, lambda x: 0 <= x <= 1, "0 to 1")


def _check(numbers: dict[str, Any], fits: Any, legal: str) -> None:
    for name, number in numbers.items():
        if not isinstance(number, jax.Array) and not fits(number):
            raise ValueError(f"{name}: {number}; legal is {legal}")
