"""What one accelerator does: GMI on 64 pixels and MI-Face, in candidates x steps per second and as a share of its peak.

    python experiments/benchmarks/gpu.py                # any single GPU, at most 8 minutes; writes results/gpu.json
    python experiments/benchmarks/gpu.py --small        # small sizes; writes results/gpu_small.json, also from a CPU

Networks: DCGenerator and WGANCritic of 64 x 64 x 3 with a VGG target of 1,000 classes (weights random, since only speed is
asked); MI-Face descends on the pixels of the same target. Measured are

- `peak`: the best of a few square matrix products, per precision; shares of peak refer to it, not to a data sheet;
- `cases`: growing numbers of cases in one program until memory or time ends, with the bytes that the compiler foresees;
- `loop`: a block of steps in one scan against a Python loop over one jitted step;
- `precision`: float32, TF32 and bfloat16 (elsewhere than on a GPU TF32 is float32);
- `torch`: the same networks in PyTorch, eager and compiled, on the same device, where PyTorch (extra [bench]) finds it;
- `smoke`, in what time is left (`--seconds` grants more): the attacks of the registry against the targets of their contract
  tests, on this device: the share of cases recovered from the leaking target and from the control of shuffled labels.

Seconds of a step are the difference of a run of 2k steps and one of k, over k, so that compiling and reading out drop out.
FLOPs are those the compiler counts for one step of one case (`cost_analysis`). Sections that no time is left for say so.
"""

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EXPERIMENTS = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS.parent)]
import record  # noqa: E402

from jaxmia import Access, Plan, Process, attacks, from_linen, solve  # noqa: E402
from jaxmia.models import VGG, DCGenerator, WGANCritic  # noqa: E402
from jaxmia.parallel import free_memory, ran_out_of_memory  # noqa: E402
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
    oracle = from_linen(target, init(keys[2], target, SHAPE), classes=CLASSES).view(Access.WEIGHTS)
    prior = latent(
        lambda z: generator.apply(g, z.astype(dtype)),
        LATENT,
        realism=lambda x: critic.apply(c, x.astype(dtype)).astype(jnp.float32),
    )
    return {
        "gmi_64": attacks.get("image/gmi").factory(oracle, prior, restarts=1).solve(()),
        "mi_face_64": attacks.get("image/mi_face").factory(oracle, SHAPE, gamma=1.0, beta=10_000).solve(()),
    }


def per_step(run: Callable[[int], Any], seconds: float) -> float:
    """Seconds of one step: of k and 2k steps, k such that both take about `seconds`."""

    def timed(steps: int) -> float:
        began = time.perf_counter()
        run(steps)
        return time.perf_counter() - began

    timed(2)  # compiles
    rough = max((timed(6) - timed(2)) / 4, 1e-5)
    steps = int(np.clip(seconds / 3 / rough, 4, 2000))
    return max((timed(2 * steps) - timed(steps)) / steps, 1e-9)


def jaxmia_loop(process: Process, cases: int, loop: str) -> Callable[[int], Any]:
    labels = np.arange(cases, dtype=np.int32) % CLASSES
    plan = Plan(chunk=cases, loop=loop, block=2000, progress=False, devices=tuple(jax.devices()[:1]))
    return lambda steps: solve(process, KEY, labels, steps=steps, plan=plan)


def flops(process: Process) -> float:
    """Of one step of one case, as the compiler counts them in a step of eight."""
    keys, labels = jax.random.split(KEY, 8), jnp.zeros(8, jnp.int32)
    state = jax.vmap(process.init)(keys, labels)
    told = jax.jit(jax.vmap(process.step)).lower(keys, state, labels).compile().cost_analysis()
    return float((told or {}).get("flops", float("nan"))) / 8


def peak(size: int) -> dict[str, float]:
    """FLOP/s of a square matrix product, the best of a few, per precision."""
    found = {}
    for name, precision in PRECISIONS.items():
        a = jnp.ones((size, size), jnp.bfloat16 if name == "bfloat16" else jnp.float32)
        product = jax.jit(lambda a, precision=precision: jnp.matmul(a, a, precision=precision))
        product(a).block_until_ready()
        times = []
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready([product(a) for _ in range(4)])
            times.append((time.perf_counter() - began) / 4)
        found[name] = 2 * size**3 / min(times)
    return found


def section(report: dict[str, Any], name: str, clock: Clock, needed: float, measure: Callable[[], dict]) -> None:
    """Measure and write down; what goes wrong is written down too, and the next section begins."""
    if clock.left() < needed:
        report[name] = {"skipped": f"{clock.left():.0f} s were left"}
    else:
        try:
            report[name] = measure()
        except (jax.errors.JaxRuntimeError, RuntimeError, ImportError) as error:
            report[name] = {"failed": str(error).splitlines()[0][:300]}
    print(name, report[name], flush=True)


