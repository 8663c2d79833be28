"""A run folder as a runner would leave it, made of drawn faces and made-up numbers."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

NAMES = ["Ada", "Bela", "Chidi", "Dagny", "Emre", "Fumiko", "Goran", "Hana", "Ines", "Jomo", "Kirsi", "Luca"]
CARDS = {
    "image/mi_face": ("MI-Face", 2015, "WEIGHTS", "nothing", "a picture of the class"),
    "image/gmi": ("GMI", 2020, "WEIGHTS", "public faces, to train a GAN", "a face of the person"),
    "image/rlb_mi": ("RLB-MI", 2023, "SCORES", "public faces, to train a GAN", "a face of the person"),
    "image/brep_mi": ("BREP-MI", 2022, "LABELS", "public faces, to train a GAN", "a face of the person"),
}


def faces(n: int, seed: int, height: int = 48, width: int = 40) -> np.ndarray:
    """Drawn faces `[n, h, w, 3]` in [0, 1]: skin, hair, eyes and mouth of varying color, place and size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    out = []
    for _ in range(n):
        skin = np.array([0.92, 0.75, 0.62]) * rng.uniform(0.45, 1.0)
        hair, ground = rng.uniform(0.02, 0.5, 3) * [1, 0.8, 0.6], rng.uniform(0.3, 0.8, 3)
        wide, tall, eye = rng.uniform(0.5, 0.72), rng.uniform(0.7, 0.88), rng.uniform(0.2, 0.32)
        image = np.broadcast_to(ground, (height, width, 3)).copy()

        def paint(a, b, ry, rx, color, image=image):
            depth = 1 - ((y - a) / ry) ** 2 - ((x - b) / rx) ** 2
            inside = 1 / (1 + np.exp(-18 * np.maximum(depth, -2)))[..., None]
            image[:] = image * (1 - inside) + inside * color

        paint(-0.25, 0, tall, wide + rng.uniform(0.08, 0.25), hair)
        paint(0.08, 0, tall * 0.95, wide, skin)
        for side in (-1, 1):
            paint(-0.08, side * eye, 0.06, 0.11, np.ones(3) * 0.95)
            paint(-0.08, side * eye, 0.05, 0.05, rng.uniform(0, 0.35, 3))
        paint(0.5, 0, 0.05 + rng.uniform(0, 0.05), rng.uniform(0.14, 0.3), skin * [0.8, 0.45, 0.45])
        paint(0.2, 0, 0.12, 0.05, skin * 0.85)
        out.append(image)
    return np.clip(np.array(out), 0, 1).astype(np.float32)


def estimate(value: float, low: float, high: float, n: int, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, "confidence": 0.95, "method": "bootstrap", **more}


def share(success: np.ndarray) -> dict[str, Any]:
    p, n = float(success.mean()), len(success)
    half = 1.96 * np.sqrt(max(p * (1 - p), 0.02) / n)
    return estimate(p, max(0.0, p - half), min(1.0, p + half), n, groups=len(NAMES), unit="share")


