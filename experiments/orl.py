"""Four attacks on four targets trained on ORL faces, over several seeds, beside their controls; three under defenses.

    python experiments/orl.py

Writes results/orl.json; the run folders, with their reports, are in --runs and hold all pictures. What was finished
before an interruption is found there. People s1-s20 are private, s21-s40 public; a seed draws the photos that train,
the networks and the attacks. See configs/orl.yaml for the settings.

Rows: attack x target; `shuffled` is the same on a target trained on shuffled labels; `nearest_public` is no attack but,
for each person, the public photo nearest in pixels to one of the private ones, chosen with the truth in hand;
`mi_face_code` is MI-Face on the autoencoder's code, the 300 numbers before the softmax, decoded in the end, and
`process_dae` the same as the 2015 paper runs it: each step followed by decoding, denoising (a 3 x 3 median in place of
its non-local means), sharpening (unsharp mask) and encoding again.

Figures: share of people whom an evaluator names from the reconstruction (attack accuracy at 1), mean over seeds with a
95 % bootstrap interval over the 20 people, each person's seeds kept together; `over_nearest_public` is the paired
difference to `nearest_public`. Evaluators: `group_norm_cnn` and
`vgg_hard`, trained on the same private photos with blur, noise and uneven light added (the latter is of one family
with the target `convnet`), and `face_embedding`, pretrained elsewhere, by the nearest private photo.
"""

import argparse
import pathlib
import time
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import record

from jaxmia import Access, Outputs, Plan, Scenario, Target, config, run
from jaxmia.attacks.image.mi_face import mi_face
from jaxmia.audit import folder, schema
from jaxmia.audit import run as auditing
from jaxmia.audit.assembly import check, load
from jaxmia.metrics.estimate import bootstrap, difference
from jaxmia.modalities.image.judging import judge_candidates

HERE = pathlib.Path(__file__).parent
CONFIGS = HERE.parent / "configs"
PEOPLE, NOTHING = 20, "baseline--nearest_public"
KEEP = ("attack_accuracy@1", "knn_distance", "ssim", "psnr")


def audit(name: str, seed: int, runs: pathlib.Path) -> pathlib.Path:
    """One configuration with one seed, run or found."""
    overrides = [f"seed={seed}", f"data.split_seed={seed}"]
    resolved = config.load(CONFIGS / f"{name}.yaml", overrides, schema)
    data = check(resolved)
    command = f"experiments/orl.py, {name}, seed {seed}"
    where = folder.open_run(runs / f"{name}-{seed}", resolved, command, data.contents)
    failed = auditing.audit([(resolved, where)], None, data)
    if failed:
        raise FloatingPointError(failed[where])
    return where


