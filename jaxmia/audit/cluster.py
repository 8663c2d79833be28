"""The tasks of a sweep on a Ray cluster: Ray schedules them, and starts those of a killed worker anew.

What distinct tasks train alike is trained by one task that they wait for. Every worker is a process of its own, with
this package installed and the sweep's folder in reach.
"""

import logging
import os
import warnings
from collections.abc import Iterator

from jaxmia.audit.sweep import Executor, Task, train_for, work_off

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
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"--executor ray: needs the package ray; pip install 'jaxmia[ray]' ({error})") from error

    def work(tasks: list[Task]) -> Iterator[tuple[Task, dict[str, str]]]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)  # what it forks, it replaces
            ray.init(
                address=address,
                num_cpus=workers,
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                # A worker that takes most of a GPU's memory at once, as JAX does, leaves none to its neighbors.
                runtime_env={"env_vars": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}},
            )
        try:
            graphics = 1 if ray.cluster_resources().get("GPU") else 0
            remote = ray.remote(num_cpus=1, num_gpus=graphics, max_retries=RETRIES)
            trained, running = {}, {}
            for task in tasks:
                if task.training not in trained:
                    trained[task.training] = remote(_train).remote(task)
                running[remote(_work).remote(task, trained[task.training])] = task
            while running:
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done), ray.get(done)
        finally:
            ray.shutdown()

    return work


def _train(task: Task) -> str:
    """What went wrong, or nothing."""
    try:
        train_for(task)
    except FloatingPointError as error:
        return str(error)
    return ""


def _work(task: Task, wrong: str) -> dict[str, str]:
    return {run: wrong for _, run in task.cells} if wrong else work_off(task)
