"""A target on the host is asked what is counted, its errors come out as they are, and kill -9 makes it answer nothing anew.

Run as a script, this file is the worker that is killed: `python test_queries.py FOLDER ASKED LAST OUT`.
"""

import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import (
    Access,
    Plan,
    Process,
    Scenario,
    Status,
    checkpoint,
    fit,
    from_callable,
    from_function,
    info,
    models,
    priors,
    run,
    slots,
    solve,
)
from jaxmia.attacks.image.brep_mi import brep_mi
from jaxmia.attacks.image.mirror_genetic import mirror_genetic
from jaxmia.engine import learn
from jaxmia.journal import Journal
from jaxmia.recipes import best_of, evolve, regress, swept
from jaxmia.recipes.by_class import by_class

KEY, SHAPE, CLASSES = jax.random.key(7), (2, 2, 3), 4
WEIGHTS = np.random.default_rng(0).normal(size=(12, CLASSES)).astype(np.float32)
PUBLIC = np.random.default_rng(1).random((30, *SHAPE), np.float32)
PRIOR = priors.eigen(PUBLIC, 3)
QUIET = Plan(devices=tuple(jax.devices()[:1]), progress=False)


def logits(x):
    return x.reshape(len(x), -1) @ WEIGHTS


class Endpoint:
    """A model that counts what it is asked, and may fail at one of its calls."""

    def __init__(self, fails=None, error=None):
        self.calls, self.asked, self.fails, self.error = 0, 0, fails, error

    def scores(self, x):
        self.calls += 1
        if self.calls == self.fails:
            raise self.error
        self.asked += len(x)
        likely = np.exp(logits(x) - logits(x).max(1, keepdims=True))
        x -= 1.0  # its own to change
        return likely / likely.sum(1, keepdims=True)

    def labels(self, x):
        return self.scores(x).argmax(1)


def labels_of(endpoint):
    return from_callable(endpoint.labels, classes=CLASSES, granted=Access.LABELS, identity="endpoint")


@pytest.mark.parametrize("settings", [{"budget": 45}, {"patience": 5}], ids=str)
@pytest.mark.parametrize(
    "plan",
    [
        {"chunk": 8},
        pytest.param({"chunk": 1}, marks=pytest.mark.nightly),
        pytest.param({"chunk": 2, "loop": "host"}, marks=pytest.mark.nightly),
        pytest.param({"chunk": 4, "microbatch": 2}, marks=pytest.mark.nightly),
        {"chunk": 1, "devices": tuple(jax.devices()[:4])},
        pytest.param({"chunk": 2, "devices": tuple(jax.devices()[:2]), "mapper": "pmap"}, marks=pytest.mark.nightly),
    ],
    ids=str,
)
def test_no_query_is_asked_that_is_not_counted(plan, settings):
    endpoint = Endpoint()
    attack = brep_mi(labels_of(endpoint).view(Access.LABELS), PRIOR, steps=60, points=8, **settings)
    found = solve(attack.solve(()), KEY, np.arange(3), plan=QUIET._replace(**plan))
    assert endpoint.asked == found.info.queries.sum()
    assert found.info.queries.max() <= settings.get("budget", 540)
    assert settings.get("budget") or len(set(found.steps.tolist())) > 1, "all end at once: nothing is shown"


def test_a_block_that_runs_beyond_the_last_step_asks_nothing_there(monkeypatch):
    endpoint, call = Endpoint(), slots._Blocks.__call__  # as on a GPU, where a block has one length
    monkeypatch.setattr(slots._Blocks, "__call__", lambda self, key, now, most: call(self, key, now, self.most))
    attack = brep_mi(labels_of(endpoint).view(Access.LABELS), PRIOR, steps=7, points=8)
    found = solve(attack.solve(()), KEY, np.arange(3), plan=QUIET._replace(chunk=2, block=4, loop="scan"))
    assert found.steps.tolist() == [7, 7, 7] and endpoint.asked == found.info.queries.sum() == 3 * 7 * 9