def write_json(path: pathlib.Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def edit_json(path: pathlib.Path, change: Any) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    write_json(path, value)


def write_cell(
    folder: pathlib.Path, attack: str, target: str, *, strength: float, seed: int = 0, control: bool = False,
    label: str | None = None, done: bool = True, per_class: int = 5,
) -> pathlib.Path:  # fmt: skip
    title, year, access, knows, recovers = CARDS[attack]
    label = label or title
    name = f"{attack.split('/')[1]}-{target}-{seed}" + "-control" * control
    path = folder / "cells" / name
    path.mkdir(parents=True)
    rng = np.random.default_rng([len(label), len(target), seed, control])
    classes = np.repeat(np.arange(len(NAMES)), per_class)
    private, public = faces(len(NAMES), 1), faces(len(NAMES), 7)
    blend = np.clip(strength + rng.normal(0, 0.1, len(classes)), 0, 0.95)[:, None, None, None]
    candidates = blend * private[classes] + (1 - blend) * public[classes].mean(0)
    candidates = np.clip(candidates + rng.normal(0, 0.16 * (1 - strength), candidates.shape), 0, 1)
    easy = rng.uniform(-0.35, 0.35, len(NAMES))[classes]
    success = rng.random(len(classes)) < np.clip(strength + easy * (not control), 0.02, 1)
    np.savez_compressed(
        path / "candidates.npz", candidates=candidates.astype(np.float32), targets=classes,
        case_ids=np.arange(len(classes)), success=success, distance=rng.random(len(classes)),
    )  # fmt: skip
    n, steps = len(classes), np.arange(1, 61) * 25
    bad = 2 if attack == "image/gmi" and not control else 0
    distance = estimate(1.9 - strength, 1.8 - strength, 2.0 - strength, n, stronger="lower")
    queries = None
    if access != "WEIGHTS":
        queries = {"mean": 24_310.5, "max": 100_000, "training": 0}
        if access == "SCORES":
            queries = {"mean": 61_200.0, "max": 100_000, "training": 5_000}
    write_json(
        path / "cell.json",
        {
            "attack": attack, "label": label, "target": target, "seed": seed, "control": control,
            "card": {
                "title": title, "paper": "Some Authors, A Venue", "url": f"https://example.org/{attack}", "year": year,
                "modality": "image", "access": access, "recovers": recovers, "knows": knows,
            },
            "hyperparameters": {"steps": 1500, "rate": 0.02, "nesterov": True},
            "n": n, "seconds": 412.7 * (1 + strength), "queries": queries,
            "status": {"RUNNING": n - 12 - bad, "STOPPED": 12, "NONFINITE": bad},
            "metrics": {"attack_accuracy": share(success), "feature_distance": distance},
            "exhibits": [{"kind": "pictures"}],
            "curve": {"loss": (6 * np.exp(-steps / 500) + 3 * (1 - strength)).tolist(), "step": steps.tolist()},
        },
    )  # fmt: skip
    if done:
        write_json(path / "done.json", {})
    return path


def write_run(folder: pathlib.Path, full: bool = True) -> pathlib.Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("attack:\n- name: image/gmi\n  steps: 1500\nseed: 0\n", encoding="utf-8")
    write_json(
        folder / "environment.json",
        {
            "title": "Do face classifiers give away their faces?", "date": "2026-11-24", "jaxmia": "0.1.0",
            "command": "jaxmia attack configs/faces.yaml seed=0", "python": "3.11.7", "jax": "0.10.2",
            "flax": "0.12.8", "device": "cpu", "cpus": 2,
        },
    )  # fmt: skip
    target = {
        "dataset": "Drawn faces, 12 persons", "architecture": "convolution, 3 blocks", "granted": "WEIGHTS",
        "parameters": 184_220, "seconds": 73.2,
    }  # fmt: skip
    accuracy = estimate(0.958, 0.931, 0.979, 480, unit="share")
    lower = estimate(0.902, 0.868, 0.933, 480, unit="share")
    write_json(
        folder / "targets.json",
        [
            {"name": "plain", "defense": "", "test_accuracy": accuracy, **target},
            {"name": "bido", "defense": "BiDO, HSIC", "test_accuracy": lower, **target},
        ][: 2 if full else 1],
    )
    np.savez_compressed(
        folder / "truth.npz", private=faces(len(NAMES), 1), names=np.array(NAMES), nearest_public=faces(len(NAMES), 7)
    )
    for name, weaker in (("plain", 1.0), ("bido", 0.5)) if full else (("plain", 1.0),):
        for seed in (0, 1):
            write_cell(folder, "image/gmi", name, strength=0.82 * weaker, seed=seed)
        write_cell(folder, "image/brep_mi", name, strength=0.5 * weaker)
        write_cell(folder, "image/gmi", name, strength=0.03, control=True, label="GMI, shuffled labels")
        if full:
            write_cell(folder, "image/mi_face", name, strength=0.3 * weaker)
            write_cell(folder, "image/rlb_mi", name, strength=0.6 * weaker)
    write_json(
        folder / "tables.json",
        [
            {
                "title": "Attribute inversion", "note": "Accuracy of one hidden column of the census records.",
                "columns": ["method", "accuracy", "queries"], "controls": [1],
                "rows": [
                    ["confusion-weighted", estimate(0.71, 0.69, 0.73, 2000, unit="share"), 9],
                    ["most frequent value", estimate(0.66, 0.64, 0.68, 2000, unit="share"), None],
                ],
            }
        ],
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A complete run that no test changes."""
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="session")
def _small(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "run", full=False)


@pytest.fixture
def run(_small, tmp_path):
    """A smaller run, one target and four cells, to change and damage."""
    return pathlib.Path(shutil.copytree(_small, tmp_path / "run"))
