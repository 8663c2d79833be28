"""Files of a run folder; the layout is that of `jaxmia.report`. A cell without done.json is unfinished.

Beside them, `identity.json` holds what the results depend on (sections, data, versions), `config.sha256` the digest of
config.yaml, and `lock` who works in it (jaxmia.holding). Where several processes audit together, all find the same, and
the first one writes.
"""

import functools
import io
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmia import config as configuration
from jaxmia.audit import roles, schema
from jaxmia.checkpoint import private_folder, write_atomically
from jaxmia.identity import versions
from jaxmia.metrics.estimate import Estimate
from jaxmia.report.objects import read_object
from jaxmia.report.sweep_folder import is_sweep

__all__ = [
    "amend_environment",
    "environment",
    "finish_cell",
    "holds",
    "is_done",
    "open_run",
    "refuse_other_data",
    "refuse_another",
    "reopened",
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


def open_run(folder: str | os.PathLike, config: dict[str, Any], command: str, contents: dict[str, str]) -> pathlib.Path:
    """Create or resume a run folder (0700) of a configuration whose data has these `contents` (by part, sha256).

    Raises:
      ValueError: if it holds a run of another configuration, of other data or of other versions; nothing is written.
    """
    run = private_folder(folder)
    wanted = {"sections": roles.decisions(config), "data": contents, "versions": versions()}
    found = refuse_another(run, config, contents)
    write_json(run / "identity.json", wanted)
    write_config(run, config)
    # The page tells what the results were made with, and by which command: not who looked at them last.
    finished = any(run.glob("cells/*/done.json")) and found.get("sections") == wanted["sections"]
    if not finished or not _is_object(run / "environment.json"):
        write_json(run / "environment.json", {**environment(), "command": command})
    return run


def _is_object(path: pathlib.Path) -> bool:
    try:
        return bool(read_object(path).values)
    except (FileNotFoundError, ValueError):
        return False


def refuse_another(run: pathlib.Path, config: dict[str, Any], contents: dict[str, str]) -> dict[str, Any]:
    """What identity.json of a run folder holds, nothing where there is none.

    Raises:
      ValueError: if the folder is of another run, naming what differs.
    """
    path, instead = run / "identity.json", "name another folder with --out"
    if not path.exists():
        if (run / "config.sha256").exists() or (run / "cells").exists():
            raise ValueError(f"{path}: missing, so what run {run} holds is not known; delete that folder, or {instead}")
        return {}
    try:
        found = read_object(path).values
        sections, data, made = found["sections"], found["data"], found["versions"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete the folder {run}, or {instead}") from None
    words = roles.differing(sections, roles.decisions(config))
    if data == contents and "data is another" in words:  # the same pictures at another place
        words.remove("data is another")
    if words:
        raise ValueError(
            f"run folder {run}: holds a run of another configuration ({run / 'config.yaml'}): {', '.join(words)}; "
            f"{instead}, or delete this one"
        )
    refuse_other_data(f"run folder {run}", data, contents)
    if made != versions():
        changed = [f"{name} {made.get(name)}" for name in versions() if made.get(name) != versions()[name]]
        now = [f"{name} {version}" for name, version in versions().items() if made.get(name) != version]
        raise ValueError(
            f"run folder {run}: was made with {', '.join(changed)}, and this is {', '.join(now)}; go on with the former, "
            f"or {instead}; `jaxmia report {run}` shows what is there"
        )
    return found


def refuse_other_data(what: str, found: dict[str, str], contents: dict[str, str]) -> None:
    """Raise ValueError, naming the parts, unless data is what it was."""
    changed = [part for part in contents if found.get(part) != contents[part]]
    if changed:
        raise ValueError(
            f"{what}: its data has changed since it was made ({', '.join(changed)}: other pictures or records); "
            "restore them, or name another folder with --out"
        )


def holds(run: pathlib.Path, config: dict[str, Any]) -> bool:
    """Whether a configuration is the one that was written to a run folder."""
    marker = run / "config.sha256"
    return marker.exists() and marker.read_text("utf-8", errors="replace").strip() == roles.run_digest(config)


def reopened(run: pathlib.Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of a run folder with other evaluators, which judge the candidates that are there.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it is a sweep's, an override is of something else, or its config.yaml was edited.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run folder")
    if is_sweep(run):
        raise ValueError(
            f"{run}: is a sweep, which is not evaluated as a whole; evaluate one of its run folders, or change the "
            "evaluators in the configuration and sweep into another folder"
        )
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.split(".")[0] != "evaluators":
            raise ValueError(f"{key}: cannot change for candidates that are there; legal is evaluators")
    path = run / "config.yaml"
    if not holds(run, configuration.load(path, [], schema)):
        raise ValueError(f"{path}: is not what the run was made with (see config.sha256); restore it")
    return configuration.load(path, overrides, schema)


def write_config(run: pathlib.Path, config: dict[str, Any]) -> None:
    """Say what a run folder is a run of."""
    _write(run / "config.yaml", configuration.dump(config).encode())
    _write(run / "config.sha256", roles.run_digest(config).encode())


def amend_environment(run: pathlib.Path, **entries: str | None) -> None:
    """Set entries of environment.json, which the report lists; None removes one."""
    path = run / "environment.json"
    known = {**read_object(path).values, **entries} if path.exists() else entries
    write_json(path, {name: value for name, value in known.items() if value is not None or name not in entries})


@functools.cache
def environment() -> dict[str, Any]:
    """Versions and hardware a result is obtained with."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.local_devices()],
        **versions(),
        "numpy": np.__version__,
    }


def is_done(cell: pathlib.Path) -> bool:
    """Whether a cell was finished."""
    return (cell / "done.json").exists()


def finish_cell(cell: pathlib.Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Commit a cell: arrays, record, and last its mark. The record keeps the environment that it was made in."""
    write_npz(cell / "candidates.npz", **arrays)
    write_json(cell / "cell.json", {"environment": environment(), **record})
    write_json(cell / "done.json", {"files": ["candidates.npz", "cell.json"]})
