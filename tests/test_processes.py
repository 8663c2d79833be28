"""Two processes that share the work give what one gives: `jax.distributed` on the loopback.

Run as a module, this file is one of them: `python -m tests.test_processes COORDINATOR PROCESSES PROCESS OUT FOLDER`.
"""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest


def worker(coordinator, processes, process, out, folder):
    import jax

    from jaxmia import parallel

    jax.config.update("jax_num_cpu_devices", 2)
    parallel.join(coordinator, int(processes), int(process))
    from jaxmia import Plan, fit, solve
    from tests.test_engine import CASES, KEY, training, walk

    assert jax.process_count() == int(processes) and len(jax.devices()) == 2 * int(processes)
    plan = Plan(chunk=3, block=5, save_seconds=0.0, progress=False)
    learner, batches = training()
    found = {"solve": solve(walk(), KEY, CASES[:23], plan=plan, folder=f"{folder}/solve")}
    for how in ("one_device", "data_parallel", "fully_sharded"):
        found[how] = fit(learner, KEY, batches, plan=plan._replace(training=how), folder=f"{folder}/{how}")
    leaves = {f"{name} {i}": leaf for name, tree in found.items() for i, leaf in enumerate(jax.tree.leaves(tree))}
    np.savez(out, **leaves)


def started(processes, folder):
    """What each of the processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder.mkdir(exist_ok=True)
    outs = [folder / f"{process}.npz" for process in range(processes)]
    command = [sys.executable, "-m", "tests.test_processes", address, str(processes)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    running = [
        subprocess.Popen([*command, str(i), str(out), str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for i, out in enumerate(outs)
    ]
    for one in running:
        words = one.communicate(timeout=300)[1]
        assert one.returncode == 0, words
    return [dict(np.load(out, allow_pickle=False)) for out in outs]


@pytest.mark.nightly
def test_two_processes_are_one(tmp_path):
    (alone,) = started(1, tmp_path / "one")
    two = started(2, tmp_path / "two")
    assert np.abs(np.diff(alone["solve 0"], axis=0)).max(1).min() > 0.1, "the cases are alike"
    for name, values in alone.items():
        np.testing.assert_array_equal(two[0][name], two[1][name])
        exact = name.startswith(("solve", "one_device"))
        np.testing.assert_allclose(two[0][name], values, rtol=0, atol=0 if exact else 1e-4, err_msg=name)
    again = started(2, tmp_path / "one")  # what one process finished two find
    for name, values in alone.items():
        np.testing.assert_array_equal(again[0][name], values)


if __name__ == "__main__":
    worker(*sys.argv[1:])
