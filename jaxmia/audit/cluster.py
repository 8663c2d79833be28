"""The tasks of a sweep on a Ray cluster: Ray schedules them, and starts those of a killed worker anew.

What distinct tasks train alike is trained by one task that they wait for. Every worker is a process of its own, with
this package installed, and the sweep's folder and its data in reach by the same paths.
"""

import logging
import os
import pathlib
import warnings
from collections.abc import Iterator

from jaxmia.audit import folder as files
from jaxmia.audit import roles
from jaxmia.audit.sweep import Executor, Task, train_for, work_off
from jaxmia.compiling import keep_compiled
from jaxmia.data.fetch import cache_folder
from jaxmia.packages import require

__all__ = ["on_ray"]

RETRIES = 10  # of a task whose worker died


def on_ray(address: str | None = None, workers: int | None = None) -> Executor:
    """An executor for `sweep`.

    Args:
      address: of a running cluster; None starts one on this machine, for the duration.
      workers: how many tasks run at once on a cluster started here; None is one for each core. Tasks of a cluster with
        GPUs get one GPU each.

    Raises:
      ValueError: for fewer than one worker, or a number of them for a cluster that is there.
      ImportError: without the package ray.
    """
    if workers is not None and (workers < 1 or address is not None):
        raise ValueError(f"workers: {workers}; legal is 1 or more, for a cluster started here (no address)")
    require("ray")
    import ray
    from ray.exceptions import RayTaskError, WorkerCrashedError

    # A process that takes most of a GPU's memory at once, as JAX does, leaves none to its neighbors; this one comes
    # first, when it checks the cells.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    os.environ |= shared

    def work(tasks: list[Task]) -> Iterator[tuple[Task, dict[str, str]]]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)  # what it forks, it replaces
            ray.init(
                address=address or "local",  # without it Ray would join whatever cluster is there
                num_cpus=workers,
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": shared},
            )
        try:
            graphics = 1 if ray.cluster_resources().get("GPU") else 0
            remote = ray.remote(num_cpus=1, num_gpus=graphics, max_retries=RETRIES)
            groups: dict[str, dict[str, Task]] = {}  # by training folder, a task for each thing that differs in it
            for task in tasks:
                groups.setdefault(task.training, {}).setdefault(roles.trained(task.cells[0][0]), task)
            running, home = {}, os.getcwd()
            trained = {where: remote(_train).remote(list(first.values()), home) for where, first in groups.items()}
            for task in tasks:
                running[remote(_work).remote(task, home, trained[task.training])] = task
            while running:
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                task = running.pop(done)
                try:
                    wrong = ray.get(done)
                except WorkerCrashedError:
                    words = f"its worker, or that of its training, died {RETRIES + 1} times"
                    wrong = {run: words for _, run in task.cells if not files.is_done(pathlib.Path(run))}
                except RayTaskError as error:  # whose text is a traceback
                    raise error.cause from error
                yield task, wrong
        finally:
            ray.shutdown()

    return work


def _settle(home: str) -> None:
    """Where the driver is, if this machine has that folder, since paths in configurations may be relative."""
    if os.path.isdir(home):
        os.chdir(home)
    keep_compiled(cache_folder() / "compiled")


def _train(tasks: list[Task], home: str) -> str:
    """What went wrong, or nothing."""
    _settle(home)
    try:
        for task in tasks:
            train_for(task)
    except FloatingPointError as error:
        return str(error)
    return ""


def _work(task: Task, home: str, wrong: str) -> dict[str, str]:
    _settle(home)
    return {run: wrong for _, run in task.cells} if wrong else work_off(task)
