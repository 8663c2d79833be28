"""What the benchmarks share: rivals timed in turn, round by round, and a ratio with its quartiles.

The seconds of one step are the difference of a run of `many` steps and one of `few`, over their difference: compiling,
reading out and whatever else happens once drop out, for all rivals alike, and are told apart as `once`. Rivals run one
after another within every round, in turned order in every other round, so that a machine that slows down slows all of
them. A ratio is the median of the rounds' ratios.
"""

import argparse
import atexit
import importlib.metadata
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

EXPERIMENTS = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(EXPERIMENTS))
import record  # noqa: E402

from jaxmia.compiling import keep_compiled  # noqa: E402

__all__ = ["Rival", "against", "arguments", "begin", "compare", "seconds"]


class Rival(NamedTuple):
    """One side of a comparison.

    Attributes:
      run: steps -> result, finished when it returns.
      few: steps of the shorter run.
      many: steps of the longer one.
    """

    run: Callable[[int], Any]
    few: int
    many: int


def arguments(about: str, rounds: int) -> argparse.Namespace:
    """`--rounds` and `--output` of the command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds")
    parser.add_argument("--output", type=pathlib.Path, default=EXPERIMENTS / "results")
    return parser.parse_args()


def begin(script: str, rounds: int, *packages: str) -> dict[str, Any]:
    """The head of a report, with the versions of further packages and the number of cores.

    From here on compiled programs are kept until the process ends: compiling is not compared, and would be most of
    the time.
    """
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    keep_compiled(pathlib.Path(folder.name))
    report = record.header(script, [0]) | {"rounds": rounds}
    report["environment"] |= {name: importlib.metadata.version(name) for name in packages}
    report["environment"] |= {"cores": len(os.sched_getaffinity(0)), "load_at_start": round(os.getloadavg()[0], 1)}
    return report


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def compare(rivals: dict[str, Rival], rounds: int) -> dict[str, dict[str, np.ndarray]]:
    """For every rival `step` and `once`: seconds of a step, and of all that is done once, in every round."""
    for rival in rivals.values():
        rival.run(rival.few)
    found: dict[str, dict[str, list[float]]] = {name: {"step": [], "once": []} for name in rivals}
    for turn in range(rounds):
        for name in sorted(rivals, reverse=turn % 2 == 1):
            rival = rivals[name]
            short, long = (seconds(lambda steps=steps: rival.run(steps)) for steps in (rival.few, rival.many))
            step = (long - short) / (rival.many - rival.few)
            found[name]["step"].append(step)
            found[name]["once"].append(short - rival.few * step)
    return {name: {what: np.array(values) for what, values in each.items()} for name, each in found.items()}


def against(first: np.ndarray, second: np.ndarray, least: float | None = None, most: float | None = None) -> dict:
    """The median of first / second over rounds, its quartiles, and whether the goal is met."""
    ratios = first / second
    found: dict[str, Any] = {
        "ratio": round(float(np.median(ratios)), 3),
        "quartiles": np.quantile(ratios, [0.25, 0.75]).round(3).tolist(),
    }
    if least is not None:
        found |= {"goal": f"at least {least:g}", "met": found["ratio"] >= least}
    if most is not None:
        found |= {"goal": f"at most {most:g}", "met": found["ratio"] <= most}
    return found
