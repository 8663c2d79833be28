"""jaxmia against loops written by hand in PyTorch: MI-Face on pixels, and GMI's descent in the latent space of a generator.

    python experiments/benchmarks/against_torch.py      # needs the extra [bench]; about 6 minutes, on idle cores

- `mlp`, `convnet`: `image/mi_face` under `jaxmia.solve` on 28 x 28 pixels, 784-300-10 and two 5x5 convolutions (16, 32)
  with max-pool and 128 hidden units; 100 and 1,000 cases. The rival is x <- clip(x - 0.1 grad sum(1 - p_y(x)), 0, 1) of
  all cases at once; it keeps neither best image nor window of costs, which `mi_face` does.
- `gmi`: `image/gmi` (Nesterov momentum, one start, no critic) with the paper's generator of 64 x 64 pixels, random
  latents of 100 numbers and a target of four 3x3 convolutions (32, 64, 128, 128) with max-pool; 64 cases. The rival
  takes the same step by hand.

Same weights (random), same starts (pixels: one noisy image, since from gray rounding breaks the ties of a max-pool),
float32, all cores. PyTorch gets what measures best: its usual layout or channels last, all cases at once or 256 at a
time. Compared are seconds of one step; compiling, tracing and reading out are not in it and told as `once_seconds`,
where jaxmia finds its programs in a cache. `largest_difference` is that of the images after a few steps. Not idle
cores hurt PyTorch more than jaxmia, as its threads wait for one another: see `load_at_start`. Writes
results/against_torch.json.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rounds import Rival, against, arguments, begin, compare, record, seconds
from twins import SHAPES, generator, network, to_numpy, to_torch

from jaxmia import Access, Plan, Process, from_linen, solve
from jaxmia.attacks.image.gmi import gmi
from jaxmia.attacks.image.mi_face import mi_face
from jaxmia.priors import latent

CLASSES, LATENT, WIDTH, RATE, WEIGHT = 10, 100, 64, 0.02, 100.0
KEY = jax.random.key(0)
MI_FACE = {  # network, cases: few and many steps (up to 50, or a multiple, the block of the engine), goal
    ("mlp", 100): (50, 1050, 1.0),
    ("mlp", 1000): (50, 250, 1.0),
    ("convnet", 100): (10, 50, 1.5),
    ("convnet", 1000): (2, 12, 1.5),
}
GMI = (64, 2, 8, 1.5)
LAYOUTS = {"usual layout": torch.contiguous_format, "channels last": torch.channels_last}


def labels_of(cases: int) -> np.ndarray:
    return (np.arange(cases) % CLASSES).astype(np.int32)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def jaxmia_loop(process: Process, cases: int) -> Callable[[int], Any]:
    """`steps -> images` by the engine."""
    plan = Plan(progress=False)

    def run(steps: int) -> np.ndarray:
        result = solve(process, KEY, labels_of(cases), steps=steps, plan=plan)
        assert (result.steps == steps).all(), "a case stopped early"
        return result.output

    return run


def torch_mi_face(twin: Any, shape: tuple[int, ...], cases: int, layout: Any, together: int) -> Callable[[int], Any]:
    """`steps -> images` by hand."""
    twin, labels = twin.to(memory_format=layout), torch.tensor(labels_of(cases), dtype=torch.int64)[:, None]

    def step(x: Any, labels: Any) -> Any:
        x.requires_grad_()
        cost = (1 - torch.softmax(twin(x), 1).gather(1, labels)).sum()
        (slope,) = torch.autograd.grad(cost, x)
        return (x.detach() - 0.1 * slope).clamp_(0, 1)

    def run(steps: int) -> Any:
        images = []
        for some in torch.split(labels, together):
            x = to_torch(np.broadcast_to(noise(shape), (len(some), *shape))).contiguous(memory_format=layout)
            for _ in range(steps):
                x = step(x, some)
            images.append(x)
        return to_numpy(torch.cat(images))

    return run


def torch_gmi(maker: Any, twin: Any, start: np.ndarray, layout: Any) -> Callable[[int], Any]:
    """`steps -> images` by hand."""
    maker, twin = maker.to(memory_format=layout), twin.to(memory_format=layout)
    labels = torch.tensor(labels_of(len(start)), dtype=torch.int64)

    def run(steps: int) -> Any:
        z = torch.tensor(start)
        velocity = torch.zeros_like(z)
        for _ in range(steps):
            z.requires_grad_()
            loss = WEIGHT * torch.nn.functional.cross_entropy(twin(maker(z)), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, z)
            velocity = slope + 0.9 * velocity
            z = (z.detach() - RATE / 100 * (slope + 0.9 * velocity)).clamp_(-1, 1)
        with torch.no_grad():
            return to_numpy(maker(z))

    return run


def best(choices: dict[str, Callable[[int], Any]], steps: int) -> tuple[str, Callable[[int], Any]]:
    """The fastest of some loops, each run three times."""
    times = {name: min(seconds(lambda: run(steps)) for _ in range(3)) for name, run in choices.items()}
    name = min(times, key=lambda name: times[name])
    return name, choices[name]


def duel(process: Process, cases: int, choices: dict, few: int, many: int, goal: float, rounds: int) -> dict[str, Any]:
    """Both loops in turn."""
    chosen, by_hand = best(choices, few)
    ours = jaxmia_loop(process, cases)
    found = compare({"torch": Rival(by_hand, few, many), "jaxmia": Rival(ours, few, many)}, rounds)
    return {
        "cases": cases,
        "torch_runs_best": chosen,
        "milliseconds_per_step": {name: round(1e3 * float(np.median(found[name]["step"])), 3) for name in found},
        "jaxmia_over_torch": against(found["jaxmia"]["step"], found["torch"]["step"], most=goal),
        "once_seconds": {name: round(float(np.median(found[name]["once"])), 2) for name in found},
    }


def compare_mi_face(name: str, cases: int, rounds: int) -> dict[str, Any]:
    module, variables, twin = network(name)
    shape, (few, many, goal) = SHAPES[name], MI_FACE[name, cases]
    oracle = from_linen(module, variables, classes=CLASSES).view(Access.WEIGHTS)
    process = mi_face(oracle, shape, gamma=1.0, start=jnp.asarray(noise(shape))).solve(())
    choices = {
        f"{layout}, {together} at a time": torch_mi_face(twin, shape, cases, LAYOUTS[layout], together)
        for layout in (LAYOUTS if name != "mlp" else ["usual layout"])
        for together in sorted({min(cases, 256), cases})
    }
    one = duel(process, cases, choices, few, many, goal, rounds)
    # mi_face reads out the best image seen, which the last update comes after.
    ours, theirs = jaxmia_loop(process, cases)(21), next(iter(choices.values()))(20)
    return one | {"largest_difference": float(np.abs(ours - theirs).max())}


def compare_gmi(rounds: int) -> dict[str, Any]:
    cases, few, many, goal = GMI
    module, variables, twin = network("small_vgg")
    maker, weights, maker_twin = generator(LATENT, WIDTH)
    oracle = from_linen(module, variables, classes=CLASSES).view(Access.WEIGHTS)
    prior = latent(lambda z: maker.apply(weights, z), LATENT)
    process = gmi(oracle, prior, rate=RATE, identity_weight=WEIGHT, restarts=1).solve(())
    start = jax.vmap(lambda i: process.init(jax.random.fold_in(jax.random.fold_in(KEY, i), 0), 0))(jnp.arange(cases))
    first = np.asarray(start.latent[:, 0])
    choices = {layout: torch_gmi(maker_twin, twin, first, LAYOUTS[layout]) for layout in LAYOUTS}
    one = duel(process, cases, choices, few, many, goal, rounds)
    ours, theirs = jaxmia_loop(process, cases)(few), next(iter(choices.values()))(few)
    return one | {"largest_difference": float(np.abs(ours - theirs).max())}


def main() -> None:
    options = arguments("jaxmia against hand-written PyTorch.", 7)
    began = time.perf_counter()
    report = begin(__file__, options.rounds, "torch")
    for name, cases in MI_FACE:
        report[f"mi_face, {name}, {cases} cases"] = one = compare_mi_face(name, cases, options.rounds)
        print(name, cases, one, flush=True)
    report["gmi, 64 cases"] = one = compare_gmi(options.rounds)
    print("gmi", one, flush=True)
    record.write(report, began, options.output, "against_torch")


if __name__ == "__main__":
    main()
