"""A PyTorch ResNet, trained in PyTorch, audited by `jaxmia audit` as its owner would: with its weights, and as a black box.

    pip install -e ".[torch,es]"
    python experiments/own_model.py          # about 25 minutes on two cores

20 people of ORL are the classes, at 32 pixels; 7 photos of each are private, 3 held out; 20 other people are public. Three
models of the same network: trained on the people's own labels, on shuffled labels, and not trained at all; and one with a
planted leak, which compares a picture with one memorized photo of each person. The leak must be "shown"; of the shuffled
and the untrained network nothing may be. Writes results/own_model.json: the verdicts of each audit, its queries, its time.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np
import record
from PIL import Image

from jaxmia.data import orl

HERE = pathlib.Path(__file__).resolve().parent
CLASSES, SIZE, SEED = 20, 32, 0
AUDITS = {  # model, and how much of it the adversary sees
    "trained, weights": ("trained", "weights"),
    "planted leak, scores": ("planted", "scores"),
    "shuffled labels, scores": ("shuffled", "scores"),
    "untrained, scores": ("untrained", "scores"),
    "trained, scores": ("trained", "scores"),
}
MODEL = '''"""The model of the audit."""

import functools
import pathlib
import sys

import jaxmia

sys.path.append({here!r})
WEIGHTS = pathlib.Path(__file__).parent / "{model}.pt"


@functools.cache
def module():
    import torch
    from own_model import network

    net = network({planted})
    net.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return net.eval()


def target():
    return jaxmia.from_torch(module(), classes={classes})


def predict(images):
    import torch

    with torch.no_grad():
        return module()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).softmax(1).numpy()


def labels(images):
    return predict(images).argmax(1)
'''


def network(planted: bool = False) -> Any:
    """A ResNet of three stages with BatchNorm, for gray pictures of 32 pixels; planted, what compares them with photos."""
    import torch
    from torch import nn

    class Memorized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.photos = nn.Parameter(torch.zeros(CLASSES, 1, SIZE, SIZE))

        def forward(self, x: Any) -> Any:
            return -200 * ((x[:, None] - self.photos) ** 2).mean((2, 3, 4))

    if planted:
        return Memorized()

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int):
            super().__init__()
            self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
            self.skip = nn.Conv2d(before, width, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norms[0](self.first(x)))
            return torch.relu(self.norms[1](self.second(y)) + self.skip(x))

    stages = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1), *stages, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, CLASSES)
    )


def pictures(root: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """ORL as folders of a user's; the private and held-out pictures, in the order of the folders, as arrays too."""
    photos, order = orl.load(SIZE, SIZE), sorted(range(CLASSES), key=lambda c: orl.NAMES[c])
    parts: dict[str, tuple[list, list]] = {"private": ([], []), "held_out": ([], []), "public": ([], [])}
    for row, (image, person) in enumerate(zip(photos.images, photos.labels)):
        part = "public" if person >= CLASSES else "private" if row % 10 < 7 else "held_out"
        file = root / part / orl.NAMES[person] / f"{row % 10}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(file)
        parts[part][0].append(image[..., 0])
        parts[part][1].append(order.index(person) if part != "public" else person)
    return {part: (np.stack(x)[:, None].astype(np.float32) / 255, np.array(y)) for part, (x, y) in parts.items()}


def trained(kind: str, parts: dict[str, Any], steps: int = 400) -> tuple[Any, float]:
    """The network, and its accuracy on the held-out pictures."""
    import torch

    torch.manual_seed(SEED)
    net, rng = network(kind == "planted"), np.random.default_rng(SEED)
    x, y = parts["private"]
    if kind == "planted":
        first = torch.from_numpy(np.stack([x[y == c][0] for c in range(CLASSES)]))
        net.photos = torch.nn.Parameter(first)
    if kind == "shuffled":
        y = rng.permutation(y)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps if kind in ("trained", "shuffled") else 0):
        rows = rng.choice(len(x), 32, replace=False)
        shift = rng.integers(-2, 3, 2)
        batch = np.roll(x[rows], shift, (2, 3))[..., :: int(rng.choice([-1, 1]))].copy()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(batch)), torch.from_numpy(y[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    held, truth = parts["held_out"]
    with torch.no_grad():
        return net, float((net(torch.from_numpy(held)).argmax(1).numpy() == truth).mean())


def audit(name: str, root: pathlib.Path) -> dict[str, Any]:
    """`jaxmia audit` of one model, as a command."""
    model, access = AUDITS[name]
    (root / f"{model}_model.py").write_text(
        MODEL.format(here=str(HERE), model=model, classes=CLASSES, planted=model == "planted")
    )
    target = {"name": "python", "make": f"{model}_model.py:target"}
    if access != "weights":
        function = "predict" if access == "scores" else "labels"
        target = {
            "name": "callable", "predict": f"{model}_model.py:{function}", "access": access, "version": model,
            "budget": 400_000,
        }  # fmt: skip
    data = {
        "name": "folders",
        **{part: part for part in ("private", "held_out", "public")},
        "size": SIZE,
        "channels": 1,
    }
    # JSON is YAML.
    (root / "audit.yaml").write_text(json.dumps({"data": data, "targets": target, "seed": SEED}))
    run, began = root / f"run_{model}_{access}", time.perf_counter()
    went_on = run.exists()
    command = [sys.executable, "-m", "jaxmia.cli", "audit", "audit.yaml", "--out", str(run)]
    subprocess.run(command, cwd=root, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    rows = json.loads((run / "tables.json").read_text())[0]["rows"]
    asked = run / "training" / "asked.txt"
    return {
        "minutes": None if went_on else round((time.perf_counter() - began) / 60, 1),
        "queries": sum(map(int, asked.read_text().split())) if asked.exists() else None,
        "warning": json.loads((run / "environment.json").read_text()).get("warning"),
        "verdicts": {
            f"{target}: {attack}, {metric}": {
                "value": [round(value[end], 3) for end in ("value", "low", "high")],
                "above the strongest control": [round(above[end], 3) for end in ("value", "low", "high")],
                "verdict": verdict,
            }
            for target, attack, _, metric, value, _, above, verdict in rows
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Audit a PyTorch model as its owner would.")
    parser.add_argument("--audits", nargs="+", choices=list(AUDITS), default=list(AUDITS))
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parent / "runs" / "own_model")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results")
    options = parser.parse_args()
    import torch

    began, report = time.perf_counter(), record.header(__file__, [SEED])
    file = options.output / "own_model.json"
    before = record.read(file) if file.exists() else {}
    report |= {name: before[name] for name in before if name in AUDITS or name.startswith("accuracy")}
    parts = pictures(options.root)
    for kind in dict.fromkeys(AUDITS[name][0] for name in options.audits):
        net, accuracy = trained(kind, parts)
        torch.save(net.state_dict(), options.root / f"{kind}.pt")
        report[f"accuracy, {kind}"] = round(accuracy, 3)
        print(kind, accuracy, flush=True)
    for name in options.audits:
        report[name] = audit(name, options.root)
        print(name, report[name], flush=True)
        record.write(report, began, options.output, "own_model")


if __name__ == "__main__":
    main()