@pytest.mark.parametrize("training", ["one_device", "data_parallel"])
def test_training_asks_every_example_of_a_minibatch_once(training):
    endpoint, plan = Endpoint(), Plan(devices=tuple(jax.devices()[:2]), training=training, progress=False)
    oracle = from_callable(endpoint.scores, classes=CLASSES).view(Access.SCORES)
    stage = regress(models.SoftmaxRegression(12), oracle.answer, optax.sgd(0.1), steps=5, loss=lambda a, b: a.sum())
    _, history = fit(stage, KEY, lambda step: {"x": PUBLIC[:6]}, plan=plan)
    assert endpoint.asked == history.queries[-1] == 30 and history.queries[0] == 6


@pytest.mark.nightly
def test_a_training_stage_of_every_class_counts_what_its_classes_ask():
    endpoint = Endpoint()
    oracle = from_callable(endpoint.scores, classes=CLASSES).view(Access.SCORES)
    _, told = learn(by_class(questions(oracle, 3), CLASSES), KEY, None, plan=QUIET)
    assert endpoint.asked == told == CLASSES * (4 + 3 * 2)


def questions(oracle, steps=5, mutation=0.1):
    def fitness(key, x, case):
        return -oracle.answer(key, x)[case]

    return evolve(fitness, PRIOR, members=4, steps=steps, mutation=mutation)


@pytest.mark.nightly
def test_sweeps_and_restarts_count_what_they_ask():
    endpoint = Endpoint()
    oracle = from_callable(endpoint.scores, classes=CLASSES).view(Access.SCORES)

    cases = ({"mutation": np.array([0.1, 0.2, 0.3], np.float32)}, np.arange(3, dtype=np.int32))
    for steps in (0, 3):  # without a step its start has asked all the same
        before = endpoint.asked
        found = solve(
            swept(lambda s: best_of(questions(oracle, **s), 2), 5), KEY, cases, ids=[0, 0, 1], steps=steps, plan=QUIET
        )
        assert endpoint.asked - before == found.info.queries.sum() == 3 * 2 * (4 + 2 * steps)


@pytest.mark.nightly
def test_a_step_that_goes_wrong_has_asked_all_the_same():
    endpoint = Endpoint()

    def scores(x):
        answers = endpoint.scores(x)
        return np.where(endpoint.asked > 40, np.nan, answers)

    process = questions(from_callable(scores, classes=CLASSES).view(Access.SCORES), steps=20)

    def begin(key, case):
        state = process.init(key, case)
        return state._replace(fitness=state.fitness * jnp.nan)

    for plan in (QUIET._replace(chunk=2), QUIET._replace(chunk=4)):
        endpoint.asked = 0
        found = solve(process, KEY, np.arange(3), plan=plan)
        assert endpoint.asked == found.info.queries.sum()
        assert Status.NONFINITE in found.status
    endpoint.asked = 0
    found = solve(process._replace(init=begin), KEY, np.arange(3), plan=QUIET)
    assert endpoint.asked == found.info.queries.sum() == 12


def test_functions_that_are_traced_once_ask_for_who_calls_them():
    endpoint = Endpoint()
    oracle = from_callable(endpoint.scores, classes=CLASSES).view(Access.SCORES)
    ask = jax.jit(oracle.answer)

    def init(key, case):
        return ask(key, jnp.full(SHAPE, 0.5))[case]  # one image, asked for each case

    def asking(key, state, case):
        each = jax.lax.map(lambda x: ask(key, jnp.full(SHAPE, x))[case], jnp.linspace(0, 1, 5), batch_size=3)
        same = jax.vmap(lambda k: ask(k, jnp.full(SHAPE, 0.5)))(jax.random.split(key, 3))  # equal, and three queries
        last, _ = jax.lax.scan(
            lambda total, k: (total + ask(k, jnp.full(SHAPE, 0.1))[case], None), 0.0, jax.random.split(key, 2)
        )
        slope = jax.grad(lambda w: w * ask(key, jnp.full(SHAPE, 0.2))[case])(state)  # not by the image
        return state + 0 * (each.sum() + same.sum() + last + slope), info(last)

    found = solve(Process(init, asking, lambda state: state, 2), KEY, np.arange(3), plan=QUIET._replace(chunk=2))
    assert endpoint.asked == 3 * (1 + 2 * (5 + 3 + 2 + 1))
    assert np.all(found.status == Status.RUNNING)


