"""What a run recovered, as files that any program reads: pictures, texts and tables, with the digests of all of them."""

import csv
import hashlib
import io
import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxmia.report import tables
from jaxmia.report.arrays import check_images, read_arrays
from jaxmia.report.folder import Cell, Run, read
from jaxmia.report.provenance import Provenance, provenance
from jaxmia.report.sweep_folder import is_sweep
from jaxmia.report.writing import write

__all__ = ["export"]


def export(folder: str | os.PathLike, out: str | os.PathLike | None = None) -> pathlib.Path:
    """Write what the finished cells of a run recovered, and what was measured of it. No file is open to others.

    What a cell recovered lies in `TARGET/ATTACK/`:

        class-C-K.png   (images) candidate K of class C, numbered from 0, 8 bits, as it is
        passage-K.txt   (texts) what the attack puts out
        edges.csv       (graphs) the likeliest pairs of nodes, as many as there are edges; the run folder has all
        cases.csv       one row per thing attacked: its class or node, whether it was found, every metric of its own

    Beside these lie `results.csv`, `results.json` and, written last, `MANIFEST`: a line (#) with the digests of
    configuration, data and models, then those of all files, as `sha256sum --check MANIFEST` wants them.

    Args:
      folder: of the run.
      out: a folder that is new or empty (0700); None is `export` in the run folder.

    Returns:
      The path of the export.

    Raises:
      FileNotFoundError: the run folder or a required file is missing.
      ValueError: `out` holds something, the folder is that of a sweep, or a file is damaged; the message names it.
      OSError: a file cannot be written; the message names it.
    """
    source = pathlib.Path(folder).expanduser()
    if is_sweep(source):
        raise ValueError(f"{source}: is a sweep; legal is one of its run folders")
    run = read(source, arrays=False)
    where = source / "export" if out is None else pathlib.Path(out).expanduser()
    if where.exists() and not (where.is_dir() and not any(where.iterdir())):
        raise ValueError(f"--out: {where}; legal is a folder that is new or empty")
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    where.chmod(0o700)  # it may have been there
    made, sums = provenance(run), {}
    for name, content in _files(run, made):
        for parent in reversed(pathlib.PurePath(name).parents):
            (where / parent).mkdir(mode=0o700, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        write(where / name, data)
        sums[name] = hashlib.sha256(data).hexdigest()
    lines = [_head(made), *(f"{digest}  {name}" for name, digest in sums.items())]
    write(where / "MANIFEST", "\n".join(lines) + "\n")
    return where


def _head(made: Provenance) -> str:
    """The line that tells what the files come from."""
    told = {"configuration": made.configuration}
    told |= {f"data {part}": digest for part, digest in made.data.items()} or {"data": ""}
    told |= {f"model {name}": digest for name, digest in made.models.items()} or {"model": ""}
    words = (f"{name} {f'sha256:{digest}' if digest else 'unknown'}" for name, digest in told.items())
    return "# " + ", ".join(" ".join(word.split()) for word in words)


def _files(run: Run, made: Provenance) -> Iterator[tuple[str, str | bytes]]:
    """Name and content of every file but the manifest."""
    for cell in run.cells:
        place = _place(cell.name)
        for name, content in _recovered(cell, run.folder / "cells" / cell.name / "candidates.npz"):
            yield f"{place}/{name}", content
    yield "results.csv", tables.results(run, more=["stronger"])
    yield "results.json", json.dumps(_results(run, made), indent=1, ensure_ascii=False) + "\n"


def _place(cell: str) -> str:
    """TARGET/ATTACK of a cell's folder TARGET--ATTACK; whatever else it is called, no other folder."""
    target, _, attack = cell.partition("--")
    return f"{target}/{attack}" if {target, attack}.isdisjoint({"", ".", ".."}) else cell


def _recovered(cell: Cell, path: pathlib.Path) -> Iterator[tuple[str, str | bytes]]:
    """The files of one cell; none but texts where it keeps no arrays and shows no pictures."""
    kinds = {exhibit["kind"]: exhibit for exhibit in cell.exhibits}
    for k, row in enumerate(kinds["passages"]["rows"] if "passages" in kinds else ()):
        yield f"passage-{k}.txt", str(row["made"])
    if not path.exists() and "pictures" not in kinds:
        return
    arrays = read_arrays(path, ["targets", "case_ids"], None)
    groups, candidates, scores = arrays["targets"], arrays.get("candidates"), arrays.get("scores")
    if groups.ndim != 1 or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(f"{path}: targets is {groups.dtype} {groups.shape}; legal are class indices [n]")
    table: dict[str, Sequence[Any]] = {
        name.removeprefix("metric:"): _texts(array) for name, array in arrays.items() if array.shape == groups.shape
    }
    if candidates is not None:
        check_images(path, "candidates", candidates)
        if len(candidates) != len(groups):
            raise ValueError(f"{path}: candidates has {len(candidates)} rows, targets has {len(groups)}")
        names = _numbered(groups)
        yield from zip(names, map(_png, candidates))
        table = {"file": names, **table}
    if scores is not None and scores.shape == (len(groups), len(groups)):
        yield "edges.csv", _edges(groups, scores, kinds.get("edges", {}).get("edges"))
    yield "cases.csv", _csv(list(table), zip(*table.values()))


def _numbered(groups: np.ndarray) -> list[str]:
    """The file of each candidate.

    >>> _numbered(np.array([0, 7, 0]))
    ['class-0-0.png', 'class-7-0.png', 'class-0-1.png']
    """
    seen: Counter[int] = Counter()
    names = []
    for c in groups.tolist():
        names.append(f"class-{c}-{seen[c]}.png")
        seen[c] += 1
    return names


def _png(image: np.ndarray) -> bytes:
    """An image `[h, w, 1 or 3]` in [0, 1] as a PNG of 8 bits."""
    pixels, buffer = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="png")
    return buffer.getvalue()


