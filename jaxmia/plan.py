"""How a run is cut up: what may change its speed and never its result."""

from typing import Any, NamedTuple

__all__ = ["Plan", "check_plan"]


class Plan(NamedTuple):
    """What may change the speed and never the result.

    Attributes:
      chunk: cases per device in one program, padded to exactly this; None takes min(256, cases per device). With the
        same chunk results are equal to the last bit whatever else changes on one device; another chunk may move them
        by rounding (<= 1e-6 seen).
      block: steps between two looks of the host at who is finished.
      devices: the devices to use; None takes all local ones.
      mapper: "shard_map" or "pmap".
      loop: "host" drives a jitted step from Python, "scan" runs a block in one `lax.scan`, "auto" takes "host" on CPU
        (where convolution gradients inside scan are 7-13 times slower) and "scan" elsewhere.
      save_seconds: least time between two checkpoints when a folder is given.
      progress: show a progress bar on anything over 5 seconds.
    """

    chunk: int | None = None
    block: int = 50
    devices: tuple[Any, ...] | None = None
    mapper: str = "shard_map"
    loop: str = "auto"
    save_seconds: float = 30.0
    progress: bool = True


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be followed (ValueError with field, value and what is legal)."""
    for name, value in (("plan.block", plan.block), ("plan.chunk", 1 if plan.chunk is None else plan.chunk)):
        if value < 1:
            raise ValueError(f"{name}: {value}; legal is 1 or more")
    for name, value, legal in (
        ("plan.mapper", plan.mapper, ("shard_map", "pmap")),
        ("plan.loop", plan.loop, ("auto", "host", "scan")),
    ):
        if value not in legal:
            raise ValueError(f"{name}: {value!r}; legal is one of {', '.join(legal)}")
