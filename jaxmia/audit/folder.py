"""Files of a run folder; the layout is that of `jaxmia.report`. A cell without done.json is unfinished.

Where several processes audit together, all find the same, and the first one writes.
"""

import importlib.metadata
import io
import json
import os
import pathlib
import platform
from typing import Any

import jax
import numpy as np

from jaxmia.checkpoint import private_folder, write_atomically
from jaxmia.metrics.estimate import Estimate
from jaxmia.report.objects import read_object

__all__ = [
    "amend_environment",
    "environment",
    "finish_cell",
    "holds",
    "is_done",
    "open_run",
    "write_config",
    "write_json",
    "write_npz",
]


def plain(value: Any) -> Any:
    """The JSON form of estimates, arrays and paths."""
    if isinstance(value, Estimate):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write atomically, owner-readable; numbers must be finite."""
    _write(path, (json.dumps(plain(value), indent=1, allow_nan=False) + "\n").encode())


def write_npz(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Write arrays atomically, owner-readable."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    _write(path, buffer.getvalue())


def _write(path: pathlib.Path, content: bytes) -> None:
    if jax.process_index() == 0:
        write_atomically(path, content)


def open_run(folder: str | os.PathLike, config_text: str, config_digest: str, command: str) -> pathlib.Path:
    """Create or resume a run folder (0700).

    Raises:
      ValueError: if it holds a run of another configuration.
    """
    run = private_folder(folder)
    if (run / "config.sha256").exists() and not holds(run, config_digest):
        raise ValueError(
            f"run folder {run}: holds a run of another configuration ({run / 'config.yaml'}); "
            "name another folder with --out, or delete this one"
        )
    write_config(run, config_text, config_digest)
    write_json(run / "environment.json", {**environment(), "command": command})
    return run


def holds(run: pathlib.Path, config_digest: str) -> bool:
    """Whether a folder is a run of the configuration with this digest."""
    marker = run / "config.sha256"
    return marker.exists() and marker.read_text(encoding="utf-8", errors="replace").strip() == config_digest


def write_config(run: pathlib.Path, config_text: str, config_digest: str) -> None:
    """Say what a run folder is a run of."""
    _write(run / "config.yaml", config_text.encode())
    _write(run / "config.sha256", config_digest.encode())


def amend_environment(run: pathlib.Path, **entries: str | None) -> None:
    """Set entries of environment.json, which the report lists; None removes one."""
    path = run / "environment.json"
    known = {**read_object(path).values, **entries} if path.exists() else entries
    write_json(path, {name: value for name, value in known.items() if value is not None or name not in entries})


def environment() -> dict[str, Any]:
    """Versions and hardware a result was obtained with."""
    packages = ("jaxmia", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    devices = jax.local_devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in devices],
        **versions,
    }


def is_done(cell: pathlib.Path) -> bool:
    """Whether a cell was finished."""
    return (cell / "done.json").exists()


def finish_cell(cell: pathlib.Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Commit a cell: arrays, record, and last its mark."""
    write_npz(cell / "candidates.npz", **arrays)
    write_json(cell / "cell.json", record)
    write_json(cell / "done.json", {"files": ["candidates.npz", "cell.json"]})
