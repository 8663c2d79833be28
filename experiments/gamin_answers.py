"""Why GAMIN is at chance in image_attacks.py: what the target answers to what the attack asks.

    python experiments/gamin_answers.py      # a minute, and hours more where image_attacks.py has not run

GAMIN learns of the target from its answers to images of uniform noise and to what its generator paints. For each data set
and seed: the share of 1,000 images of noise that the target takes for the class it takes most of them for, which class
that is, and the shares of GAMIN's images that it takes for that class and for the wanted one. Writes
results/gamin_answers.json.
"""

import argparse
import pathlib
import time
from typing import Any

import jax
import numpy as np
import record
from orl import HERE, audit

from jaxmia import Access, config
from jaxmia.audit import schema
from jaxmia.audit.run import train


def answers(where: pathlib.Path, seed: int) -> dict[str, Any]:
    """Of one run folder."""
    resolved = config.load(where / "config.yaml", [], schema)
    (victim, *_), _, inputs = train(resolved, [where])
    ask = jax.jit(jax.vmap(victim.fitted.target.view(Access.LABELS).answer, (None, 0)))
    with np.load(where / "cells" / "convnet--gamin" / "candidates.npz", allow_pickle=False) as arrays:
        made, wanted = arrays["candidates"], arrays["targets"]
    key = jax.random.key(seed)
    noise = np.asarray(ask(key, jax.random.uniform(key, (1000, *made.shape[1:]))))
    painted, (classes, counts) = np.asarray(ask(key, made)), np.unique(noise, return_counts=True)
    usual = int(classes[counts.argmax()])
    return {
        "usual_class": inputs.data.names[usual],
        "noise_of_usual_class": float(np.mean(noise == usual)),
        "images_of_usual_class": float(np.mean(painted == usual)),
        "images_of_wanted_class": float(np.mean(painted == wanted)),
        "chance": round(1 / len(inputs.data.names), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the target answers to GAMIN.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="those of image_attacks.py")
    parser.add_argument("--runs", type=pathlib.Path, default=HERE.parent / "runs" / "image_attacks")
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "results")
    options = parser.parse_args()
    began, report = time.perf_counter(), record.header(__file__, options.seeds)
    for dataset in ("orl", "mnist"):
        for seed in options.seeds:
            where = audit(f"image_attacks_{dataset}_gamin", seed, options.runs)
            report[f"{dataset}, seed {seed}"] = answers(where, seed)
            print(dataset, seed, report[f"{dataset}, seed {seed}"], flush=True)
    record.write(report, began, options.output, "gamin_answers")


if __name__ == "__main__":
    main()