def growing(process: Process, work: float, top: float, small: bool, clock: Clock) -> dict[str, Any]:
    """Rates at growing numbers of cases in one program."""
    found: dict[str, Any] = {"gigaflop_per_case_and_step": round(work / 1e9, 4)}
    for cases in (8, 32) if small else (16, 64, 256, 1024, 4096, 16384):
        devices = tuple(jax.devices()[:1])
        labels = np.arange(cases, dtype=np.int32) % CLASSES
        try:
            memory = build(process, KEY, labels, labels, 2, devices, cases, Plan(devices=devices)).memory
            if memory > (free_memory(devices) or np.inf) or clock.left() < 30:
                found[str(cases)] = {"skipped": "time" if clock.left() < 30 else f"{memory >> 20} MiB do not fit"}
                break
            second = per_step(jaxmia_loop(process, cases, "auto"), 2 if small else 6)
        except jax.errors.JaxRuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            found[str(cases)] = {"skipped": "out of memory"}
            break
        found[str(cases)] = {
            "case_steps_per_second": round(cases / second, 1),
            "share_of_peak": round(cases / second * work / top, 4),
            "mebibytes": memory >> 20,
        }
    return found


def smoke(clock: Clock) -> dict[str, Any]:
    """Every attack on its contract bench: share recovered, and from the shuffled control."""
    from tests.contract.trial import Trial

    found = {}
    for name in attacks.names():
        if clock.left() < 20:
            found[name] = "no time left"
            continue
        trial = Trial(attacks.get(name))
        leaks, shuffled = (trial.on.judge(trial.run(which).output) for which in ("leaks", "shuffled"))
        found[name] = {"leaks": round(leaks.value, 3), "shuffled": round(shuffled.value, 3)}
        found[name]["passed"] = bool(leaks.low > trial.on.chance >= shuffled.low)
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

    def loop(one: Callable) -> Callable[[int], Any]:
        def run(steps: int) -> None:
            z = torch.randn(cases, LATENT, device=device)
            velocity = torch.zeros_like(z)
            for _ in range(steps):
                z, velocity = one(z, velocity)
            if on_gpu:
                torch.cuda.synchronize()
            z.sum().item()

        return run

    found: dict[str, Any] = {}
    for precision in PRECISIONS if on_gpu else ("float32", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        for how, one in (("eager", step), ("compiled", torch.compile(step))):
            if how == "compiled" and not on_gpu:
                continue  # needs a C++ compiler on a CPU
            with half:
                found[f"{how}, {precision}"] = round(cases / per_step(loop(one), seconds), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="GMI-64 and MI-Face on one accelerator.")
    parser.add_argument("--seconds", type=float, default=450.0, help="time to use")
    parser.add_argument("--small", action="store_true", help="small sizes")
    parser.add_argument("--output", type=pathlib.Path, default=EXPERIMENTS / "results")
    options = parser.parse_args()
    began, clock, small = time.perf_counter(), Clock(options.seconds), options.small
    report = record.header(__file__, 1)
    width, cases, seconds = (16, 16, 2) if small else (64, 256, 5)
    tops: dict[str, float] = {}

    def peaks() -> dict[str, str]:
        tops.update(peak(1024 if small else 8192))
        return {name: f"{rate / 1e12:.3f} TFLOP/s" for name, rate in tops.items()}

    def loops(process: Process) -> dict[str, float]:
        found: dict[str, float] = {}
        for loop in ("scan", "host", "scan", "host"):
            rate = round(cases / per_step(jaxmia_loop(process, cases, loop), seconds), 1)
            found[loop] = max(rate, found.get(loop, 0.0))
        return found

    def rates(precision: str) -> dict[str, Any]:
        kind, found = jnp.bfloat16 if precision == "bfloat16" else jnp.float32, {}
        with jax.default_matmul_precision(PRECISIONS[precision]):
            for name, process in processes(kind, width).items():
                rate = cases / per_step(jaxmia_loop(process, cases, "auto"), seconds)
                share = round(rate * flops(process) / tops[precision], 4)
                found[name] = {"case_steps_per_second": round(rate, 1), "share_of_peak": share}
        return found

    section(report, "peak", clock, 0, peaks)
    for name, process in processes(width=width).items():
        work = flops(process)
        with jax.default_matmul_precision("highest"):
            measure = functools.partial(growing, process, work, tops["float32"], small, clock)
            section(report, f"cases, {name}", clock, 40, measure)
        section(report, f"loop, {name}, {cases} cases", clock, 30, functools.partial(loops, process))
    for precision in PRECISIONS:
        section(report, f"precision, {precision}, {cases} cases", clock, 30, functools.partial(rates, precision))
    section(report, f"torch, gmi_64, {cases} cases", clock, 30, lambda: torch_rates(width, cases, seconds))
    section(report, "smoke", clock, 30, lambda: smoke(clock))
    record.write(report, began, options.output, "gpu_small" if small else "gpu")


if __name__ == "__main__":
    main()
