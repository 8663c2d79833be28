"""kill -9 at any moment, and any number of devices, changes nothing: each run is a process of its own.

Run as a script, this file is the worker: `python test_survive_kill.py JOB FOLDER OUT`.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

KILLS = {"solve": (1, 4, 1), "fit": (2, 3, 4)}  # seed of the moments, how many, steps between two checkpoints
PEOPLE, SIZE = 12, (8, 8, 1)


def problem(convolutional):
    """GMI on an untrained network: gradients through it, and random starts that depend on the case alone."""
    import jax

    from jaxmia import attacks, from_linen, models, priors
    from jaxmia.oracle import Access

    module = models.VGG(PEOPLE, stages=((4,),), hidden=8) if convolutional else models.MLP(PEOPLE, width=24)
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, *SIZE)))
    target = from_linen(module, variables, classes=PEOPLE)
    prior = priors.eigen(np.random.default_rng(0).random((20, *SIZE), np.float32), 10)
    oracle, options = target.view(Access.WEIGHTS), {"steps": 48, "restarts": 1, "rate": 2.0}
    return attacks.get("image/gmi").factory(oracle, prior, **options).solve(())


def worker(job, folder, out):
    import jax
    import optax

    from jaxmia import Plan, fit, models, solve
    from jaxmia.data import minibatches
    from jaxmia.train import supervised

    key = jax.random.key(7)
    if job == "solve":
        plan = Plan(chunk=4, block=4, save_seconds=0.0, progress=False)
        results = {"gmi": solve(problem(False), key, np.arange(PEOPLE), folder=folder, plan=plan)}
    elif job == "fit":
        rng = np.random.default_rng(1)
        data = {"x": rng.random((64, *SIZE), np.float32), "y": rng.integers(0, PEOPLE, 64, dtype=np.int32)}
        process = supervised(models.MLP(PEOPLE, width=24), optax.adam(1e-2), steps=200)
        plan = Plan(block=4, save_seconds=0.0, progress=False)
        results = {"mlp": fit(process, key, minibatches(data, 16, 0), folder=folder, plan=plan)}
    else:
        results = {}
        for name, convolutional in (("mlp", False), ("conv", True)):
            process, everyone, one = problem(convolutional), np.arange(PEOPLE), len(jax.devices()) == 1
            for chunk, chosen in [(2, everyone), (2, everyone[[9, 5, 0]])] + [(5, everyone), (1, everyone[5:6])] * one:
                for mapper in ("shard_map", "pmap") if chosen is everyone else ("shard_map",):
                    plan = Plan(chunk=chunk, mapper=mapper, progress=False)
                    found = solve(process, key, chosen, ids=chosen, plan=plan)
                    results[f"{name}/{mapper}/{chunk}/{chosen.tolist()}"] = found
    arrays = {f"{name}/{i}": leaf for name, tree in results.items() for i, leaf in enumerate(jax.tree.leaves(tree))}
    np.savez(out + ".part.npz", **arrays)
    os.rename(out + ".part.npz", out)


def started(job, folder, out, cache, devices=1):
    """A worker that dies of any complaint about what it finds in its folder."""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    strict = ["-W", "error::UserWarning:jaxmia.engine"]
    command = [sys.executable, *strict, __file__, job, str(folder), str(out)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finished(process, out):
    _, words = process.communicate(timeout=300)
    assert process.returncode == 0, words
    with np.load(out, allow_pickle=False) as arrays:
        return dict(arrays)


def newest(folder):
    """Number of the newest checkpoint."""
    return max((int(file.stem.removeprefix("step-")) for file in folder.glob("step-*.json")), default=0)


@pytest.mark.nightly
@pytest.mark.parametrize("job", KILLS)
def test_kills_change_nothing(job, tmp_path):
    folder, out, cache, (seed, kills, every) = tmp_path / "run", tmp_path / "out.npz", tmp_path / "cache", KILLS[job]
    alone = finished(started(job, tmp_path / "alone", out, cache), out)
    out.unlink()
    moments, parts, found = np.random.default_rng(seed), {}, [0]
    for _ in range(kills):
        process, enough = started(job, folder, out, cache), found[-1] + every * moments.integers(2, 10)
        while newest(folder) < enough and process.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))  # a block with its checkpoint takes about as long
        process.send_signal(signal.SIGKILL)
        _, words = process.communicate()
        assert process.returncode == -signal.SIGKILL and not out.exists(), words
        for manifest in folder.glob("step-*.json"):
            assert f"step-{json.loads(manifest.read_bytes())['step']}" == manifest.stem
        for part in folder.glob("part-*.npz"):
            assert hashlib.sha256(part.read_bytes()).hexdigest()[:32] == part.stem.rsplit("-", 1)[1]
            parts.setdefault(part, part.stat().st_mtime_ns)
        found.append(newest(folder))
    assert found == sorted(set(found)), "every run went on where the one before was killed"
    assert parts or job == "fit", "no case was finished before the last kill"
    final = finished(started(job, folder, out, cache), out)
    assert {part: part.stat().st_mtime_ns for part in parts} == parts, "a finished part was written again"
    assert not list(folder.glob("*.damaged"))
    assert final.keys() == alone.keys()
    for name, values in alone.items():
        np.testing.assert_array_equal(final[name], values, strict=True)


@pytest.mark.nightly
def test_devices_batches_and_chunks_change_nothing(tmp_path):
    found = {}
    for devices in (1, 2, 4, 8):  # eight with two cases each are more than there are: padding
        out = tmp_path / f"{devices}.npz"
        found[devices] = finished(started("devices", "-", out, tmp_path / "cache", devices), out)
    for devices, arrays in found.items():
        for key, values in arrays.items():
            name, _, chunk, chosen, leaf = key.split("/")
            everyone = found[1][f"{name}/shard_map/2/{list(range(PEOPLE))}/{leaf}"]
            want, told = everyone[json.loads(chosen)], f"{key} on {devices} devices"
            if name == "mlp" and chunk == "2":
                np.testing.assert_array_equal(values, want, err_msg=told)
            elif leaf == "0":  # the candidates, pixels in [0, 1]
                np.testing.assert_allclose(values, want, rtol=0, atol=1e-6, err_msg=told)
                assert np.ptp(everyone, axis=0).max() > 0.1, "the cases are alike: mixing them up would not show"


if __name__ == "__main__":
    worker(*sys.argv[1:])
