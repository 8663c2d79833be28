"""Every image attack on ORL faces and on MNIST digits, over several seeds, each beside its control: one table.

    python experiments/image_attacks.py      # hours on two cores; what was finished before is found again

Writes results/image_attacks.csv (a row per data set, target and attack), results/image_attacks.json (the orderings that
papers claim) and for each data set a picture, attacks x classes; run folders with reports and all pictures are in --runs.
A seed draws the photos that train, the networks and the attacks. Settings: configs/image_attacks_orl.yaml and _mnist.yaml,
for a vision transformer, which SMI needs, _orl_vit.yaml and _mnist_vit.yaml, and for GAMIN, whose cases a CPU takes one by
one, _orl_gamin.yaml and _mnist_gamin.yaml; in sizes for a CPU, so a row tells of the attack at that size and not of the
numbers of its paper. With --gpu it is the attacks of the orderings alone, without controls, in
configs/image_attacks_orl_gpu.yaml and _mnist_gpu.yaml. Attacks that need another scene are in particular_images.py.

`accuracy` is the share of cases that an evaluator gives the wanted class, mean over seeds, with a 95 % bootstrap
interval over classes, each class's seeds kept together; `control` is the same on a target of shuffled labels;
`beats_control` says whether the intervals are apart. `nearest_public` is no attack but the public image nearest in pixels
to a private one. `seconds_per_case` is that of the fastest seed, since others may have shared the cores. An evaluator
confirms or refutes an ordering where the paired difference of accuracies has one sign over its whole interval, else it
leaves it undecided.
"""

import argparse
import pathlib
import time
from typing import Any

import numpy as np
import record
from orl import HERE, NOTHING, audit, cells
from PIL import Image, ImageDraw

from jaxmia.metrics.estimate import bootstrap, difference

ORDERINGS = (  # weaker, stronger, who claims it
    ("gmi", "ked_mi", "KED-MI"),
    ("ked_mi", "plg_mi", "PLG-MI"),
    ("gmi", "lomma_gmi", "LOMMA"),
    ("ked_mi", "lomma_ked_mi", "LOMMA"),
    ("gmi", "align_mi_gmi", "AlignMI"),
    ("ppa-2", "ppa", "PPA, with its final selection over without"),
    ("brep_mi", "gmi", "BREP-MI, labels below weights"),
    ("brep_mi", "lokt", "LOKT"),
    ("rlb_mi", "gmi", "RLB-MI, scores below weights"),
)


def judges_of(cell: dict[str, np.ndarray]) -> list[str]:
    """Names of the evaluators that judged a cell."""
    return [name.partition(" [")[2].rstrip("]") for name in cell if name.startswith("attack_accuracy@1")]


def pooled(seeds: list[dict[str, np.ndarray]], metric: str) -> Any:
    """One metric over all seeds, with its interval over classes."""
    values, classes = np.concatenate([one[metric] for one in seeds]), np.concatenate([one["targets"] for one in seeds])
    kept = np.isfinite(values)
    return bootstrap(values[kept], classes[kept]) if kept.any() else None


def row(dataset: str, cell: str, folders: list[pathlib.Path], found: list[dict[str, dict]]) -> dict[str, Any]:
    """What the table says of one attack on one target."""
    target, _, name = cell.partition("--")
    records = [record.read(where / "cells" / cell / "cell.json") for where in folders]
    seeds, controls = [one[cell] for one in found], [one.get(f"{target}-shuffled--{name}") for one in found]
    queries = [one["queries"] for one in records if one["queries"]]
    out = {
        "dataset": dataset,
        "target": "" if cell == NOTHING else target,
        "attack": name,
        "title": records[0]["label"],
        "access": records[0]["card"]["access"],
        "knows": records[0]["card"]["knows"],
        "settings": "; ".join(f"{key}={value}" for key, value in records[0]["hyperparameters"].items()),
        "cases": sum(len(one["targets"]) for one in seeds),
        # What training asked, it asked once for all cases; what each of them asks comes on top.
        "queries_in_training": round(float(np.mean([one["training"] for one in queries])), 1) if queries else "",
        "queries_per_case": round(float(np.mean([one["mean"] for one in queries])), 1) if queries else "",
        "seconds_per_case": round(min(one["seconds"] / one["n"] for one in records), 2),
    }
    for judge in judges_of(seeds[0]):
        metric = f"attack_accuracy@1 [{judge}]"
        estimate = pooled(seeds, metric)
        for part, value in zip(("accuracy", "low", "high"), record.interval(estimate)):
            out[f"{part} [{judge}]"] = value
        if controls[0] is not None:
            control = pooled(controls, metric)
            for part, value in zip(("control", "control_low", "control_high"), record.interval(control)):
                out[f"{part} [{judge}]"] = value
            out[f"beats_control [{judge}]"] = estimate.low > control.high
        out[f"knn_distance [{judge}]"] = round(pooled(seeds, f"knn_distance [{judge}]").value, 3)
        for metric in ("frechet_distance", "precision", "recall", "density", "coverage"):
            known = [
                one["metrics"][f"{metric} [{judge}]"]["value"]
                for one in records
                if f"{metric} [{judge}]" in one["metrics"]
            ]
            out[f"{metric} [{judge}]"] = round(float(np.mean(known)), 3) if known else ""
    for metric in ("ssim", "psnr"):
        if metric in seeds[0]:
            out[metric] = round(pooled(seeds, metric).value, 3)
    return out


