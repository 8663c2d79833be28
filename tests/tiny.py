"""An audit that takes seconds: five people of generated pictures, a softmax target, a few steps of everything."""

import numpy as np
from PIL import Image

CONFIG = """
data: {{name: folder, root: {root}, size: 12, private: 3}}
targets: {{name: softmax, steps: 30, rate: 0.1}}
evaluators: {{name: wide_mlp, steps: 10, width: 16}}
prior: {{name: eigenfaces, components: 3}}
decoder: {{width: 4}}
attacks: [{{name: image/mi_face, alpha: 20, rate: 1.0, start: 0.5}}]
candidates: 2
"""


def write_people(folder):
    """`p0` to `p4` with six pictures each: one pattern per person, with noise."""
    rng = np.random.default_rng(0)
    for person in range(5):
        (folder / f"p{person}").mkdir(parents=True)
        pattern = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((4, 4, 1)))
        for picture in range(6):
            pixels = (pattern + rng.normal(0, 12, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"p{person}" / f"{picture}.png")


def write_config(folder, more="", root=None):
    """`run.yaml` in `folder`, with the people beside it."""
    root = folder / "people" if root is None else root
    if not root.exists():
        write_people(root)
    path = folder / "run.yaml"
    path.write_text(CONFIG.format(root=root) + more, encoding="utf-8")
    return path
