"""Ten thousand candidates of GMI on 64 pixels in one command: does memory grow, and is the time left told rightly?

    python experiments/benchmarks/many_candidates.py

GMI (one restart) through the generator and critic of its paper at a quarter of their width, against a convnet of 64 pixels,
random weights, `steps` iterations, in the default chunks; each number of candidates is a process of its own. Reported
are the peak of resident memory over that of the same process before it solves, beside the bytes of the results, and
every line of progress: when it was shown, the seconds it promised, and the seconds that were really left. Goals: beyond
the results memory does not depend on the number of candidates; promises after the first minute are right within 20 %.
Writes results/many_candidates.json.
"""

import argparse
import json
import pathlib
import re
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

EXPERIMENTS = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(EXPERIMENTS))
import record  # noqa: E402

SHAPE, CLASSES, LATENT = (64, 64, 3), 100, 100
LINE = re.compile(r"many: .*, (?:(\d+):)?(\d+):(\d+) left")


def solve_many(cases: int, steps: int) -> None:
    """The worker: solves, and prints its memory as JSON."""
    import jax
    import jax.numpy as jnp

    from jaxmia import Access, attacks, from_linen, solve
    from jaxmia.models import VGG, DCGenerator, WGANCritic
    from jaxmia.priors import latent

    generator, critic = DCGenerator(width=16), WGANCritic(width=16)
    target = VGG(CLASSES, stages=((16,), (32,), (64,)), hidden=64)
    keys = jax.random.split(jax.random.key(0), 3)
    g, c = generator.init(keys[0], jnp.zeros((1, LATENT))), critic.init(keys[1], jnp.zeros((1, *SHAPE)))
    t = target.init(keys[2], jnp.zeros((1, *SHAPE)))
    prior = latent(lambda z: generator.apply(g, z), LATENT, realism=lambda x: critic.apply(c, x))
    oracle = from_linen(target, t, classes=CLASSES).view(Access.WEIGHTS)
    attack = attacks.get("image/gmi").factory(oracle, prior, restarts=1, steps=steps)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    print(json.dumps({"began": time.time()}), flush=True)
    result = solve(attack.solve(()), jax.random.key(1), np.arange(cases, dtype=np.int32) % CLASSES, title="many")
    told = {
        "seconds": round(time.monotonic() - began, 1),
        "mebibytes_of_results": round(sum(leaf.nbytes for leaf in jax.tree.leaves(result)) / 2**20, 1),
        "mebibytes_more_at_the_peak": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10, 1),
    }
    print(json.dumps(told), flush=True)


def measure(cases: int, steps: int) -> dict[str, Any]:
    """One process, its memory, and how its promises turned out."""
    command = [sys.executable, __file__, "--worker", str(cases), "--steps", str(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stdout is not None
    lines = [(time.time(), line) for line in process.stderr]
    first, last = (json.loads(line) for line in process.stdout)
    if process.wait() != 0:
        raise RuntimeError("".join(line for _, line in lines))
    end = first["began"] + last["seconds"]
    promises = []
    for when, line in lines:
        if found := LINE.search(line):
            hours, minutes, seconds = (int(part or 0) for part in found.groups())
            promised, left = 3600 * hours + 60 * minutes + seconds, end - when
            promises.append({"at": round(when - first["began"]), "promised": promised, "left": round(left)})
    late = [p for p in promises if p["at"] >= 60 and p["left"] >= 10]
    errors = [abs(p["promised"] - p["left"]) / p["left"] for p in late]
    print(cases, last, promises, flush=True)
    return last | {
        "mebibytes_beyond_results": round(last["mebibytes_more_at_the_peak"] - last["mebibytes_of_results"], 1),
        "promises": [list(p.values()) for p in promises],
        "largest_error_of_a_promise_after_a_minute": round(max(errors), 3) if errors else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and promised time of 10,000 candidates.")
    parser.add_argument("--cases", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=pathlib.Path, default=EXPERIMENTS / "results")
    options = parser.parse_args()
    if options.worker is not None:
        solve_many(options.worker, options.steps)
        return
    began = time.perf_counter()
    report = record.header(__file__, [0]) | {"steps": options.steps}
    for cases in options.cases:
        report[f"{cases} candidates"] = measure(cases, options.steps)
    record.write(report, began, options.output, "many_candidates")


if __name__ == "__main__":
    main()