def test_the_program_of_a_model_on_the_device_holds_no_lane():
    from jaxmia.queries import Lane, Ledger, asking

    target, ledger = from_function(lambda p, x: x.reshape(len(x), -1) @ p, WEIGHTS, classes=CLASSES), Ledger()

    def text(answer, within):
        def ask(lane, x):
            with asking(ledger, Lane(lane, 0, 0)) if within else contextlib.nullcontext():
                return answer(KEY, x)

        return str(jax.make_jaxpr(ask)(True, np.ones(SHAPE)))

    for access in (Access.LABELS, Access.SCORES, Access.WEIGHTS):
        assert text(target.view(access).answer, True) == text(target.view(access).answer, False)
    assert not ledger.asks
    legacy = from_callable(Endpoint().scores, classes=CLASSES).view(Access.SCORES).answer
    assert legacy(jax.random.PRNGKey(0), jnp.zeros(SHAPE)).shape == (CLASSES,)
    host = labels_of(Endpoint()).view(Access.LABELS).answer
    assert text(host, True) != text(host, False) and ledger.asks


class OutOfQuota(Exception):
    pass


@pytest.mark.nightly
@pytest.mark.parametrize("call", [6, 10])
def test_an_error_comes_out_as_it_was_and_what_was_answered_is_kept(call, tmp_path):
    alone = Endpoint()
    wanted = search(alone, None)
    endpoint = Endpoint(fails=call, error=OutOfQuota("429: come back tomorrow"))
    with pytest.raises(OutOfQuota, match="^429: come back tomorrow$"):
        search(endpoint, tmp_path)
    assert not list(tmp_path.rglob("part-*"))
    found = search(endpoint, tmp_path)  # no checkpoint was due, but the answers were kept
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert endpoint.asked == alone.asked == found.info.queries.sum() + found.training_queries
    assert search(endpoint, tmp_path).status.tolist() == found.status.tolist() and endpoint.asked == alone.asked


def test_a_run_that_goes_on_with_another_chunk_or_devices_asks_nothing_twice(tmp_path):
    def found(endpoint, folder=None, **plan):
        oracle = labels_of(endpoint).view(Access.LABELS)

        def step(key, x, case):  # exact however many go together, unlike a product of matrices
            label = oracle.answer(key, x)
            return (x + jnp.where(label == case, 1, 2)) * 0.5, info(jnp.asarray(label, jnp.float32), queries=1)

        process = Process(lambda key, case: jax.random.uniform(key, SHAPE), step, lambda x: x, 21)
        plan = QUIET._replace(**{"block": 2, "save_seconds": 0.0, **plan})
        return solve(process, KEY, np.arange(CLASSES), plan=plan, folder=folder)

    wanted = found(Endpoint(), chunk=4)
    endpoint = Endpoint()
    # All four ran a bit; then one at a time; then those that are left beside each other.
    for chunk, fails in ((4, 4), (1, 24), (3, 7)):
        endpoint.calls, endpoint.fails, endpoint.error = 0, fails, OutOfQuota("429")
        with pytest.raises(OutOfQuota):
            found(endpoint, tmp_path, chunk=chunk)
    endpoint.fails = None
    jax.tree.map(
        np.testing.assert_array_equal, found(endpoint, tmp_path, chunk=1, devices=tuple(jax.devices()[:2])), wanted
    )
    assert endpoint.asked == 21 * CLASSES, "the last call of every failure is asked again, and nothing else"
    assert not list(tmp_path.glob("answers-*"))


def search(endpoint, folder, **plan):
    """Training and a search that both ask, in blocks of four steps."""
    target = from_callable(endpoint.scores, classes=CLASSES, identity="endpoint")
    attack = mirror_genetic(
        target.view(Access.SCORES), PRIOR, CLASSES, steps=12, members=10, pool_steps=8, pool_draws=20, confident=0.9999
    )
    scenario = Scenario(target, np.arange(CLASSES), public=lambda step: {"x": PUBLIC[:4]})
    return run(attack, KEY, scenario, plan=QUIET._replace(chunk=3, block=4, **plan), folder=folder)


