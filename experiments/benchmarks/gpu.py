"""What one accelerator does: GMI on 64 pixels and MI-Face, in candidates x steps per second and as a share of its peak.

    python experiments/benchmarks/gpu.py                # any single GPU, about 7 minutes; writes results/gpu.json
    python experiments/benchmarks/gpu.py --small        # small sizes; writes results/gpu_small.json, also from a CPU

Networks: DCGenerator and WGANCritic of 64 x 64 x 3 with a VGG target of 1,000 classes (weights random, since only speed is
asked); MI-Face descends on the pixels of the same target. Measured are

- `smoke`, before all else and not with `--small`: every attack of the registry against the targets of its contract test, on
  this device: the share of cases recovered from the leaking target and from the control of shuffled labels. Attacks run in
  as many processes as there are cores, for at most a third of the time. On a CPU the contract tests are the same;
- `peak`: the best of a few square matrix products, per precision; shares of peak refer to it, not to a data sheet;
- `precision`: float32, TF32 and bfloat16 (elsewhere than on a GPU TF32 is float32);
- `torch`: the same networks in PyTorch, eager and compiled, on the same device, where PyTorch (extra [bench]) finds it;
- `loop`: a block of steps in one scan against a Python loop over one jitted step;
- `cases`: growing numbers of cases in one program until memory or time ends, with the bytes that the compiler foresees.

Rates are those of the engine's blocks after a first one, so that compiling, starting and reading out drop out. What the
file of results holds already is not measured again: a run that was cut short goes on.
FLOPs are those that JAX counts for one step of one case (`cost_analysis`). Sections that no time is left for say so.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EXPERIMENTS = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS.parent)]
import record  # noqa: E402

from jaxmia import Access, Plan, Process, attacks, from_function  # noqa: E402
from jaxmia.models import VGG, DCGenerator, WGANCritic  # noqa: E402
from jaxmia.parallel import free_memory, place  # noqa: E402
from jaxmia.priors import latent  # noqa: E402
from jaxmia.slots import build  # noqa: E402

SHAPE, CLASSES, LATENT = (64, 64, 3), 1000, 100
STAGES = ((64,), (128,), (256,), (256,))
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
KEY = jax.random.key(0)


class Clock:
    """How much of the time that was granted is left."""

    def __init__(self, seconds: float):
        self.end = time.perf_counter() + seconds

    def left(self) -> float:
        return self.end - time.perf_counter()


def processes(dtype: Any = jnp.float32, width: int = 64) -> dict[str, Process]:
    """One step of each attack on random weights of a dtype; never stopping early."""
    generator, critic, target = DCGenerator(width=width), WGANCritic(width=width), VGG(CLASSES, stages=STAGES)
    keys = jax.random.split(KEY, 3)

    def init(key: Any, module: Any, shape: tuple[int, ...]) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), jax.jit(module.init)(key, jnp.zeros((1, *shape))))

    g, c = init(keys[0], generator, (LATENT,)), init(keys[1], critic, SHAPE)
    of_type = from_function(
        lambda v, x: target.apply(v, x.astype(dtype)), init(keys[2], target, SHAPE), classes=CLASSES
    )
    oracle = of_type.view(Access.WEIGHTS)
    prior = latent(
        lambda z: generator.apply(g, z.astype(dtype)),
        LATENT,
        realism=lambda x: critic.apply(c, x.astype(dtype)).astype(jnp.float32),
    )
    return {
        "gmi_64": attacks.get("image/gmi").factory(oracle, prior, restarts=1).solve(()),
        "mi_face_64": attacks.get("image/mi_face").factory(oracle, SHAPE, gamma=1.0, beta=10_000).solve(()),
    }


def rate(process: Process, cases: int, loop: str, seconds: float) -> tuple[float, int]:
    """Case-steps per second of the engine's blocks in at least that time, after a first block; and bytes needed."""
    devices, labels = tuple(jax.devices()[:1]), np.arange(cases, dtype=np.int32) % CLASSES
    plan = Plan(loop=loop, block=int(np.clip(12_800 // cases, 4, 50)), devices=devices)
    programs = build(process, KEY, labels, labels, 10**6, devices, cases, plan)
    if programs.memory > (free_memory(devices) or np.inf):
        raise MemoryError(f"{programs.memory >> 20} MiB do not fit")
    new = (np.ones((1, cases), bool), *(labels[None] for _ in range(3)))
    slots = programs.admit(KEY, *place((programs.example, *new), devices))

    def taken() -> int:
        return int(np.array(slots.steps).sum())

    slots = programs.block(KEY, slots, 10**6)
    before, began = taken(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        slots = programs.block(KEY, slots, 10**6)
        slots.steps.block_until_ready()
    return (taken() - before) / (time.perf_counter() - began), programs.memory


def flops(process: Process) -> float:
    """TFLOP of one step of one case, counted for the CPU: a GPU's compiler hides them in library calls."""
    with jax.default_device(jax.devices("cpu")[0]):
        keys, labels = jax.random.split(KEY, 8), jnp.zeros(8, jnp.int32)
        state = jax.eval_shape(jax.vmap(process.init), keys, labels)
        lowered = jax.jit(jax.vmap(process.step)).lower(keys, state, labels)
        return float((lowered.cost_analysis() or lowered.compile().cost_analysis())["flops"]) / 8 / 1e12


def peak(size: int) -> dict[str, float]:
    """TFLOP/s of a square matrix product, the best of a few, per precision."""
    found = {}
    for name, precision in PRECISIONS.items():
        a = jax.random.normal(KEY, (size, size), jnp.bfloat16 if name == "bfloat16" else jnp.float32)
        product = jax.jit(lambda a, precision=precision: jnp.matmul(a, a, precision=precision))
        product(a).block_until_ready()
        times = []
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready([product(a) for _ in range(4)])
            times.append((time.perf_counter() - began) / 4)
        found[name] = round(2 * size**3 / min(times) / 1e12, 3)
    return found


def section(clock: Clock, needed: float, measure: Callable[[], dict]) -> dict[str, Any]:
    """What was measured; what goes wrong is written down too, so that the next section begins."""
    if clock.left() < needed:
        return {"skipped": f"{clock.left():.0f} s were left"}
    try:
        return measure()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


@contextlib.contextmanager
def apart(processes: int | None) -> Iterator[concurrent.futures.Executor]:
    """New processes that share the device and give its memory back when they end."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield pool
    del os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]


def recovered(name: str, end: float) -> dict[str, Any] | str:
    """One attack on its contract bench: share recovered, and from the shuffled control, unless that time has come."""
    if time.time() > end:
        return "no time left"
    from jaxmia.testing.trial import Trial

    trial = Trial(attacks.get(name))
    leaks, shuffled = (trial.on.judge(trial.run(which).output) for which in ("leaks", "shuffled"))
    found = {"leaks": round(leaks.value, 3), "shuffled": round(shuffled.value, 3)}
    return found | {"passed": bool(leaks.low > trial.on.chance >= shuffled.low)}


def smoke(names: list[str], seconds: float) -> dict[str, Any]:
    """Some attacks, each in one of several processes that share the device."""
    end = time.time() + seconds
    with apart(os.cpu_count()) as pool:
        waiting = {name: pool.submit(recovered, name, end) for name in names}
        found = {}
        for name, one in waiting.items():
            error = one.exception()
            found[name] = f"{type(error).__name__}: {error}"[:300] if error else one.result()
    return found


def torch_rates(width: int, cases: int, seconds: float) -> dict[str, Any]:
    """Case-steps per second of GMI's step written by hand in PyTorch, on the device that JAX uses."""
    import torch
    from torch import nn

    on_gpu = jax.devices()[0].platform == "gpu"
    if on_gpu and not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no GPU")
    device = torch.device("cuda" if on_gpu else "cpu")
    up = [8 * width, 4 * width, 2 * width, width]

    def doubled(a: int, b: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(a, b, 5, 2, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    generator = nn.Sequential(
        nn.Linear(LATENT, 16 * up[0], bias=False), nn.BatchNorm1d(16 * up[0]), nn.ReLU(), nn.Unflatten(1, (up[0], 4, 4)),
        *(layer for a, b in zip(up, up[1:]) for layer in doubled(a, b)),
        nn.ConvTranspose2d(width, 3, 5, 2, 2, 1), nn.Sigmoid(),
    )  # fmt: skip
    down = [3, *reversed(up)]
    critic = nn.Sequential(
        *(
            layer
            for i, (a, b) in enumerate(zip(down, down[1:]))
            for layer in (
                nn.Conv2d(a, b, 5, 2, 2),
                nn.InstanceNorm2d(b, affine=True) if i else nn.Identity(),
                nn.LeakyReLU(0.2),
            )
        ),
        nn.Conv2d(up[0], 1, 4),
        nn.Flatten(),
    )
    wide = [3, *(stage[0] for stage in STAGES)]
    target = nn.Sequential(
        *(
            layer
            for a, b in zip(wide, wide[1:])
            for layer in (nn.Conv2d(a, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        ),
        nn.Flatten(), nn.Linear(wide[-1] * 16, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, CLASSES),
    )  # fmt: skip
    nets = [net.to(device).eval().requires_grad_(False) for net in (generator, critic, target)]
    labels = torch.arange(cases, device=device) % CLASSES

    def loss(z: Any) -> Any:
        image = nets[0](z)
        return -nets[1](image).sum() + 100 * nn.functional.cross_entropy(nets[2](image), labels, reduction="sum")

    def step(z: Any, velocity: Any) -> tuple[Any, Any]:
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(z), z)
        velocity = 0.9 * velocity - 0.0002 * slope
        return (z + 0.9 * velocity - 0.0002 * slope).clamp(-1, 1).detach(), velocity

    def steps_per_second(one: Callable, seconds: float) -> float:
        z = torch.randn(cases, LATENT, device=device)
        velocity, taken = torch.zeros_like(z), -10  # ten steps warm up
        began = time.perf_counter()
        while taken <= 0 or time.perf_counter() - began < seconds:
            z, velocity = one(z, velocity)
            taken += 1
            if taken % 10 == 0:
                z.sum().item()  # waits for the device
            if taken == 0:
                began = time.perf_counter()
        z.sum().item()
        return taken / (time.perf_counter() - began)

    found: dict[str, Any] = {}
    for precision in PRECISIONS if on_gpu else ("float32", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        for how, one in (("eager", step), ("compiled", torch.compile(step))):
            if how == "compiled" and not on_gpu:
                continue  # needs a C++ compiler on a CPU
            with half:
                found[f"{how}, {precision}"] = round(cases * steps_per_second(one, seconds), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="GMI-64 and MI-Face on one accelerator.")
    parser.add_argument("--seconds", type=float, default=420.0, help="time to use")
    parser.add_argument("--small", action="store_true", help="small sizes")
    parser.add_argument("--output", type=pathlib.Path, default=EXPERIMENTS / "results")
    options = parser.parse_args()
    began, clock, small = time.perf_counter(), Clock(options.seconds), options.small
    file = options.output / f"{'gpu_small' if small else 'gpu'}.json"
    with apart(1) as pool:  # this process must not take the device's memory before the smoke test has had it
        report = pool.submit(record.header, __file__, [0]).result()
    known = record.read(file) if file.exists() else {}
    if known.get("environment") == report["environment"]:
        report, began = known, began - known["seconds"]
    if not small:
        tried = report.setdefault("smoke", {})
        missing = [name for name in attacks.names() if "passed" not in tried.get(name, ())]
        if missing:
            tried |= smoke(missing, options.seconds / 3)
            print("smoke", tried, flush=True)
    (width, cases), seconds = (16, 16) if small else (64, 256), 2.0
    made = {kind: processes(kind, width) for kind in (jnp.float32, jnp.bfloat16)}
    works = {name: flops(process) for name, process in made[jnp.float32].items()}
    report["gigaflop of a step of one case"] = {name: round(work * 1e3, 4) for name, work in works.items()}

    def loops(name: str) -> dict[str, float]:
        return {loop: round(rate(made[jnp.float32][name], cases, loop, seconds)[0], 1) for loop in ("scan", "host")}

    def grown(name: str, cases: int) -> dict[str, Any]:
        try:
            with jax.default_matmul_precision("highest"):
                speed, memory = rate(made[jnp.float32][name], cases, "auto", seconds)
        except MemoryError as error:
            return {"out_of_memory": str(error)}
        share = round(speed * works[name] / report["peak (TFLOP/s)"]["float32"], 4)
        return {"case_steps_per_second": round(speed, 1), "share_of_peak": share, "mebibytes": memory >> 20}

    def rates(precision: str) -> dict[str, Any]:
        found = {}
        with jax.default_matmul_precision(PRECISIONS[precision]):
            for name, process in made[jnp.bfloat16 if precision == "bfloat16" else jnp.float32].items():
                speed = rate(process, cases, "auto", seconds)[0]
                share = round(speed * works[name] / report["peak (TFLOP/s)"][precision], 4)
                found[name] = {"case_steps_per_second": round(speed, 1), "share_of_peak": share}
        return found

    sections: dict[str, tuple[float, Callable[[], dict]]] = {
        "peak (TFLOP/s)": (0, lambda: peak(1024 if small else 8192))
    }  # the seconds that each needs at least
    for precision in PRECISIONS:
        sections[f"precision, {precision}, {cases} cases"] = 30, functools.partial(rates, precision)
    sections[f"torch, gmi_64, {cases} cases"] = 30, lambda: torch_rates(width, cases, seconds)
    for name in works:
        sections[f"loop, {name}, {cases} cases"] = 30, functools.partial(loops, name)
    for number in (8, 32) if small else (16, 64, 256, 1024, 4096, 16384, 65536):
        for name in works:
            sections[f"cases, {name}, {number}"] = 30, functools.partial(grown, name, number)
    for name, (needed, measure) in sections.items():
        if not {"skipped", "failed"}.isdisjoint(report.get(name, {"skipped"})):
            report[name] = section(clock, needed, measure)
            print(name, report[name], flush=True)
            record.write(report, began, file.parent, file.stem)


if __name__ == "__main__":
    main()
