"""The only loops of jaxmia: `solve` runs a process once per case, `fit` trains one, `run` chains an attack's stages.

`solve` keeps a fixed number of slots (devices x chunk). Each slot holds one case with its own step number; slots step
together in blocks, and a slot whose case is finished, asked to stop or went non-finite is read out and refilled with
the next case. So the compiled program has one shape, memory does not grow with the number of cases, early stopping
saves time, and a case computes the same alone, in any order, batch or number of devices: its key is
`fold_in(fold_in(key, case id), step)`. Where several processes run the same program (`jax.distributed`), each works off
its share of the cases on its own devices, and all get the whole result.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxmia import checkpoint
from jaxmia.cases import as_arrays, check_labels, count
from jaxmia.compiling import refuse_64_bit
from jaxmia.core import Attack, Cases, Info, Process, Scenario
from jaxmia.fitting import fit
from jaxmia.holding import alone
from jaxmia.identity import Identity, identify
from jaxmia.journal import Journal
from jaxmia.parallel import (
    Program,
    free_memory,
    gather_rows,
    own_rows,
    place,
    ran_out_of_memory,
    uncommitted,
)
from jaxmia.plan import Plan, check_plan, even_chunk, fitting_chunk, smaller_chunk
from jaxmia.progress import Progress
from jaxmia.slots import Programs, Slots, Status, build

__all__ = ["Plan", "Result", "Status", "fit", "learn", "run", "solve"]

LEAN = 65_536  # bytes of a case; with less, a CPU's caches hold more cases than its usual chunk, which then go faster


class Result(NamedTuple):
    """What `solve` gives back, numpy arrays with the case axis first, in the order of the cases.

    Attributes:
      output: what the process reads out of each case's final state.
      info: the last `Info` of each case; loss is +inf where no step was taken.
      status: int8, a `Status` per case.
      steps: int32, steps taken per case.
      training_queries: what the training stages asked the target, once for all cases; None where `run` trained none.
    """

    output: Any
    info: Info
    status: Int[np.ndarray, " n"]
    steps: Int[np.ndarray, " n"]
    training_queries: int | None = None


def solve(
    process: Process,
    key: Any,
    cases: Any,
    *,
    steps: int | None = None,
    ids: Any = None,
    plan: Plan = Plan(),
    folder: str | os.PathLike | None = None,
    title: str = "solve",
) -> Result:
    """Run `process` once per case.

    Args:
      process: init, step and read of one case.
      key: typed key; the same key, ids and cases give the same result however the work is cut.
      cases: pytree of arrays with a leading case axis; a list of numbers is an array.
      steps: the budget per case; None takes the process's own.
      ids: int32 `[n]`, the identity of each case's randomness; None numbers the cases. A restart is the same case
        under another id; under the same id, two settings of a sweep meet the same random numbers.
      plan: how to run it.
      folder: where finished cases and checkpoints go (created 0700), and what a target on the host answered since the
        last two of these; one that all processes share. A run that finds its own finished work there continues, with
        as many processes, without asking anything again; one that finds another's refuses. With another chunk or
        devices a candidate may differ in its last digit, and is asked again if its answer came after a checkpoint.
      title: shown by the progress bar.

    Raises:
      ValueError: for zero cases, what are no numbers, unequal leading axes, a bad plan, a folder of another run or in
        which another process works, a case that alone needs more memory than a device has left, or in JAX's 64-bit
        mode; all before anything runs.
    """
    refuse_64_bit()
    steps = process.steps if steps is None else steps
    if steps < 0:
        raise ValueError(f"steps: {steps}; legal is 0 or more")
    check_plan(plan)
    cases = as_arrays(cases)
    n = count(cases)
    return _solve(process, key, cases, _check_ids(ids, n), steps, plan, folder=folder, title=title)


@alone
def _solve(
    process: Process,
    key: Any,
    cases: Any,
    ids: Int[np.ndarray, " n"],
    steps: int,
    plan: Plan,
    *,
    folder: str | os.PathLike | None,
    title: str,
) -> Result:
    """`solve` of what is legal."""
    n, devices = len(ids), plan.devices or tuple(jax.local_devices())
    folder = checkpoint.private_folder(folder) if folder is not None else None
    own, key, work, room = own_rows(n), uncommitted(key), None, free_memory(devices)
    programs: Programs | None = None
    each, most = max(1, -(-len(own) // len(devices))), 256 if devices[0].platform == "cpu" else 1024
    chunk = plan.chunk or even_chunk(each, most, plan)
    with Progress(title, len(own) * max(steps, 1), "steps") as bar:
        while True:
            less = smaller_chunk(chunk, plan)
            try:
                programs = build(process, key, cases, ids, steps, devices, chunk, plan)
                if plan.chunk is None and room is not None and programs.memory > 0.8 * room and less:
                    chunk = fitting_chunk(less, chunk * programs.share(0.8 * room), plan)
                    continue
                _refuse_what_cannot_fit(title, programs, chunk, less, free_memory(devices))
                lean = most < 1024 and chunk == even_chunk(each, most, plan) < each and programs.memory < LEAN * chunk
                if plan.chunk is None and lean:
                    most, chunk = 1024, even_chunk(each, 1024, plan)
                    continue
                if work is None:
                    inputs = {"key": key, "cases": (cases, ids), "number of steps": steps}
                    identity = identify(programs.traced, **inputs) if folder is not None else {}
                    rows = Result(*jax.tree.map(lambda x: np.zeros((n, *x.shape[1:]), x.dtype), programs.read.shapes))
                    finished = ~np.isin(np.arange(n), own)
                    work = _Work(key, cases, ids, steps, devices, plan, folder, identity, rows, finished)
                    if folder is not None:
                        _restore_rows(work)
                _work_off(work, programs, bar)
                return gather_rows(work.rows, n)
            except jax.errors.JaxRuntimeError as error:
                asked_in_vain = programs is not None and programs.ledger.error is error
                if asked_in_vain or not (ran_out_of_memory(error) and less):
                    raise
                print(f"{title}: out of memory with {chunk} cases per device, going on with {less}", file=sys.stderr)
                chunk = less


def _refuse_what_cannot_fit(title: str, programs: Programs, chunk: int, less: int, free: int | None) -> None:
    """One sentence where even the fewest cases that run together need more than a device has."""
    if free is None or less or programs.fresh <= free:
        return
    raise ValueError(
        f"{title}: {chunk} case{'s' * (chunk > 1)} at once need{'s' * (chunk == 1)} {programs.fresh:,} bytes of a device "
        f"(to {programs.largest}), which has {free:,} free; legal is smaller images, networks or counts, or another device"
    )


class _Work(NamedTuple):
    """What a solve is about; stays when the chunk changes."""

    key: Any
    cases: Any
    ids: Int[np.ndarray, " n"]
    steps: int
    devices: Any
    plan: Plan
    folder: pathlib.Path | None
    identity: Identity  # without a folder empty
    rows: Result  # filled in place
    finished: Bool[np.ndarray, " n"]  # likewise; true as well for rows that other processes work on


def _work_off(work: _Work, programs: Programs, bar: Progress) -> None:
    """Step slots until every row is finished."""
    key, _, _, steps, devices, plan, folder, identity, rows, finished = work
    others = int(finished.size - len(own_rows(finished.size)))
    shelf, ledger = _shelf(folder), programs.ledger
    journal = ledger.kept = Journal(shelf) if shelf is not None else None
    waiting = _restore_running(work, programs, shelf)
    if journal is not None:
        journal.turn(forget=False)
    pending = np.setdiff1d(np.flatnonzero(~finished), waiting.rows).tolist()
    idle, slots = np.array(programs.example.idle), place(programs.example, devices)
    saved = time.monotonic()
    while not finished.all():
        if waiting.rows.size and idle.any():
            slots, waiting = _seat(slots, idle, waiting, devices)
            taken = np.array(slots.steps)
        if pending and idle.any():
            slots = _refill(programs.admit, work, slots, idle, pending)
            taken = np.array(slots.steps)
            ledger.raise_error()
        slots = programs.block(key, slots, int(steps - taken[~idle].min()))
        ledger.raise_error()
        taken, status = np.array(slots.steps), np.array(slots.status)
        over = ~idle & ((status != Status.RUNNING) | (taken >= steps))
        # Reading out costs a pass over all slots, so it waits until a quarter of them is over, or none is left.
        if over.sum() == (~idle).sum() or over.sum() * 4 >= over.size:
            done = np.array(slots.rows)[over]
            _collect(programs.read(key, slots), over, rows, done)
            if folder is not None:
                checkpoint.save_part(folder, done, jax.tree.map(lambda a: a[done], rows))
            finished[done], idle = True, idle | over
            slots = slots._replace(idle=place(idle, devices))
        if plan.progress:
            count = int(finished.sum()) - others
            note = f"{count}/{finished.size - others} cases"
            bar.update(count * max(steps, 1) + int(taken[~idle].sum()), note)
        due = time.monotonic() - saved >= plan.save_seconds
        if shelf is not None and journal is not None and due:
            number = max(checkpoint.saved_steps(shelf), default=0) + 1
            checkpoint.save(shelf, number, _running(slots, idle, waiting), identity=identity)
            journal.turn(forget=not waiting.rows.size)  # who waits needs what was answered before this checkpoint
            saved = time.monotonic()
    if journal is not None:
        journal.clear()


def _refill(admit: Program, work: _Work, slots: Slots, idle: np.ndarray, pending: list[int]) -> Slots:
    """Give idle slots the next pending rows; `idle` and `pending` are changed in place."""
    free = np.argwhere(idle)[: len(pending)]
    rows = np.zeros(idle.shape, np.int32)
    fresh = np.zeros(idle.shape, bool)
    for slot in free:
        rows[tuple(slot)], fresh[tuple(slot)] = pending.pop(0), True
    idle &= ~fresh
    new = (fresh, rows, work.ids[rows], jax.tree.map(lambda a: a[rows], work.cases))
    return admit(work.key, slots, *place(new, work.devices))


def _collect(read: tuple, over: np.ndarray, rows: Result, done: np.ndarray) -> None:
    """Copy the slots that are over to their rows of the result."""

    def copy(row: np.ndarray, slot: Any) -> None:
        row[done] = np.asarray(slot)[over]

    jax.tree.map(copy, tuple(rows)[:4], read)


def _shelf(folder: pathlib.Path | None) -> pathlib.Path | None:
    """Where this process keeps its checkpoints: finished rows are common to all, running slots are its own."""
    if folder is None or jax.process_count() == 1:
        return folder
    return checkpoint.private_folder(folder / f"process-{jax.process_index()}-of-{jax.process_count()}")


def _restore_rows(work: _Work) -> None:
    """Fill in what an earlier run of the same work finished."""
    folder = work.folder
    assert folder is not None
    marker = folder / "run.json"
    try:
        owner = json.loads(marker.read_bytes())["identity"] if marker.exists() else work.identity
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{marker}: damaged ({error}), so whose results these are is lost; delete {folder}") from None
    if owner != work.identity:
        raise checkpoint.holds_another(folder, owner, work.identity)
    checkpoint.write_atomically(marker, json.dumps({"identity": work.identity}).encode())
    for done, part in checkpoint.load_parts(folder, work.rows):
        jax.tree.map(lambda row, value: row.__setitem__(done, value), work.rows, part)
        work.finished[done] = True


def _running(slots: Slots, idle: np.ndarray, waiting: Slots) -> Slots:
    """What a checkpoint keeps: the cases in slots and those that wait for one, `[cases, ...]`."""
    return jax.tree.map(lambda slot, kept: np.concatenate([np.asarray(slot)[~idle], kept]), slots, waiting)


def _restore_running(work: _Work, programs: Programs, shelf: pathlib.Path | None) -> Slots:
    """The cases that an earlier run was at, whatever its chunk and devices, `[cases, ...]`."""
    nobody = jax.tree.map(
        lambda slot: slot.reshape(slot.shape[0] * slot.shape[1], *slot.shape[2:])[:0], programs.example
    )
    if shelf is None:
        return nobody
    found = checkpoint.load_newest(shelf, nobody, identity=work.identity, any_length=True)
    running = nobody if found is None else found[1]
    return jax.tree.map(lambda a: a[~work.finished[running.rows]], running)


def _seat(slots: Slots, idle: np.ndarray, waiting: Slots, devices: Any) -> tuple[Slots, Slots]:
    """Give idle slots the cases that wait, as many as there are; `idle` is changed in place."""
    free = tuple(np.argwhere(idle)[: len(waiting.rows)].T)
    seated, on_host = len(free[0]), jax.tree.map(np.array, slots)
    jax.tree.map(lambda slot, kept: slot.__setitem__(free, kept[:seated]), on_host, waiting)
    idle[free] = False
    return place(on_host, devices), jax.tree.map(lambda kept: kept[seated:], waiting)


def run(
    attack: Attack,
    key: Any,
    scenario: Scenario,
    *,
    plan: Plan = Plan(),
    ids: Any = None,
    folder: str | os.PathLike | None = None,
    title: str = "attack",
) -> Result:
    """Run an attack on a scenario: its training stages on public minibatches, then `solve` on every case.

    Arguments and errors are those of `fit` and `solve`; stage i keeps its checkpoints in `folder/stage-<i>`. Where the
    attack observes labels, or does not say what it observes and a case is one integer, cases that are no classes of the
    target are a ValueError.
    """
    refuse_64_bit()
    cases, classes = as_arrays(scenario.cases), getattr(scenario.target, "classes", None)
    count(cases)
    check_labels(cases, attack.observes, classes)
    if attack.check is not None:
        attack.check(cases, classes)
    if folder is not None and getattr(scenario.target, "identity", "") is None:
        raise ValueError(
            "folder: nothing tells whether the target, a host function, is the same when the run is resumed; give "
            "`from_callable(..., identity=...)` a text that names model and version, or no folder"
        )
    folder = checkpoint.private_folder(folder) if folder is not None else None
    if attack.train and scenario.public is None:
        raise ValueError("scenario.public: is None, but this attack trains on public data; give `step -> minibatch`")
    fitted: tuple[Any, ...] = ()
    asked = 0
    for i, stage in enumerate(attack.train, start=1):
        where = folder / f"stage-{i}" if folder else None
        trained = stage(fitted)
        output, queries = learn(
            trained, jax.random.fold_in(key, i), scenario.public, plan=plan, folder=where, title=f"{title}: stage {i}"
        )
        fitted += (output,)
        asked += queries
    result = solve(
        attack.solve(fitted),
        jax.random.fold_in(key, 0),
        cases,
        ids=ids,
        plan=plan,
        folder=folder / "solve" if folder else None,
        title=title,
    )
    return result._replace(training_queries=asked) if attack.train else result


def learn(stage: Process | Cases, key: Any, public: Any, *, title: str = "stage", **how: Any) -> tuple[Any, int]:
    """What a training stage reads out, and the queries it asked: by `fit`, or, of a stage of many parts, by `solve`.

    Args:
      stage: of an attack.
      key: typed key.
      public: `step -> minibatch`; a stage of many parts does not look at it.
      title: shown by the progress bar.
      **how: plan and folder.

    Raises:
      FloatingPointError: when the loss, or a part, goes non-finite.
      ValueError: as `fit` and `solve`.
    """
    if not isinstance(stage, Cases):
        output, history = fit(stage, key, public, title=title, **how)
        return output, int(history.queries[-1])
    result = solve(stage.process, key, stage.cases, title=title, **how)
    broken = np.flatnonzero(result.status == Status.NONFINITE)
    if broken.size:
        raise FloatingPointError(f"{title}: part {broken[0]} goes non-finite; lower the learning rate")
    return result.output, int(result.info.queries.sum())


def _check_ids(ids: Any, n: int) -> np.ndarray:
    ids = np.arange(n, dtype=np.int32) if ids is None else np.asarray(ids, np.int32)
    if ids.shape != (n,):
        raise ValueError(f"ids: shape {ids.shape}; legal is one id for each of the {n} cases")
    return ids
