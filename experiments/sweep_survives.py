"""What a sweep survives: kill -9 of the command, and kill -9 of Ray's workers.

    python experiments/sweep_survives.py

Softmax regressions on ORL faces, attacked by MI-Face. In the first part `jaxmia sweep` of 16 cells (4 rates, which are one
program, x 4 seeds) is killed with SIGKILL at 10 seeded moments and started again: a seeded time after it has written a
seeded number of results, or after its start. In the second a sweep of 24 cells (4 budgets, which are programs of their
own, x 6 seeds) runs on a local Ray cluster of 2 workers, of which two are killed with SIGKILL at seeded moments. Both are
compared with the same sweep undisturbed and in one process:

- no file of a finished cell is ever written again (inode and modification time), none is lost, and all can be read;
- every cell is there once, and candidates and measurements are those of the undisturbed sweep.

Controls: the comparison must tell another seed's cells apart, and the kills must have hit what was at work (files left
half-written, tasks that Ray says it retries). Writes results/sweep_survives_killed.json and sweep_survives_ray.json.
"""

import argparse
import contextlib
import csv
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import psutil
import record

CONFIG = """data: {name: orl, height: 28, width: 23}
targets: {name: softmax, steps: 200}
evaluators: {name: wide_mlp, steps: 60, width: 64}
prior: {name: eigenfaces, components: 20}
attacks: [{name: image/mi_face, rate: 1.0, alpha: 60, start: 0.5}]
"""
PARTS = {
    "killed": "sweep: {seed: [0, 1, 2, 3], attacks.0.rate: [0.1, 0.3, 1.0, 3.0]}\n",
    "ray": "sweep: {seed: [0, 1, 2, 3, 4, 5], attacks.0.alpha: [20, 40, 60, 80]}\n",
}