def cells(where: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Per-case metrics and targets of every cell."""
    out = {}
    for cell in sorted((where / "cells").iterdir()):
        with np.load(cell / "candidates.npz", allow_pickle=False) as arrays:
            out[cell.name] = {
                name.removeprefix("metric:"): arrays[name]
                for name in arrays.files
                if name == "targets" or name.removeprefix("metric:").startswith(KEEP)
            }
    return out


def on_the_code(where: pathlib.Path, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """MI-Face on the code of the autoencoder that the audit trained, without and with the paper's Process-DAE."""
    resolved = config.load(where / "config.yaml", [], schema)
    scene = load(resolved)
    trained, panel, _ = auditing.train(resolved, [where], data=scene)
    found = next(one.fitted for one in trained if one.job.name == "autoencoder")
    module, variables = found.module, found.target.params

    def show(code: Any) -> Any:
        return module.apply(variables, code[None], method="decode")[0]

    def process(code: Any) -> Any:
        picture = show(code)
        shifts = [jnp.roll(picture, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        smooth = jnp.median(jnp.stack(shifts), 0)
        sharp = jnp.clip(2 * smooth - dm_pix.gaussian_blur(smooth, 1.0, kernel_size=5), 0, 1)
        return module.apply(variables, sharp[None], method="encode")[0]

    def classify(variables: Any, code: Any) -> Outputs:
        return Outputs(module.apply(variables, code[None], method="classify")[0], {})

    target = Target(classify, variables, classes=len(scene.names))
    people = np.arange(len(scene.names), dtype=np.int32)
    out = {}
    for name, each in (("mi_face_code", None), ("process_dae", process)):
        attack = mi_face(
            target.view(Access.WEIGHTS), (module.hidden[-1],), alpha=300, start=0.5, rate=1.0, process=each
        )
        codes = run(attack, jax.random.key(seed), Scenario(target, people), plan=Plan(progress=False)).output
        pictures = np.asarray(jax.vmap(show)(codes))
        _, per_case = judge_candidates(panel.judges, pictures, people, np.zeros(len(people), bool))
        folder.write_npz(where / f"{name}.npz", candidates=pictures)
        kept = {metric: values for metric, values in per_case.items() if metric.startswith(KEEP)}
        out[f"autoencoder--{name}"] = kept | {"targets": people}
    return out


def pooled(seeds: list[dict[str, np.ndarray]], without: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Each metric over all seeds, and what the attack accuracy exceeds that of no attack by; intervals over people."""
    people = np.concatenate([one["targets"] for one in seeds])
    out: dict[str, Any] = {}
    for name in seeds[0]:
        if name == "targets":
            continue
        values = np.concatenate([one[name] for one in seeds])
        kept = np.isfinite(values)
        metric, _, judge = name.partition(" [")
        estimate = record.interval(bootstrap(values[kept], people[kept]))
        out.setdefault(judge.rstrip("]") or "pairs", {})[metric] = estimate
        if metric == "attack_accuracy@1":
            nearest = np.concatenate([one[name] for one in without])
            excess = difference(values, nearest, people)
            out[judge.rstrip("]")]["over_nearest_public"] = record.interval(excess)
    return out


def queries(folders: list[pathlib.Path], cell: str, which: str) -> float | None:
    """Mean over seeds of the queries in "training", once for all cases, or the "mean" per case on top; None: white box."""
    files = [where / "cells" / cell / "cell.json" for where in folders]
    asked = [record.read(file)["queries"] for file in files if file.exists()]
    return round(float(np.mean([one[which] for one in asked])), 1) if asked and None not in asked else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Attacks on ORL faces, their controls, and three defenses.")
    parser.add_argument("--seeds", type=int, default=3, help="splits, trainings and attacks, at least 1")
    parser.add_argument("--runs", type=pathlib.Path, default=HERE.parent / "runs" / "orl")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds: {options.seeds}; legal is 1 or more")
    began = time.perf_counter()
    report: dict[str, Any] = record.header(__file__, range(options.seeds)) | {"people": PEOPLE}
    for name in ("orl", "orl_defenses"):
        folders = [audit(name, seed, options.runs) for seed in range(options.seeds)]
        found = [cells(where) for where in folders]
        if name == "orl":
            for seed, where in enumerate(folders):
                found[seed] |= on_the_code(where, seed)
        records = [{r["name"]: r for r in record.read(where / "targets.json")} for where in folders]
        report[name] = {
            "targets": {
                target: {
                    "test_accuracy": [round(one[target]["test_accuracy"]["value"], 4) for one in records],
                    "defense": records[0][target]["defense"],
                }
                for target in records[0]
            },
            "evaluators": {
                judge["name"]: [round(j["test_accuracy"]["value"], 4) for j in column]
                for column in zip(*(record.read(where / "evaluators.json") for where in folders))
                for judge in column[:1]
            },
            "cells": {
                cell: {
                    "queries_in_training": queries(folders, cell, "training"),
                    "queries_per_case": queries(folders, cell, "mean"),
                    **pooled([one[cell] for one in found], [one[NOTHING] for one in found]),
                }
                for cell in found[0]
            },
        }
        for cell, judges in report[name]["cells"].items():
            named = {judge: values for judge, values in judges.items() if isinstance(values, dict) and judge != "pairs"}
            shown = {judge: values["attack_accuracy@1"] for judge, values in named.items()}
            print(
                f"{cell:45}", *(f"{judge} {v:.2f} [{low:.2f}, {high:.2f}]" for judge, (v, low, high) in shown.items())
            )
    record.write(report, began, options.output, "orl")


if __name__ == "__main__":
    main()
