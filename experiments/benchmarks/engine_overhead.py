"""What the engine costs: descent on pixels as a `Process` under `jaxmia.solve`, against a bare loop of a jitted step.

    python experiments/benchmarks/engine_overhead.py      # about 7 minutes, on idle cores

Same network (784-300-10, and two 5x5 convolutions with max-pool), same convolution and compiler, same mathematics: x <-
clip(x - 0.1 grad (1 - p_y(x)), 0, 1) from gray, with the cost of every case, so no case stops early; all cases in one
batch. The engine runs with its progress bar (plain lines) and with a checkpoint every second. Compared are seconds of
one step; compiling, tracing, reading out and storing the result are not in it and told as `once_seconds`, where compiled
programs are found in a cache. `bare_vmap` is the bare loop with the step of one case under vmap, which is what the engine
maps: what lies between `bare` and `bare_vmap` is the price of writing attacks for one case, the rest that of the engine.
Read the ratios; absolute times depend on the machine and its load. Writes results/engine_overhead.json.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from rounds import Rival, against, arguments, begin, compare, record

from jaxmia import Access, Plan, Process, from_linen, info, solve
from jaxmia.compiling import jit
from jaxmia.models import MLP
from jaxmia.models.convolution import Conv
from jaxmia.models.pooling import max_pool

SHAPE, CLASSES = (28, 28, 1), 10


class ConvNet(nn.Module):
    """Two 5x5 convolutions with ReLU and max-pool, one hidden layer."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits."""
        for width in (16, 32):
            x = max_pool(nn.relu(Conv(width, (5, 5))(x)))
        return nn.Dense(CLASSES)(nn.relu(nn.Dense(128)(x.reshape(len(x), -1))))


NETWORKS = {"mlp": MLP(CLASSES, width=300), "convnet": ConvNet()}
STEPS = {  # network, cases: few and many steps (up to 50, or a multiple, the block of the engine)
    ("mlp", 100): (50, 2050),
    ("mlp", 1000): (50, 300),
    ("convnet", 100): (10, 100),
    ("convnet", 1000): (2, 12),
}


def bare(module: Any, variables: Any, labels: np.ndarray, mapped: bool) -> Callable[[int], Any]:
    """`steps -> images`: a Python loop over one jitted step of all cases, as one would write it by hand."""

    def cost_of_all(images: Any) -> Any:
        confidence = jax.nn.softmax(module.apply(variables, images))
        costs = 1 - jnp.take_along_axis(confidence, labels[:, None], 1)[:, 0]
        return jnp.sum(costs), costs

    def cost_of_one(image: Any, label: Any) -> Any:
        return 1 - jax.nn.softmax(module.apply(variables, image[None])[0])[label]

    @jit
    def step(images: Any) -> Any:
        if mapped:
            costs, slope = jax.vmap(jax.value_and_grad(cost_of_one))(images, labels)
        else:
            (_, costs), slope = jax.value_and_grad(cost_of_all, has_aux=True)(images)
        return jnp.clip(images - 0.1 * slope, 0, 1), costs

    def run(steps: int) -> Any:
        images = jnp.full((len(labels), *SHAPE), 0.5)
        for _ in range(steps):
            images, _ = step(images)
        return jax.block_until_ready(images)

    return run


def engine(module: Any, variables: Any, labels: np.ndarray) -> Callable[[int], Any]:
    """`steps -> images`: the same as a process of one case."""
    oracle = from_linen(module, variables, classes=CLASSES).view(Access.WEIGHTS)

    def step(key: Any, image: Any, label: Any) -> Any:
        cost, slope = jax.value_and_grad(lambda x: 1 - jax.nn.softmax(oracle.answer(key, x))[label])(image)
        return jnp.clip(image - 0.1 * slope, 0, 1), info(cost)

    process = Process(lambda key, label: jnp.full(SHAPE, 0.5), step, lambda image: image)
    plan = Plan(chunk=len(labels), save_seconds=1.0, devices=tuple(jax.devices()[:1]))

    def run(steps: int) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return solve(process, jax.random.key(0), labels, steps=steps, plan=plan, folder=folder).output

    return run


def main() -> None:
    options = arguments("Engine against a bare loop of the same mathematics.", 10)
    began = time.perf_counter()
    report = begin(__file__, options.rounds)
    for (name, cases), (few, many) in STEPS.items():
        labels = (np.arange(cases) % CLASSES).astype(np.int32)
        module = NETWORKS[name]
        variables = module.init(jax.random.key(1), jnp.zeros((1, *SHAPE)))
        runs = {
            "bare": bare(module, variables, labels, mapped=False),
            "bare_vmap": bare(module, variables, labels, mapped=True),
            "engine": engine(module, variables, labels),
        }
        images = {which: np.asarray(run(few)) for which, run in runs.items()}
        found = compare({which: Rival(run, few, many) for which, run in runs.items()}, options.rounds)
        steps = {which: found[which]["step"] for which in found}
        report[f"{name}, {cases} cases"] = one = {
            "cases": cases,
            "milliseconds_per_step": {which: round(1e3 * float(np.median(steps[which])), 4) for which in steps},
            "engine_over_bare": against(steps["engine"], steps["bare"], most=1.05),
            "engine_over_bare_vmap": against(steps["engine"], steps["bare_vmap"]),
            "once_seconds": round(float(np.median(found["engine"]["once"])), 2),
            "largest_difference": float(np.abs(images["bare"] - images["engine"]).max()),
        }
        print(name, cases, one, flush=True)
    record.write(report, began, options.output, "engine_overhead")


if __name__ == "__main__":
    main()
