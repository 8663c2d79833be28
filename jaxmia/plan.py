"""How a run is cut up: what may change its speed and never its result."""

from typing import Any, NamedTuple

__all__ = ["Plan", "check_plan", "even_chunk", "fitting_chunk", "smaller_chunk"]


class Plan(NamedTuple):
    """What may change the speed and never the result.

    Attributes:
      chunk: cases per device in one program, padded to exactly this. None takes at most 1024, on CPU 256 unless a case
        needs less than 64 KiB, and fewer where the compiler foresees more memory than is free; a device that runs out
        of memory all the same gets half of it.
        With the same chunk results are equal to the last bit whatever else changes on one device; another chunk may
        move them by rounding (<= 1e-6 seen).
      microbatch: cases computed together. When given, a chunk is two or more of them, computed one after another, so
        that results do not depend on the chunk (to the last bit on one device); costs speed. None: the whole chunk.
      block: most steps between two looks of the host at who is finished.
      devices: the devices to use; None takes all local ones (training over several: all there are).
      mapper: "shard_map" or "pmap".
      loop: "host" drives a jitted step from Python, "scan" lets the device loop over a block of them. "auto" takes "host"
        on CPU for a step with gradients of convolutions other than jaxmia's own, 7-13 times slower in a loop there, else
        "scan".
      training: "one_device"; "data_parallel" cuts every minibatch over all devices, of all processes, and sums the
        gradients; "fully_sharded" cuts what is trained as well, for targets larger than a device. These two move what
        is trained by rounding.
      save_seconds: least time between two checkpoints when a folder is given.
      progress: show a progress bar on anything over 5 seconds.
    """

    chunk: int | None = None
    microbatch: int | None = None
    block: int = 50
    devices: tuple[Any, ...] | None = None
    mapper: str = "shard_map"
    loop: str = "auto"
    training: str = "one_device"
    save_seconds: float = 30.0
    progress: bool = True


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be followed (ValueError with field, value and what is legal)."""
    for name in ("block", "chunk", "microbatch"):
        value = getattr(plan, name)
        if value is not None and value < 1:
            raise ValueError(f"plan.{name}: {value}; legal is 1 or more")
    # A loop over one microbatch is none to the compiler, which then rounds otherwise.
    if plan.chunk and plan.microbatch and (plan.chunk % plan.microbatch or plan.chunk == plan.microbatch):
        legal = f"2, 3 or more times plan.microbatch, {plan.microbatch}"
        raise ValueError(f"plan.chunk: {plan.chunk}; legal is {legal}")
    for name, value, legal in (
        ("plan.mapper", plan.mapper, ("shard_map", "pmap")),
        ("plan.loop", plan.loop, ("auto", "host", "scan")),
        ("plan.training", plan.training, ("one_device", "data_parallel", "fully_sharded")),
    ):
        if value not in legal:
            raise ValueError(f"{name}: {value!r}; legal is one of {', '.join(legal)}")


def even_chunk(cases: int, most: int, plan: Plan) -> int:
    """The chunk of at most `most` for as few rounds of a device's cases as possible, all full.

    >>> even_chunk(600, 256, Plan())
    200
    """
    chunk = -(-cases // -(-cases // most))
    return plan.microbatch * max(2, -(-chunk // plan.microbatch)) if plan.microbatch else chunk


def fitting_chunk(most: int, wanted: float, plan: Plan) -> int:
    """The largest legal chunk of at most `wanted` and `most` cases, else the least one; `most` is legal.

    >>> fitting_chunk(512, 23.7, Plan()), fitting_chunk(512, 0.1, Plan()), fitting_chunk(512, 5.0, Plan(microbatch=4))
    (23, 1, 8)
    """
    together = plan.microbatch or 1
    least = 2 * together if plan.microbatch else 1
    return min(most, max(least, int(wanted) // together * together))


def smaller_chunk(chunk: int, plan: Plan) -> int:
    """The largest legal chunk of at most half as many cases; 0 if there is none."""
    half = chunk // 2 - chunk // 2 % (plan.microbatch or 1)
    return 0 if half == plan.microbatch else half
