"""One picture file to pixels, with the traps of real photo collections handled or refused by name."""

import os
import struct
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

__all__ = ["MAX_PIXELS", "Extent", "decode", "pair", "pillow"]

Extent = int | tuple[int, int]
"""Rows and columns in pixels, one number for a square."""

MAX_PIXELS = 50_000_000
"""Pictures with more pixels are refused before they are decompressed."""


def pillow() -> ModuleType:
    """Pillow's `Image` module, imported on first use."""
    from PIL import Image

    return Image


def pair(extent: Extent) -> tuple[int, int]:
    """Rows and columns.

    >>> pair(8), pair((4, 6))
    ((8, 8), (4, 6))
    """
    return (extent, extent) if isinstance(extent, int) else (extent[0], extent[1])


def decode(
    path: str | os.PathLike[str],
    size: Extent,
    *,
    channels: int = 3,
    crop: Extent | None = None,
    source_size: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "rows columns {channels}"]:
    """Reads a picture, turns it upright, cuts its middle out and resizes it with antialiasing
    (triangle filter).

    The EXIF rotation is applied. Grey, palette, CMYK and 16-bit grey pictures are converted; what is
    transparent becomes white. Of an animation the first frame is taken.

    Args:
      path: the file.
      size: rows and columns of the result.
      channels: 3 for RGB, 1 for grey.
      crop: rows and columns of the middle in pixels of the file; default the most that has the
        proportions of `size`.
      source_size: (rows, columns) that the picture must have; default any.

    Raises:
      ValueError: the file (named) is damaged, truncated, no picture, too large, or of another size than it
        must have.
    """
    Image = pillow()
    from PIL import ImageOps

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than the limit of {MAX_PIXELS}")
            upright = ImageOps.exif_transpose(image)
            upright.load()
        rows, columns = upright.height, upright.width
        if source_size is not None and (rows, columns) != source_size:
            raise ValueError(
                f"has {rows}x{columns} pixels (rows x columns), must have {source_size[0]}x{source_size[1]}"
            )
        height, width = _most(rows, columns, *pair(size)) if crop is None else pair(crop)
        if height > rows or width > columns:
            wanted = height if height == width else f"{height}x{width}"
            raise ValueError(f"has {rows}x{columns} pixels, too few for a crop of {wanted}")
        left, top = (columns - width) // 2, (rows - height) // 2
        middle = upright.crop((left, top, left + width, top + height))
        middle = _plain(middle, "RGB" if channels == 3 else "L")
    except (FileNotFoundError, PermissionError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"picture {os.fspath(path)}: {error}") from error
    # Pillow reports damage by any of these, depending on the format.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error) as error:
        raise ValueError(f"picture {os.fspath(path)}: {error}") from error
    rows, columns = pair(size)
    return np.asarray(middle.resize((columns, rows), Image.Resampling.BILINEAR)).reshape(rows, columns, channels)


def _most(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """The largest window of the proportions height : width."""
    if rows * width <= columns * height:
        return rows, max(1, rows * width // height)
    return max(1, columns * height // width), columns


def _plain(image: Any, mode: str) -> Any:
    """A Pillow image in mode "RGB" or "L" without transparency."""
    Image = pillow()
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey at 255 when it converts: nearly everything would turn white.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) * 255 // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixel mode {image.mode} has no fixed range; save it as 8- or 16-bit grey")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), upper)
    return image.convert(mode)