def test_errors_of_training_come_out_as_they_were():
    endpoint = Endpoint(fails=3, error=TimeoutError("no answer"))
    oracle = from_callable(endpoint.scores, classes=CLASSES).view(Access.SCORES)

    def step(key, state, batch):
        return state, info(jax.vmap(oracle.answer, (None, 0))(key, batch["x"]).sum())

    process = Process(lambda key, batch: jnp.zeros(()), step, lambda state: state, 5)
    with pytest.raises(TimeoutError, match="^no answer$"):
        fit(process, KEY, lambda step: {"x": PUBLIC[:4]}, plan=QUIET)
    assert endpoint.calls == 3, "asked on after it failed"


def test_a_torn_record_is_cut_off_and_the_others_are_answers(tmp_path):
    journal, answers = Journal(tmp_path), np.arange(12, dtype=np.float32).reshape(3, 4)
    journal.add([b"0" * 16, b"1" * 16, b"1" * 16], answers)
    (file,) = tmp_path.glob("answers-*.bin")
    assert file.stat().st_mode & 0o777 == 0o600
    whole = file.read_bytes()
    for torn in (whole[:-1], whole[:-5] + b"?" + whole[-4:]):
        file.write_bytes(torn)
        again = Journal(tmp_path)
        np.testing.assert_array_equal(again.take(b"1" * 16), answers[1])
        assert again.take(b"1" * 16) is None, "an answer is taken once"
        again.add([b"2" * 16], answers[2:])
        third = Journal(tmp_path)
        np.testing.assert_array_equal([third.take(bytes([c]) * 16) for c in b"012"], answers)
    third.clear()
    assert list(tmp_path.glob("answers-*.bin")) == [file], "what `init` was answered is needed at every start"


def test_answers_before_the_older_of_two_checkpoints_are_forgotten(tmp_path):
    journal = Journal(tmp_path)
    for step in range(4):
        journal.turn()
        journal.add([bytes([step]) * 16], np.zeros((1, 2), np.float32))
        checkpoint.save(tmp_path, step + 1, (np.zeros(3),), identity={})
    journal.turn()
    kept = Journal(tmp_path)
    assert [kept.take(bytes([step]) * 16) is not None for step in range(4)] == [False, False, False, True]
    journal.clear()
    assert not list(tmp_path.glob("answers-*"))


def worker(folder, asked, last, out):
    """The search, asked questions written to a file; the call `last` kills the process before it is one."""
    endpoint = Endpoint()
    answer, calls = endpoint.scores, [0]

    def scores(x):
        calls[0] += 1
        if calls[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(asked, "ab") as file:
            file.write(b"".join(hashlib.sha256(row.tobytes()).digest() for row in x))
        return answer(x)

    endpoint.scores = scores
    found = search(endpoint, folder, save_seconds=0.0)
    np.savez(out, *jax.tree.leaves(found))


@pytest.mark.nightly
def test_kill_9_makes_it_answer_nothing_twice(tmp_path):
    def work(name, last):
        out = tmp_path / f"{name}.npz"
        command = [sys.executable, __file__, str(tmp_path / name), str(tmp_path / f"{name}.asked"), str(last), str(out)]
        environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
        process = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=300)
        if last:
            assert process.returncode == -signal.SIGKILL and not out.exists(), process.stderr
            return None
        assert process.returncode == 0, process.stderr
        with np.load(out) as arrays:
            return dict(arrays)

    def asked(name):
        content = (tmp_path / f"{name}.asked").read_bytes()
        return Counter(content[i : i + 32] for i in range(0, len(content), 32))

    wanted = work("alone", 0)
    for last in (3, 8, 7):  # within training, within its last block or the search, within the search
        work("killed", last)
    found = work("killed", 0)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
    assert asked("killed") == asked("alone")
    left = sorted(path.name for path in (tmp_path / "killed" / "solve").iterdir())
    assert not [name for name in left if name.startswith("answers")], left


if __name__ == "__main__":
    worker(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
