"""What survives kill -9: checkpoints of a tree (orbax) and finished parts of a result (npz), both verified by checksum.

Layout of a folder: `step-<n>/` with orbax's files (`step-<n>.npz` where several processes run), which hold the leaves of
the tree as bytes, and `step-<n>.json` written last (step, identity of the run, shapes, dtypes, sha256 of the arrays): a
checkpoint without a verifying manifest does not exist.
`part-<first row>-<sha256>.npz` holds finished cases; its name is its checksum. Folders are readable by their owner only:
they hold reconstructions.

orbax is used without its background saving, after a failure of which a process never ends: a save that fails has failed
when it returns.
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia.identity import Identity, differing

__all__ = [
    "holds_another",
    "load_newest",
    "load_parts",
    "private_folder",
    "save",
    "save_part",
    "saved_steps",
    "write_atomically",
]


def private_folder(path: str | os.PathLike) -> pathlib.Path:
    """Create `path` (0700; `~` is the home folder) and show that it can be written, before any
    work.

    Raises:
      PermissionError: if it cannot be written; FileExistsError: if it is a file.
    """
    path = pathlib.Path(path).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"run folder {path}: is a file; name a folder")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"run folder {path}: cannot be written ({error.strerror}); name one that can") from error
    return path


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Write by temporary file, fsync and rename: readers see the old file, the new one, or none.

    Raises:
      OSError: it cannot be written (no space, no permission); what was there before is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, f"{path}: cannot be written ({error.strerror})") from error


def _to_numpy(tree: Any) -> Any:
    def leaf(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise TypeError("checkpoint: a key is no state; derive it from the run's key and the step")
        return np.asarray(x)

    return jax.tree.map(leaf, tree)


def _describe(tree: Any) -> dict[str, Any]:
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return {"leaves": _layout(tree), "sha256": sha.hexdigest()}


def _layout(tree: Any, leading: int = 0) -> list[list]:
    """Name, shape without so many leading axes, and dtype of every leaf."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [[jax.tree_util.keystr(path), list(leaf.shape[leading:]), str(leaf.dtype)] for path, leaf in found]


