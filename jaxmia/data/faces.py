"""FaceRecognitionNet weights: a face embedding trained elsewhere, to judge reconstructions independently of the target.

The network is the port of dlib's ResNet-34 face model in @vladmandic/face-api (King, 2017). dlib's author names
FaceScrub, VGG-Face and photos from the web as its training data: independent of ORL, but not of a target that was
trained on FaceScrub or on celebrities.
"""

import json
import math

import numpy as np

from jaxmia.data.fetch import StrPath, fetch, read_members

__all__ = ["load_weights"]

_TYPES = {"float32": np.dtype("<f4"), "uint8": np.dtype("u1")}


def load_weights(*, cache: StrPath | None = None) -> dict[str, np.ndarray]:
    """117 float32 tensors by name ("conv32_down/conv/filters", ..., "fc").

    Convolution filters are [rows, columns, in, out], `fc` is [256, 128]. Most are stored as bytes q and are
    restored by `scale * q + min`, so they differ a little from the network that was trained.
    """
    stem = "package/model/face_recognition_model"
    names = [f"{stem}-weights_manifest.json", f"{stem}.bin"]
    data = read_members(fetch("faces", cache=cache), names, limit_bytes=1 << 24)
    values = data[names[1]]
    weights, offset = {}, 0
    for tensor in json.loads(data[names[0]])[0]["weights"]:
        quantization = tensor.get("quantization")
        stored = _TYPES[quantization["dtype"] if quantization else tensor["dtype"]]
        count = math.prod(tensor["shape"])
        array = np.frombuffer(values, stored, count, offset).astype(np.float32)
        if quantization:
            array = array * np.float32(quantization["scale"]) + np.float32(quantization["min"])
        weights[tensor["name"]] = array.reshape(tensor["shape"])
        offset += count * stored.itemsize
    if offset != len(values):
        raise ValueError(f"faces: the manifest accounts for {offset} bytes, the file has {len(values)}")
    return weights
