"""What the engine costs: descent on pixels as a `Process` under `jaxmia.solve`, against a bare loop of a jitted step.

    python experiments/benchmarks/engine_overhead.py

Same network, same convolution, same mathematics (x <- clip(x - 0.1 grad (1 - p_y(x)), 0, 1) from gray, so no case stops
early); the engine runs with its progress bar and with a checkpoint every second. Both are timed for `steps` and for
twice as many, in turn, `rounds` times; the seconds of one step are the difference over `steps`, so that compiling, which
the bare loop has done before, drops out. `fixed` is what is left of the engine's time: tracing, compiling, reading out.
Read the ratio; absolute times depend on the machine and its load. Writes results/engine_overhead.json.
"""

import argparse
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EXPERIMENTS = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(EXPERIMENTS))
import record  # noqa: E402

from jaxmia import Access, Plan, Process, from_linen, info, solve  # noqa: E402
from jaxmia.models import MLP, VGG  # noqa: E402

SHAPE, CLASSES = (28, 28, 1), 10
NETWORKS = {
    "mlp": (MLP(CLASSES, width=300), 400),
    "convnet": (VGG(CLASSES, stages=((16,), (32,)), hidden=128), 20),
}


def bare(module: Any, variables: Any, labels: np.ndarray) -> Callable[[int], Any]:
    """`steps -> images`: a Python loop over one jitted step of all cases, as one would write it by hand."""

    def cost(images: Any) -> Any:
        confidence = jax.nn.softmax(module.apply(variables, images))
        return jnp.sum(1 - jnp.take_along_axis(confidence, labels[:, None], 1))

    @jax.jit
    def step(images: Any) -> Any:
        return jnp.clip(images - 0.1 * jax.grad(cost)(images), 0, 1)

    def run(steps: int) -> Any:
        images = jnp.full((len(labels), *SHAPE), 0.5)
        for _ in range(steps):
            images = step(images)
        return jax.block_until_ready(images)

    return run


def engine(module: Any, variables: Any, labels: np.ndarray) -> Callable[[int], Any]:
    """`steps -> images`: the same as a process of one case."""
    oracle = from_linen(module, variables, classes=CLASSES).view(Access.WEIGHTS)

    def step(key: Any, image: Any, label: Any) -> Any:
        cost, slope = jax.value_and_grad(lambda x: 1 - jax.nn.softmax(oracle.answer(key, x))[label])(image)
        return jnp.clip(image - 0.1 * slope, 0, 1), info(cost)

    process = Process(lambda key, label: jnp.full(SHAPE, 0.5), step, lambda image: image)

    def run(steps: int) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(chunk=len(labels), save_seconds=1.0, devices=tuple(jax.devices()[:1]))
            return solve(process, jax.random.key(0), labels, steps=steps, plan=plan, folder=folder).output

    return run


def seconds(run: Callable[[int], Any], steps: int) -> float:
    began = time.perf_counter()
    run(steps)
    return time.perf_counter() - began


def compare(name: str, cases: int, rounds: int) -> dict[str, Any]:
    """Seconds of one step of both in every round, and the ratio."""
    module, steps = NETWORKS[name]
    steps = max(steps * 100 // cases, 10)
    labels = (np.arange(cases) % CLASSES).astype(np.int32)
    variables = module.init(jax.random.key(1), jnp.zeros((1, *SHAPE)))
    rivals = {"bare": bare(module, variables, labels), "engine": engine(module, variables, labels)}
    found = {which: np.asarray(run(steps)) for which, run in rivals.items()}
    each: dict[str, list[float]] = {which: [] for which in rivals}
    fixed = []
    for _ in range(rounds):
        for which, run in rivals.items():
            once, twice = seconds(run, steps), seconds(run, 2 * steps)
            each[which].append((twice - once) / steps)
            if which == "engine":
                fixed.append(2 * once - twice)
    ratios = np.array(each["engine"]) / np.array(each["bare"])
    medians = {which: float(np.median(values)) for which, values in each.items()}
    return {
        "cases": cases,
        "steps": steps,
        "milliseconds_per_step": {which: round(1e3 * value, 4) for which, value in medians.items()},
        "ratio_of_medians": round(medians["engine"] / medians["bare"], 3),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).round(3).tolist(),
        "fixed_seconds": round(float(np.median(fixed)), 2),
        "largest_difference_of_images": float(np.abs(found["bare"] - found["engine"]).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Engine against a bare loop of the same mathematics.")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds, at least 5")
    parser.add_argument("--output", type=pathlib.Path, default=EXPERIMENTS / "results")
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error(f"--rounds: {options.rounds}; legal is 5 or more")
    began = time.perf_counter()
    report = record.header(__file__, 1) | {"rounds": options.rounds}
    for name in NETWORKS:
        for cases in (100, 1000):
            report[f"{name}, {cases} cases"] = one = compare(name, cases, options.rounds)
            print(name, cases, one, flush=True)
    record.write(report, began, options.output, "engine_overhead")


if __name__ == "__main__":
    main()
