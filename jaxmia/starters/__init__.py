"""Starters: a commented configuration and a model file to fill in, for `jaxmia init`."""

import importlib.resources
import os
import pathlib

__all__ = ["KINDS", "write"]

OWN = "targets: {name: python, make: my_model.py:target}"
KINDS = {
    "callable": 'targets: {name: callable, predict: my_model.py:predict, version: "1", budget: 200000}',
    "torch": OWN,
    "onnx": OWN,
    "http": OWN,
}
"""What the model may be, and the line of the configuration that names it."""


def write(kind: str, folder: str | os.PathLike = ".") -> list[pathlib.Path]:
    """Write audit.yaml and my_model.py into a folder, which is made where it is not there.

    Raises:
      ValueError: for an unknown kind.
      FileExistsError: where a file of that name is; nothing is written then.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r}; legal is one of {', '.join(KINDS)}")
    root, texts = pathlib.Path(folder).expanduser(), importlib.resources.files(__name__)
    contents = {
        root / "audit.yaml": texts.joinpath("audit.yaml.txt").read_text("utf-8").format(targets=KINDS[kind]),
        root / "my_model.py": texts.joinpath(f"{kind}.py.txt").read_text("utf-8"),
    }
    for file in contents:
        if file.exists():
            raise FileExistsError(f"{file}: is there already; name another folder with --out")
    root.mkdir(parents=True, exist_ok=True)
    for file, text in contents.items():
        file.write_text(text, encoding="utf-8")
    return list(contents)
