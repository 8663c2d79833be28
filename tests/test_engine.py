"""What may change the speed of `solve` and `fit`, and not the result: chunks, microbatches, memory, devices."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import Plan, Process, engine, fit, info, models, parallel, slots, solve
from jaxmia.core import WORST
from jaxmia.data import minibatches
from jaxmia.holding import held
from jaxmia.models.convolution import Conv, ConvTranspose
from jaxmia.recipes import swept
from jaxmia.train import supervised
from tests.models.compiled import initialize

KEY = jax.random.key(3)
ONE = Plan(devices=tuple(jax.devices()[:1]), chunk=4, block=5, progress=False)
WEIGHTS = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
RATES = np.array([0.01, 0.05, 0.2], np.float32)


def walk(rate=0.05, steps=12):
    """A noisy descent that ends early for some cases."""

    def step(key, x, case):
        slope = jax.grad(lambda x: jnp.sum(jnp.tanh(x @ WEIGHTS) ** 2) + case * jnp.sum(x**2))(x)
        x = x - rate * slope + 0.01 * jax.random.normal(key, x.shape)
        return x, info(jnp.sum(x**2), done=jnp.sum(x**2) < 4.0)

    return Process(lambda key, case: jax.random.normal(key, (16,)), step, lambda x: x * (1 + rate), steps)


CASES = np.linspace(0, 1, 24, dtype=np.float32)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.nightly
def test_a_sweep_of_numbers_draws_what_each_setting_draws_alone():
    cases = ({"rate": np.repeat(RATES, 24)}, np.tile(CASES, 3))
    both = solve(swept(lambda s: walk(**s), steps=12), KEY, cases, ids=np.tile(np.arange(24), 3), plan=ONE)
    for i, rate in enumerate(RATES):
        alone = solve(walk(rate), KEY, CASES, plan=ONE)
        part = jax.tree.map(lambda leaf, i=i: leaf[24 * i : 24 * (i + 1)], both)
        np.testing.assert_allclose(part.output, alone.output, atol=1e-6)
        np.testing.assert_array_equal(part.steps, alone.steps)
    assert np.ptp(both.output.reshape(3, 24, 16), axis=0).max() > 0.1 and len(set(both.steps.tolist())) > 3


@pytest.mark.nightly
@pytest.mark.parametrize("loop", ["host", "scan"])
def test_with_a_microbatch_the_chunk_changes_nothing(loop):
    found = [solve(walk(), KEY, CASES, plan=ONE._replace(chunk=c, microbatch=4, loop=loop)) for c in (8, 12, 24)]
    same(found[0], found[1])
    same(found[0], found[2])
    np.testing.assert_allclose(
        found[0].output, solve(walk(), KEY, CASES, plan=ONE._replace(chunk=24)).output, atol=1e-5
    )


def chunks_tried(monkeypatch):
    tried = []

    def build(process, key, cases, ids, steps, devices, chunk, plan):
        tried.append(chunk)
        return slots.build(process, key, cases, ids, steps, devices, chunk, plan)

    monkeypatch.setattr(engine, "build", build)
    return tried


@pytest.mark.nightly
def test_the_chunk_fits_the_memory(monkeypatch):
    plan, tried = ONE._replace(chunk=None), chunks_tried(monkeypatch)
    whole = solve(walk(), KEY, CASES, plan=plan)
    assert tried == [24]
    needed = [slots.build(walk(), KEY, CASES, np.arange(24), 12, plan.devices, c, plan).memory for c in (24, 12, 6)]
    assert needed[0] > needed[1] > needed[2] > 0
    monkeypatch.setattr(engine, "free_memory", lambda devices: int(needed[2] / 0.8) + 1)
    tried.clear()
    np.testing.assert_allclose(solve(walk(), KEY, CASES, plan=plan).output, whole.output, atol=1e-5)
    assert tried[0] == 24 and len(tried) <= 3  # to halve until it fits would take a compilation each time
    assert 3 < tried[-1] <= 6
    tried.clear()
    solve(walk(), KEY, CASES, plan=plan._replace(chunk=24))  # what was asked for is done
    assert tried == [24]


@pytest.mark.nightly
def test_a_case_that_alone_is_too_large_is_refused_before_anything_runs(monkeypatch):
    ran = []

    def build(*arguments):
        return slots.build(*arguments)._replace(block=ran.append, admit=ran.append)

    monkeypatch.setattr(engine, "build", build)
    monkeypatch.setattr(engine, "free_memory", lambda devices: 1000)
    alone = slots.build(walk(), KEY, CASES, np.arange(24), 12, ONE.devices, 1, ONE)
    message = rf"walk: 1 case at once needs {alone.fresh:,} bytes of a device \(to step\), which has 1,000 free; legal"
    for chunk in (None, 1):
        with pytest.raises(ValueError, match=message):
            solve(walk(), KEY, CASES, plan=ONE._replace(chunk=chunk), title="walk")
    with pytest.raises(ValueError, match="walk: 4 cases at once need "):
        solve(walk(), KEY, CASES, plan=ONE._replace(chunk=4, microbatch=2), title="walk")
    assert ran == [] and alone.fresh < alone.memory  # the matrix, which every program is given, lies there already
    monkeypatch.setattr(engine, "build", slots.build)
    monkeypatch.setattr(engine, "free_memory", lambda devices: alone.fresh)
    assert solve(walk(), KEY, CASES, plan=ONE._replace(chunk=1)).output.shape == (24, 16)


@pytest.mark.nightly
@pytest.mark.parametrize("when", ["compiling", "running"])
def test_out_of_memory_halves_the_chunk_and_goes_on(when, monkeypatch, capsys, tmp_path):
    blocks, plan = [], ONE._replace(chunk=16, microbatch=2, block=1)
    whole = solve(walk(), KEY, CASES, plan=plan)

    def build(*arguments):
        programs, chunk = slots.build(*arguments), arguments[6]

        def block(key, slots, most):
            blocks.append(chunk)
            if chunk > 4 and len(blocks) % 5 == 0:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")
            return programs.block(key, slots, most)

        if when == "compiling" and chunk > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")
        return programs._replace(block=block)

    monkeypatch.setattr(engine, "build", build)
    same(solve(walk(), KEY, CASES, plan=plan, title="walk", folder=tmp_path), whole)
    told = capsys.readouterr().err.splitlines()
    assert told == [f"walk: out of memory with {c} cases per device, going on with {c // 2}" for c in (16, 8)]
    assert set(blocks) == ({4} if when == "compiling" else {16, 8, 4})
    same(
        solve(walk(), KEY, CASES, plan=plan._replace(chunk=4), folder=tmp_path), whole
    )  # the folder is of the same run


def test_other_errors_and_a_chunk_of_one_are_no_reason_to_go_on(monkeypatch):
    def build(*arguments):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(engine, "build", build)
    for message, chunk in (("INTERNAL: cuDNN", 16), ("RESOURCE_EXHAUSTED: Out of memory", 1)):
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            solve(walk(), KEY, CASES, plan=ONE._replace(chunk=chunk))


@pytest.mark.parametrize("mapper", ["shard_map", "pmap"])
@pytest.mark.parametrize("loop", ["host", "scan"])
def test_nothing_is_communicated(mapper, loop, monkeypatch):
    plan = ONE._replace(devices=tuple(jax.devices()[:4]), mapper=mapper, loop=loop, chunk=2)
    programs = []

    def compiled(fn, *arguments, **options):
        programs.append(parallel.compile_program(fn, *arguments, **options))
        return programs[-1]

    monkeypatch.setattr(slots, "compile_program", compiled)
    slots.build(walk(), KEY, CASES, np.arange(24), 12, plan.devices, 2, plan)
    collective = re.compile(r"all-reduce|all-gather|all-to-all|collective|reduce-scatter|send\(|recv\(")
    texts = [program.compiled_text() for program in programs]
    assert len(texts) == 3 and all("num_partitions=4" in text for text in texts)
    assert [collective.findall(text) for text in texts] == [[], [], []]


def training():
    rng = np.random.default_rng(1)
    x = rng.random((64, 4, 4, 1), np.float32)
    data = {"x": x, "y": x.reshape(64, 16)[:, :8].argmax(1).astype(np.int32)}
    return supervised(models.MLP(8, width=24), optax.adam(1e-2), steps=30), minibatches(data, 16, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["data_parallel", "fully_sharded"])
def test_training_on_four_devices_is_training_on_one(how, tmp_path):
    process, batches = training()
    alone, history = fit(process, KEY, batches, plan=ONE)
    plan = ONE._replace(devices=tuple(jax.devices()[:4]), training=how)
    spread, other = fit(process, KEY, batches, plan=plan, folder=tmp_path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), alone, spread)
    np.testing.assert_allclose(history.loss, other.loss, atol=1e-5)
    assert history.loss[-5:].mean() < history.loss[:5].mean() - 0.1
    same(fit(process, KEY, batches, plan=plan, folder=tmp_path)[0], spread)  # found finished


def test_fully_sharded_keeps_a_slice_on_each_device():
    spread = parallel.Spread(jax.devices()[:4], sharded=True)
    leaf = jax.device_put(np.zeros((3, 8, 12)), spread.layout(np.zeros((3, 8, 12))))
    assert {piece.data.shape for piece in leaf.addressable_shards} == {(3, 8, 3)}
    assert spread.layout(np.zeros(3)).is_fully_replicated


def test_minibatches_that_the_devices_do_not_divide_are_refused():
    process, _ = training()
    batches = minibatches({"x": np.zeros((9, 4, 4, 1), np.float32), "y": np.zeros(9, np.int32)}, 9, 0)
    plan = ONE._replace(devices=tuple(jax.devices()[:4]), training="data_parallel")
    with pytest.raises(ValueError, match="batch: 9 examples on 4 devices; legal is a multiple of the devices"):
        fit(process, KEY, batches, plan=plan)


def test_processes_are_told_apart():
    for processes, process in ((None, 0), (2, None), (2, 2), (2, -1)):
        with pytest.raises(ValueError, match=f"process {process} of {processes} at here:1: legal is"):
            parallel.join("here:1", processes, process)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(), (3, 5), (784,)])
def test_one_number_that_is_not_finite_is_found_wherever_it_lies(shape, value, dtype):
    size = int(np.prod(shape))
    numbers = np.full((size + 1, size), np.finfo(np.float16).max, np.float32)
    numbers[np.arange(size), np.arange(size)] = value  # in another place in every row, the last row is whole
    state = (jnp.asarray(numbers, dtype).reshape(-1, *shape), jnp.full(size + 1, WORST), jnp.zeros(size + 1, int))
    np.testing.assert_array_equal(jax.jit(slots._finite)(state), np.arange(size + 1) == size)


def test_no_step_is_taken_beyond_the_last(monkeypatch):
    taken, step = [], slots._Blocks.__call__

    def counted(self, key, now, most):
        taken.append(min(self.length, most))
        return step(self, key, now, most)

    monkeypatch.setattr(slots._Blocks, "__call__", counted)
    solve(walk(), KEY, CASES[:4], steps=8, plan=ONE._replace(chunk=4, block=5))
    assert sum(taken) == 8, taken


@pytest.mark.parametrize(
    ("module", "descends", "looped"),
    [
        (nn.Conv(2, (3, 3)), True, False),
        pytest.param(nn.ConvTranspose(2, (4, 4), (2, 2)), True, False, marks=pytest.mark.nightly),
        pytest.param(nn.Conv(2, (3, 3)), False, True, marks=pytest.mark.nightly),
        (Conv(2, (3, 3)), True, True),
        pytest.param(ConvTranspose(2, (4, 4), stride=2, padding=1), True, True, marks=pytest.mark.nightly),
        (nn.Dense(2), True, True),
    ],
)
def test_the_device_loops_unless_a_gradient_would_be_slow_there(module, descends, looped):
    image = jnp.ones((1, 4, 4, 3))
    variables = initialize(module, image)

    def energy(x):
        return jnp.sum(module.apply(variables, x) ** 2)

    def step(key, x, case):
        return x - jax.grad(energy)(x) if descends else x, info(energy(x))

    process = Process(lambda key, case: image, step, lambda x: x)
    programs = slots.build(process, KEY, CASES[:2], np.arange(2), 3, ONE.devices, 2, ONE)
    assert programs.block.looped == looped


@pytest.mark.nightly
def test_lean_cases_go_in_larger_chunks(monkeypatch):
    chunks, build = [], slots.build
    monkeypatch.setattr(engine, "build", lambda *arguments: (chunks.append(arguments[6]), build(*arguments))[1])
    cases = np.ones(600, np.float32)
    solve(walk(), KEY, cases, steps=1, plan=Plan(devices=tuple(jax.devices()[:1])))
    monkeypatch.setattr(engine, "LEAN", 0)
    solve(walk(), KEY, cases, steps=1, plan=Plan(devices=tuple(jax.devices()[:1])))
    assert chunks == [200, 600, 200]


def test_cases_of_another_shape_are_named():
    """JAX speaks of the operation that fails; what a case was is in a note."""
    attack = Process(lambda key, label: jax.nn.one_hot(label, 3).reshape(3), walk().step, lambda state: state, 0)
    with pytest.raises(TypeError) as caught:
        solve(attack, KEY, np.zeros((4, 2), np.int32), plan=ONE)
    assert "one case is int32[2]; see the attack's docstring" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("work", ["solve", "fit"])
def test_a_folder_that_another_process_works_in_is_refused(work, tmp_path):
    def begin():
        if work == "solve":
            return solve(walk(), KEY, CASES[:4], plan=ONE, folder=tmp_path)
        process = Process(lambda key, x: jnp.zeros(()), lambda key, s, x: (s, info(s)), lambda s: s, 2)
        return fit(process, KEY, lambda step: np.zeros((4, 1), np.float32), plan=ONE, folder=tmp_path)

    with (
        held(tmp_path, "somebody's run"),
        pytest.raises(ValueError, match=r"in use by process \d+ on .*somebody's run"),
    ):
        begin()
    assert begin() is not None and not (tmp_path / "lock").exists()