def _texts(values: np.ndarray) -> list[str]:
    """Numbers in as many digits as tell them apart, truth in JSON's words.

    >>> _texts(np.array([0.1, np.nan], np.float32)), _texts(np.array([True]))
    (['0.1', 'nan'], ['true'])
    """
    return [text.lower() if values.dtype == bool else text for text in values.astype(str).tolist()]


def _edges(nodes: np.ndarray, scores: np.ndarray, edges: int | None) -> str:
    """The likeliest pairs, the first `edges` of them, or all; of equal ones in the order of the nodes."""
    left, right = np.triu_indices(len(nodes), 1)
    order = np.argsort(-scores[left, right], kind="stable")[:edges]
    left, right = left[order], right[order]
    return _csv(["node", "other", "score"], zip(*map(_texts, (nodes[left], nodes[right], scores[left, right]))))


def _csv(head: Sequence[str], rows: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def _results(run: Run, made: Provenance) -> dict[str, Any]:
    """What results.json holds: all that results.csv has, by cell, and what the run was made of."""
    return {
        "command": run.environment["command"],
        **made._asdict(),
        "targets": [
            {**t._asdict(), "test_accuracy": t.test_accuracy and t.test_accuracy._asdict()} for t in run.targets.values()
        ],
        "cells": [
            {
                "cell": cell.name, "attack": cell.attack, "label": cell.label, "target": cell.target,
                "access": cell.card["access"], "control": cell.control, "seed": cell.seed, "n": cell.n,
                "queries": cell.queries, "seconds": cell.seconds, "hyperparameters": cell.hyperparameters,
                "status": cell.status, "headline": cell.headline,
                "metrics": {name: m._asdict() for name, m in cell.metrics.items()},
            }
            for cell in run.cells
        ],
        "unfinished": run.unfinished,
    }  # fmt: skip
