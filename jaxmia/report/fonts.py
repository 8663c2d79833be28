"""Fonts for what the figures' own font has no glyphs of, such as Chinese names."""

import functools
from typing import Any

from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font

__all__ = ["OWN", "covering"]

OWN = "DejaVu Sans"
"""The font that comes with matplotlib."""


@functools.cache
def covering(characters: frozenset[str]) -> tuple[str, ...]:
    """Names of installed fonts that together have as many of the characters as can be had; upright
    and regular first."""
    families: list[str] = []
    left = set(map(ord, characters))
    for font in sorted(fontManager.ttflist, key=_rank):
        if not left:
            break
        if font.name in (OWN, *families) or font.name.startswith("Last Resort"):  # which has a box for everything
            continue
        try:
            found = left & FT2Font(font.fname).get_charmap().keys()
        except (OSError, RuntimeError):  # uninstalled since matplotlib listed it, or damaged
            continue
        if found:
            families.append(font.name)
            left -= found
    return tuple(families)


def _rank(font: Any) -> tuple[Any, ...]:
    return font.style != "normal", str(font.weight) not in ("400", "normal", "regular"), font.name, font.fname