def started(config: pathlib.Path, out: pathlib.Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxmia.cli", "sweep", str(config), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> str:
    words = process.communicate()[1]
    if process.returncode != 0:
        raise RuntimeError(words[-2000:])
    return words


def committed(out: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file of a finished run or cell; each must be readable."""
    files = {
        done.parent / name for done in out.glob("*/cells/*/done.json") for name in (*read(done)["files"], done.name)
    }
    files |= {file for done in out.glob("*/done.json") for file in done.parent.rglob("*") if file.is_file()}
    found = {}
    for file in files:
        read(file)
        told = file.stat()
        found[str(file.relative_to(out))] = (told.st_ino, told.st_mtime_ns)
    return found


def read(file: pathlib.Path) -> Any:
    """What a file holds; raises where it is half-written."""
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return {key: np.asarray(arrays[key]) for key in arrays}
    return json.loads(file.read_text()) if file.suffix == ".json" else file.read_bytes()


def results_in(out: pathlib.Path) -> int:
    """How many files that are written once there are."""
    return sum(len(list(out.glob(pattern))) for pattern in ("*/cells/*/*.*", "*/report.html", "*/done.json"))


def table(out: pathlib.Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(one: pathlib.Path, other: pathlib.Path) -> dict[str, Any]:
    """How far two sweeps are apart, by the rows of their tables and the candidates of their cells."""
    tables = [
        {(r["run"], r["cell"], r["metric"]): float(r["value"]) for r in table(out) if r["value"]}
        for out in (one, other)
    ]
    rows = [len(table(out)) for out in (one, other)]
    gaps = [abs(tables[0][key] - value) / max(1.0, abs(value)) for key, value in tables[1].items() if key in tables[0]]
    far = 0.0
    for file in other.glob("*/cells/*/candidates.npz"):
        twin = one / file.relative_to(other)
        if twin.exists():
            with np.load(file, allow_pickle=False) as a, np.load(twin, allow_pickle=False) as b:
                far = max(far, float(np.abs(a["candidates"] - b["candidates"]).max()))
    return {
        "rows": rows,
        "keys_once_and_in_both": len(tables[0]) == len(tables[1]) == len(tables[0].keys() & tables[1].keys()),
        "largest_difference_of_candidates": far,
        "largest_relative_difference_of_measurements": max(gaps, default=float("nan")),
    }


def killed(folder: pathlib.Path, kills: int, seed: int) -> dict[str, Any]:
    """The command killed at seeded moments."""
    config, out, alone = folder / "killed.yaml", folder / "killed", folder / "killed-alone"
    config.write_text(CONFIG + PARTS["killed"], encoding="utf-8")
    began = time.monotonic()
    finished(started(config, alone))
    whole = time.monotonic() - began
    moments, before, after = np.random.default_rng(seed), {}, []
    for _ in range(kills):
        process, there = started(config, out), results_in(out)
        if moments.random() < 0.3:
            more, pause = 0, float(moments.uniform(3, 12))
        else:
            more, pause = int(moments.integers(1, 13)), float(moments.exponential(0.1))
        while results_in(out) < there + more and process.poll() is None:
            time.sleep(0.002)
        time.sleep(pause)
        if process.poll() is not None:
            raise RuntimeError("the sweep was over before the kill")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = committed(out)
        lost = [name for name, told in before.items() if now.get(name) != told]
        after.append(
            {
                "results_more": more,
                "seconds_later": round(pause, 2),
                "finished_cells": len(list(out.glob("*/done.json"))),
                "files_committed": len(now),
                "lost_or_written_again": len(lost),
                "half_written": len(list(out.rglob(".*.tmp"))),
            }
        )
        print(after[-1], flush=True)
        before = now
    finished(started(config, out))
    now = committed(out)
    lost = [name for name, told in before.items() if now.get(name) != told]
    return {
        "cells": len(list(out.glob("*/done.json"))),
        "seconds_undisturbed": round(whole, 1),
        "kills": {str(i): one for i, one in enumerate(after)},
        "lost_or_written_again_at_last": len(lost),
        "against_undisturbed": compare(out, alone),
    }


def on_ray(folder: pathlib.Path, kills: int, seed: int) -> dict[str, Any]:
    """Workers killed at seeded moments."""
    config, out, alone = folder / "ray.yaml", folder / "ray", folder / "ray-alone"
    config.write_text(CONFIG + PARTS["ray"], encoding="utf-8")
    began = time.monotonic()
    finished(started(config, alone))
    whole = time.monotonic() - began
    moments, hits = np.random.default_rng(seed), {}
    process = started(config, out, "--executor", "ray", "--workers", "2")
    for kill in range(kills):
        finish = len(list(out.glob("*/done.json"))) + int(moments.integers(3, 7))  # seeded by what is finished
        while len(list(out.glob("*/done.json"))) < finish and process.poll() is None:
            time.sleep(0.02)
        pause = float(moments.uniform(0, 0.5))
        time.sleep(pause)
        victim = busy(process, moments)
        victim.kill()
        hits[str(kill)] = {"after_cells": finish, "seconds_later": round(pause, 2)}
        print(hits[str(kill)], flush=True)
    words = finished(process)
    return {
        "seconds_in_process": round(whole, 1),
        "cells": len(list(out.glob("*/done.json"))),
        "kills": hits,
        "tasks_retried": len(re.findall(r"Task _(?:work|train) failed.*will be retried", words)),
        "against_in_process": compare(out, alone),
        "against_another_seed": compare_seeds(out),
    }


def busy(driver: subprocess.Popen, moments: np.random.Generator) -> psutil.Process:
    """One of the workers below `driver` that are at a task; between two tasks there may be none for a moment."""
    while driver.poll() is None:
        found = []
        for process in psutil.Process(driver.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if (process.cmdline() or [""])[0].startswith(("ray::_work", "ray::_train")):
                    found.append(process)
        if found:
            return found[int(moments.integers(len(found)))]
        time.sleep(0.02)
    raise RuntimeError("the sweep ended before a worker could be killed")


def compare_seeds(out: pathlib.Path) -> dict[str, float]:
    """The control: between seeds candidates differ by far more than between a killed sweep and an undisturbed one."""
    by_seed: dict[str, str] = {
        row["sweep.seed"]: row["run"] for row in table(out) if row["sweep.attacks.0.alpha"] == "60"
    }
    first, second = (out / by_seed[seed] / "cells/softmax--mi_face/candidates.npz" for seed in ("0", "1"))
    with np.load(first, allow_pickle=False) as a, np.load(second, allow_pickle=False) as b:
        return {"largest_difference_of_candidates": float(np.abs(a["candidates"] - b["candidates"]).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description="kill -9 of a sweep and of Ray's workers.")
    parser.add_argument("--kills", type=int, default=10, help="of the command")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    options = parser.parse_args()
    for part in options.parts:
        began, report = time.perf_counter(), record.header(__file__, [0])
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            where = pathlib.Path(folder)
            report[part] = killed(where, options.kills, 0) if part == "killed" else on_ray(where, 2, 1)
        print(report[part], flush=True)
        record.write(report, began, options.output, f"sweep_survives_{part}")


if __name__ == "__main__":
    main()