def save(folder: pathlib.Path, step: int, tree: Any, *, identity: Identity, keep: int = 2) -> None:
    """Save a tree of arrays as checkpoint `step`; the newest `keep` checkpoints are kept.

    Raises:
      OSError: it cannot be written (no space, no permission); the checkpoints before it are kept.
    """
    tree, path = _to_numpy(tree), folder / f"step-{step}"
    needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)), shutil.disk_usage(folder).free
    if needed > free:
        room = f"{free >> 10} KiB free, {needed >> 10} KiB needed"
        raise OSError(errno.ENOSPC, f"checkpoint {path}: cannot be written ({room})")
    # As bytes, whatever the dtype; the manifest has them. Of what is empty there are none.
    leaves = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in jax.tree.leaves(tree)]
    content = {f"{i:04d}": leaf for i, leaf in enumerate(leaves) if leaf.size}
    path.with_suffix(".json").unlink(missing_ok=True)
    try:
        if jax.process_count() > 1 or not content:  # there orbax saves jointly or not at all
            write_atomically(path.with_suffix(".npz"), _npz(content))
        else:
            with _orbax() as checkpointer:
                checkpointer.save(path.absolute(), content, force=True)
    except Exception as error:  # its storage reports a full disk as ValueError, among others
        raise OSError(f"checkpoint {path}: cannot be written ({error})") from error
    manifest = {"version": 3, "step": step, "identity": identity, **_describe(tree)}
    write_atomically(path.with_suffix(".json"), json.dumps(manifest).encode())
    for old in saved_steps(folder)[keep:]:
        (folder / f"step-{old}.json").unlink()
        (folder / f"step-{old}.npz").unlink(missing_ok=True)
        shutil.rmtree(folder / f"step-{old}", ignore_errors=True)


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """A checkpointer that has saved when it returns, and says nothing of its own."""
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
            yield checkpointer
    finally:
        logger.setLevel(before)


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Numbers of the checkpoints that have a manifest, newest first."""
    return sorted((int(file.stem[5:]) for file in folder.glob("step-*.json")), reverse=True)


def load_newest(
    folder: pathlib.Path, template: Any, *, identity: Identity, any_length: bool = False
) -> tuple[int, Any] | None:
    """The newest checkpoint that verifies, as `(step, tree of numpy arrays)`; None without one.

    A damaged checkpoint is reported and the one before it is used; one of other shapes than the template's is passed
    over. With `any_length` the leading axis may have another length than the template's.

    Raises:
      ValueError: if the folder's checkpoints belong to another run, naming what differs.
    """
    leaves, structure = jax.tree.flatten(template)
    wanted = _layout(template, any_length)
    for step in saved_steps(folder):
        path = folder / f"step-{step}"
        try:
            manifest = json.loads(path.with_suffix(".json").read_bytes())
            found, described = manifest.get("identity"), manifest["leaves"]
        except (ValueError, KeyError, AttributeError) as error:
            _warn(path, error)
            continue
        if found != identity:
            raise holds_another(folder, found, identity)
        if [[name, shape[any_length:], dtype] for name, shape, dtype in described] != wanted:
            continue  # of the same run, cut up otherwise
        try:
            alone, empty = path.with_suffix(".npz"), np.zeros(0, np.uint8)
            if alone.exists():
                loaded = _read_npz(alone.read_bytes())
            else:
                with _orbax() as checkpointer:
                    loaded = checkpointer.restore(path.absolute())
            found = [np.asarray(loaded.get(f"{i:04d}", empty)) for i in range(len(leaves))]
            arrays = [
                part.view(leaf.dtype).reshape(shape) for part, leaf, (_, shape, _) in zip(found, leaves, described)
            ]
            tree = jax.tree.unflatten(structure, arrays)
            if {**manifest, **_describe(tree)} != manifest:
                raise ValueError("checksum, shapes or dtypes differ from its manifest")
            return step, tree
        except Exception as error:  # whatever orbax finds wrong with damaged files: said, and the one before is used
            _warn(path, error)
    return None


def _warn(path: pathlib.Path, error: Exception) -> None:
    warnings.warn(f"checkpoint {path.with_suffix('')} cannot be used ({error}); trying the one before", stacklevel=3)


def holds_another(folder: pathlib.Path, found: Any, wanted: Identity) -> ValueError:
    """The refusal of a folder whose identity is another one."""
    return ValueError(
        f"folder {folder}: holds another run ({differing(found, wanted)}); "
        "name an empty folder, or delete this one to start again"
    )


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _read_npz(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def save_part(folder: pathlib.Path, rows: np.ndarray, tree: Any) -> None:
    """Commit finished cases: `tree` has leading axis `len(rows)`. The file's name carries its checksum."""
    leaves = jax.tree.leaves(_to_numpy(tree))
    content = _npz({"rows": rows, **{f"leaf{i}": leaf for i, leaf in enumerate(leaves)}})
    write_atomically(folder / f"part-{int(rows[0]):08d}-{hashlib.sha256(content).hexdigest()[:32]}.npz", content)


def load_parts(folder: pathlib.Path, template: Any) -> list[tuple[np.ndarray, Any]]:
    """All finished parts that verify, as `(rows, tree)`; a damaged one is set aside, its cases run again."""
    structure, parts = jax.tree.structure(template), []
    for file in sorted(folder.glob("part-*.npz")):
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest()[:32] != file.stem.rsplit("-", 1)[1]:
            warnings.warn(
                f"result part {file} is damaged (checksum differs): set aside, its cases run again", stacklevel=2
            )
            file.rename(file.with_suffix(".damaged"))
            continue
        arrays = _read_npz(content)
        leaves = [arrays[f"leaf{i}"] for i in range(structure.num_leaves)]
        parts.append((arrays["rows"], jax.tree.unflatten(structure, leaves)))
    return parts