def ordering(target: str, weaker: str, stronger: str, found: list[dict[str, dict]]) -> dict[str, Any]:
    """By evaluator, how much more accurate the second attack is on the same cases, with what that says."""
    first, second = ([one[f"{target}--{name}"] for one in found] for name in (weaker, stronger))
    out, said = {}, {1: "confirmed", -1: "refuted", 0: "undecided"}
    for judge in judges_of(first[0]):
        metric = f"attack_accuracy@1 [{judge}]"
        a, b = (np.concatenate([one[metric] for one in side]) for side in (first, second))
        gain = difference(b, a, np.concatenate([one["targets"] for one in first]))
        out[judge] = [*record.interval(gain), said[1 if gain.low > 0 else -1 if gain.high < 0 else 0]]
    return out


def sheet(files: dict[str, pathlib.Path], columns: int = 8) -> Image.Image:
    """Images of the first classes, a row for every file: private ones, or what an attack made, named on the left."""
    strips = []
    for name, file in files.items():
        with np.load(file, allow_pickle=False) as arrays:
            images = arrays["private" if name == "private" else "candidates"]
        strips.append(np.concatenate(list(np.clip(images[:columns, ..., 0], 0, 1)), 1))
    (tall, wide), left = strips[0].shape, 130
    picture = Image.new("L", (left + wide, (tall + 2) * len(strips)), 255)
    for line, (name, strip) in enumerate(zip(files, strips)):
        picture.paste(Image.fromarray((255 * strip).round().astype(np.uint8)), (left, line * (tall + 2)))
        ImageDraw.Draw(picture).text((2, line * (tall + 2) + tall // 2 - 6), name, fill=0)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description="Every image attack on ORL and MNIST, beside its control.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of splits, trainings and attacks")
    parser.add_argument("--datasets", nargs="+", default=["orl", "mnist"], choices=["orl", "mnist"])
    parser.add_argument("--gpu", action="store_true", help="fewer attacks, with GANs in sizes for a GPU")
    parser.add_argument("--runs", type=pathlib.Path, default=HERE.parent / "runs" / "image_attacks")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results")
    options = parser.parse_args()
    if min(options.seeds) < 0:
        parser.error(f"--seeds: {min(options.seeds)}; legal is 0 or more")
    began = time.perf_counter()
    report, rows = record.header(__file__, options.seeds), []
    size = "_gpu" if options.gpu else ""
    for dataset in options.datasets:
        files: dict[str, pathlib.Path] = {}
        report[dataset] = {}
        for kind in ("_gpu",) if options.gpu else ("", "_vit", "_gamin"):
            folders = [audit(f"image_attacks_{dataset}{kind}", seed, options.runs) for seed in options.seeds]
            found, first = [cells(where) for where in folders], folders[0] / "cells"
            target = record.read(folders[0] / "targets.json")[0]["name"]
            names = [cell.partition("--")[2] for cell in found[0] if cell.startswith(f"{target}--")]
            if not files:
                rows.append(row(dataset, NOTHING, folders, found))
                files = {"private": folders[0] / "truth.npz", "nearest_public": first / NOTHING / "candidates.npz"}
            rows += [row(dataset, f"{target}--{name}", folders, found) for name in names]
            report[dataset] |= {
                f"{stronger} over {weaker} ({who})": ordering(target, weaker, stronger, found)
                for weaker, stronger, who in ORDERINGS
                if weaker in names and stronger in names
            }
            files |= {
                f"{name} on {target}" if name in files else name: first / f"{target}--{name}" / "candidates.npz"
                for name in names
            }
        options.output.mkdir(parents=True, exist_ok=True)
        sheet(files).save(options.output / f"image_attacks_{dataset}{size}.png")
    record.write_rows(rows, options.output, f"image_attacks{size}")
    record.write(report, began, options.output, f"image_attacks{size}")


if __name__ == "__main__":
    main()
