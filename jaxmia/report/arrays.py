"""Arrays from result archives: by name, without pickles, up to a size, checked against the archive's checksums."""

import pathlib
import zipfile
import zlib

import numpy as np

__all__ = ["check_images", "read_arrays"]

_ARRAY_BYTES = 1 << 32  # an array that unpacks to more is refused


def read_arrays(path: pathlib.Path, required: list[str], optional: list[str] | None) -> dict[str, np.ndarray]:
    """Members of an `.npz` by name; of the optional ones those that are there; None is all others.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, lacks a required member, holds pickles or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        missing = [name for name in required if name not in sizes]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}; it has {', '.join(sizes) or 'nothing'}")
        others = sizes if optional is None else [name for name in optional if name in sizes]
        names = [*required, *(name for name in others if name not in required)]
        huge = [name for name in names if sizes[name] > _ARRAY_BYTES]
        if huge:
            raise ValueError(f"{', '.join(huge)} unpacks to more than {_ARRAY_BYTES >> 30} GiB")
        with np.load(path, allow_pickle=False) as members:
            return {name: members[name] for name in names}
    # The last is what zipfile raises for a compression that it does not know.
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(f"{path}: damaged or not what the layout asks for: {error}") from None


def check_images(path: pathlib.Path, name: str, images: np.ndarray) -> None:
    """Raise ValueError unless `images` is float [n, h, w, 1 or 3] in [0, 1] up to rounding."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{path}: {name} is {images.dtype} {images.shape}; legal is float [n, h, w, 1 or 3]")
    if images.size and not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):  # NaN fails too
        raise ValueError(f"{path}: {name} lies in [{images.min()}, {images.max()}]; legal is [0, 1]")
