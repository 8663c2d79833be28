"""Sixteen settings of one attack: one jaxmia program against sixteen jits, compiling included.

    python experiments/benchmarks/sweep.py

MI-Face with momentum and a penalty on the pixels, 4 rates x 2 momenta x 2 penalties, N cases each, on the same network
with random weights. Compared are, from cleared caches, in turn, `rounds` times:

- `jits`: what one writes by hand, a jitted step per setting with its numbers built in (compiled with jaxmia's options),
  driven by a Python loop;
- `traced`: one jitted step whose numbers are arguments, driven once per setting;
- `jaxmia`: `recipes.swept` under `jaxmia.solve`, all settings x cases as one program.

Seconds are wall clock from the first call to the last image on the host. Goals: at N = 10 a quarter of the time of
`jits`, at N = 100 half of it (perceptron). Writes results/sweep.json.
"""

import argparse
import itertools
import pathlib
import sys
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
from jaxmia.compiling import jit  # noqa: E402
from jaxmia.models import MLP, VGG  # noqa: E402
from jaxmia.recipes import swept  # noqa: E402

SHAPE, CLASSES = (28, 28, 1), 10
NETWORKS = {
    "mlp": (MLP(CLASSES, width=300), 200, (10, 100)),
    "convnet": (VGG(CLASSES, stages=((16,), (32,)), hidden=128), 50, (10,)),
}
SETTINGS = [
    {"rate": rate, "momentum": momentum, "penalty": penalty}
    for rate, momentum, penalty in itertools.product((0.03, 0.1, 0.3, 1.0), (0.0, 0.9), (0.0, 1e-3))
]


def hand_written(module: Any, variables: Any, labels: np.ndarray, steps: int, traced: bool) -> Callable[[], np.ndarray]:
    """Images `[settings, cases, ...]` by a Python loop over settings and steps."""

    def step(images: Any, speed: Any, rate: Any, momentum: Any, penalty: Any) -> Any:
        def cost(images: Any) -> Any:
            confidence = jax.nn.softmax(module.apply(variables, images))
            return jnp.sum(1 - jnp.take_along_axis(confidence, labels[:, None], 1)) + penalty * jnp.sum(images**2)

        speed = momentum * speed - rate * jax.grad(cost)(images)
        return jnp.clip(images + speed, 0, 1), speed

    def run() -> np.ndarray:
        once, found = jit(step), []
        for setting in SETTINGS:
            if not traced:
                once = jit(lambda images, speed, setting=setting: step(images, speed, **setting))
            numbers = setting if traced else {}
            images = jnp.full((len(labels), *SHAPE), 0.5)
            speed = jnp.zeros_like(images)
            for _ in range(steps):
                images, speed = once(images, speed, **numbers)
            found.append(np.asarray(images))
        return np.stack(found)

    return run


def one_program(module: Any, variables: Any, labels: np.ndarray, steps: int) -> Callable[[], np.ndarray]:
    """The same by one sweep."""
    oracle = from_linen(module, variables, classes=CLASSES).view(Access.WEIGHTS)

    def make(settings: Any) -> Process:
        def step(key: Any, state: Any, label: Any) -> Any:
            def cost(image: Any) -> Any:
                confidence = jax.nn.softmax(oracle.answer(key, image))[label]
                return 1 - confidence + settings["penalty"] * jnp.sum(image**2)

            image, speed = state
            value, slope = jax.value_and_grad(cost)(image)
            speed = settings["momentum"] * speed - settings["rate"] * slope
            return (jnp.clip(image + speed, 0, 1), speed), info(value)

        return Process(lambda key, label: (jnp.full(SHAPE, 0.5), jnp.zeros(SHAPE)), step, lambda state: state[0], steps)

    def run() -> np.ndarray:
        n = len(labels)
        numbers = {key: np.repeat(np.float32([one[key] for one in SETTINGS]), n) for key in SETTINGS[0]}
        cases, ids = (numbers, np.tile(labels, len(SETTINGS))), np.tile(np.arange(n), len(SETTINGS))
        plan = Plan(progress=False, devices=tuple(jax.devices()[:1]))
        found = solve(swept(make, steps), jax.random.key(0), cases, ids=ids, plan=plan).output
        return found.reshape(len(SETTINGS), n, *SHAPE)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep of numbers as one program against one jit per setting.")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, at least 5")
    parser.add_argument("--output", type=pathlib.Path, default=EXPERIMENTS / "results")
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error(f"--rounds: {options.rounds}; legal is 5 or more")
    began = time.perf_counter()
    report = record.header(__file__, [0]) | {"rounds": options.rounds, "settings": len(SETTINGS)}
    for name, (module, steps, sizes) in NETWORKS.items():
        variables = module.init(jax.random.key(1), jnp.zeros((1, *SHAPE)))
        for cases in sizes:
            labels = (np.arange(cases) % CLASSES).astype(np.int32)
            rivals = {
                "jits": hand_written(module, variables, labels, steps, traced=False),
                "traced": hand_written(module, variables, labels, steps, traced=True),
                "jaxmia": one_program(module, variables, labels, steps),
            }
            seconds: dict[str, list[float]] = {which: [] for which in rivals}
            found = {}
            for _ in range(options.rounds):
                for which, run in rivals.items():
                    jax.clear_caches()
                    start = time.perf_counter()
                    found[which] = run()
                    seconds[which].append(time.perf_counter() - start)
            ratios = np.array(seconds["jits"]) / np.array(seconds["jaxmia"])
            medians = {which: float(np.median(times)) for which, times in seconds.items()}
            report[f"{name}, {cases} cases, {steps} steps"] = one = {
                "seconds": {which: round(value, 3) for which, value in medians.items()},
                "jits_over_jaxmia": round(medians["jits"] / medians["jaxmia"], 2),
                "quartiles": np.quantile(ratios, [0.25, 0.75]).round(2).tolist(),
                "traced_over_jaxmia": round(medians["traced"] / medians["jaxmia"], 2),
                "largest_difference_of_images": float(np.abs(found["jits"] - found["jaxmia"]).max()),
            }
            print(name, cases, one, flush=True)
    record.write(report, began, options.output, "sweep")


if __name__ == "__main__":
    main()
