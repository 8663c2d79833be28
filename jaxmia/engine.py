"""The only loops of jaxmia: `solve` runs a process once per case, `fit` trains one, `run` chains an attack's stages.

`solve` keeps a fixed number of slots (devices x chunk). Each slot holds one case with its own step number; slots step
together in blocks, and a slot whose case is finished, asked to stop or went non-finite is read out and refilled with
the next case. So the compiled program has one shape, memory does not grow with the number of cases, early stopping
saves time, and a case computes the same alone, in any order, batch or number of devices: its key is
`fold_in(fold_in(key, case id), step)`.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from jaxmia import checkpoint
from jaxmia.core import Attack, Info, Process, Scenario
from jaxmia.parallel import Program, place, traced
from jaxmia.plan import Plan, check_plan
from jaxmia.progress import Progress
from jaxmia.slots import Programs, Slots, Status, build, check_stable, fingerprint

__all__ = ["Plan", "Result", "Status", "fit", "run", "solve"]


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
      cases: pytree of arrays with a leading case axis.
      steps: the budget per case; None takes the process's own.
      ids: int32 `[n]`, distinct case ids; None numbers the cases. A restart is the same case under another id.
      plan: how to run it.
      folder: where finished cases and checkpoints go (created 0700). A run that finds its own finished work there
        continues; one that finds another's refuses.
      title: shown by the progress bar.

    Raises:
      ValueError: for zero cases, unequal leading axes, repeated ids, a bad plan, or a folder of another run.
    """
    steps = process.steps if steps is None else steps
    if steps < 0:
        raise ValueError(f"steps: {steps}; legal is 0 or more")
    check_plan(plan)
    cases, ids, n = _check_cases(cases, ids)
    devices = plan.devices or tuple(jax.local_devices())
    chunk = plan.chunk or min(256, -(-n // len(devices)))
    folder = checkpoint.private_folder(folder) if folder is not None else None
    programs = build(process, key, cases, ids, steps, devices, chunk, plan)
    shapes = jax.eval_shape(programs.read, key, programs.example)
    rows = Result(*jax.tree.map(lambda x: np.zeros((n,) + x.shape[2:], x.dtype), shapes))
    row_of = {int(case_id): row for row, case_id in enumerate(ids)}
    finished, slots = np.zeros(n, bool), programs.example
    if folder is not None:
        finished, slots = _restore(folder, programs, rows, row_of)
    idle = np.array(slots.idle)
    running = {int(case_id) for case_id in slots.ids[~idle]}
    pending = [row for row in range(n) if not finished[row] and int(ids[row]) not in running]
    slots = place(slots, devices)

    saved = time.monotonic()
    with Progress(title, n * max(steps, 1), "steps") as bar:
        while not finished.all():
            if pending and idle.any():
                slots = _refill(programs.admit, key, slots, idle, pending, cases, ids, devices)
            slots = programs.block(key, slots)
            taken, status = np.array(slots.steps), np.array(slots.status)
            over = ~idle & ((status != Status.RUNNING) | (taken >= steps))
            # Reading out costs a pass over all slots, so it waits until a quarter of them is over, or none is left.
            if over.sum() == (~idle).sum() or over.sum() * 4 >= over.size:
                done = np.array([row_of[int(case_id)] for case_id in np.array(slots.ids)[over]])
                _collect(programs.read(key, slots), over, rows, done)
                if folder is not None:
                    checkpoint.save_part(folder, ids[done], jax.tree.map(lambda a: a[done], rows))
                finished[done], idle = True, idle | over
                slots = slots._replace(idle=place(idle, devices))
            if plan.progress:
                count = int(finished.sum())
                bar.update(count * max(steps, 1) + int(taken[~idle].sum()), f"{count}/{n} cases")
            if folder is not None and time.monotonic() - saved >= plan.save_seconds:
                number = max(checkpoint.saved_steps(folder), default=0) + 1
                checkpoint.save(folder, number, slots, fingerprint=programs.fingerprint)
                saved = time.monotonic()
    return rows


def _refill(
    admit: Program,
    key: Any,
    slots: Slots,
    idle: np.ndarray,
    pending: list[int],
    cases: Any,
    ids: np.ndarray,
    devices: Any,
) -> Slots:
    """Give idle slots the next pending cases; `idle` and `pending` are changed in place."""
    free = np.argwhere(idle)[: len(pending)]
    rows = np.zeros(idle.shape, np.int64)
    fresh = np.zeros(idle.shape, bool)
    for slot in free:
        rows[tuple(slot)], fresh[tuple(slot)] = pending.pop(0), True
    idle &= ~fresh
    new = (fresh, ids[rows], jax.tree.map(lambda a: a[rows], cases))
    return admit(key, slots, *place(new, devices))


def _collect(read: tuple, over: np.ndarray, rows: Result, done: np.ndarray) -> None:
    """Copy the slots that are over to their rows of the result."""

    def copy(row: np.ndarray, slot: Any) -> None:
        row[done] = np.asarray(slot)[over]

    jax.tree.map(copy, tuple(rows)[:4], read)


def _restore(folder: Any, programs: Programs, rows: Result, row_of: dict[int, int]) -> tuple[np.ndarray, Slots]:
    """Finished cases and running slots that an earlier run of the same work left in `folder`."""
    marker = folder / "run.json"
    try:
        owner = json.loads(marker.read_bytes())["fingerprint"] if marker.exists() else programs.fingerprint
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{marker}: damaged ({error}), so whose results these are is lost; delete {folder}") from None
    if owner != programs.fingerprint:
        raise ValueError(
            f"folder {folder}: holds another run (other inputs, settings or code); "
            "name an empty folder, or delete this one to start again"
        )
    checkpoint.write_atomically(marker, json.dumps({"fingerprint": programs.fingerprint}).encode())
    finished, slots = np.zeros(len(row_of), bool), programs.example
    for part_ids, part in checkpoint.load_parts(folder, rows):
        done = np.array([row_of[int(case_id)] for case_id in part_ids])
        jax.tree.map(lambda row, value: row.__setitem__(done, value), rows, part)
        finished[done] = True
    found = checkpoint.load_newest(folder, slots, fingerprint=programs.fingerprint)
    if found is not None:
        slots = found[1]
        over = np.vectorize(lambda case_id: finished[row_of[int(case_id)]])(slots.ids)
        slots = slots._replace(idle=slots.idle | over)
    return finished, slots


def fit(
    process: Process,
    key: Any,
    batches: Callable[[int], Any],
    *,
    steps: int | None = None,
    plan: Plan = Plan(),
    folder: str | os.PathLike | None = None,
    title: str = "fit",
) -> tuple[Any, Info]:
    """Train one process over minibatches.

    Args:
      process: a training run; its data is a minibatch.
      key: typed key; step t gets `fold_in(key, t)`.
      batches: `step -> minibatch`, pure: the same step gives the same batch.
      steps: number of steps; None takes the process's own.
      plan: block, save_seconds and progress are used.
      folder: where checkpoints go; a run that finds its own there continues to the same result.
      title: shown by the progress bar.

    Returns:
      What the process reads out, and the history as an `Info` of numpy arrays `[steps]`.

    Raises:
      FloatingPointError: when the loss goes non-finite, naming the step.
      ValueError: for fewer than one step, a bad plan, or a folder of another run.
    """
    steps = process.steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")
    check_plan(plan)
    folder = checkpoint.private_folder(folder) if folder is not None else None
    first = batches(0)
    state = jax.jit(process.init)(jax.random.fold_in(key, 0), first)
    stepped, (after, told), text = traced(process.step, key, state, first)
    check_stable(state, after)
    advance = jax.jit(lambda t, state, batch: stepped(jax.random.fold_in(key, t), state, batch), donate_argnums=1)
    history = jax.tree.map(lambda x: np.zeros((steps,) + x.shape, x.dtype), told)
    done, run_print = 0, fingerprint(text, steps, key, first, state)
    if folder is not None:
        found = checkpoint.load_newest(folder, (state, history), fingerprint=run_print)
        if found is not None:
            done, (state, history) = found
            state = jax.tree.map(jax.numpy.asarray, state)  # what is read out is the same whether resumed or not
    saved = time.monotonic()
    with Progress(title, steps, "steps") as bar:
        while done < steps:
            block = []
            for t in range(done, min(done + plan.block, steps)):
                state, one = advance(t + 1, state, batches(t))
                block.append(one)
            for t, one in enumerate(jax.device_get(block), start=done):
                jax.tree.map(lambda rows, value, t=t: rows.__setitem__(t, value), history, one)
                if not np.isfinite(one.loss):
                    raise FloatingPointError(
                        f"{title}: the loss is {one.loss} at step {t + 1}; lower the learning rate"
                    )
            done += len(block)
            if plan.progress:
                bar.update(done, f"loss {history.loss[done - 1]:.4g}")
            if folder is not None and (done == steps or time.monotonic() - saved >= plan.save_seconds):
                checkpoint.save(folder, done, (state, history), fingerprint=run_print)
                saved = time.monotonic()
    return process.read(state), history


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

    Arguments and errors are those of `fit` and `solve`; stage i keeps its checkpoints in `folder/stage-<i>`. Cases that
    are one integer each are class labels; one that the target does not have is a ValueError.
    """
    labels = scenario.cases
    if isinstance(labels, np.ndarray | jax.Array) and labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        wrong = np.asarray(labels)[(labels < 0) | (labels >= scenario.target.classes)]
        if wrong.size:  # indexing in a compiled program would take the nearest class and say nothing
            raise ValueError(f"cases: label {wrong[0]}; legal is 0 to {scenario.target.classes - 1}")
    folder = checkpoint.private_folder(folder) if folder is not None else None
    if attack.train and scenario.public is None:
        raise ValueError("scenario.public: is None, but this attack trains on public data; give `step -> minibatch`")
    fitted: tuple[Any, ...] = ()
    asked = 0
    for i, stage in enumerate(attack.train, start=1):
        output, history = fit(
            stage(fitted),
            jax.random.fold_in(key, i),
            scenario.public,  # type: ignore[arg-type]
            plan=plan,
            folder=folder / f"stage-{i}" if folder else None,
            title=f"{title}: stage {i}",
        )
        fitted += (output,)
        asked += int(history.queries[-1])
    result = solve(
        attack.solve(fitted),
        jax.random.fold_in(key, 0),
        scenario.cases,
        ids=ids,
        plan=plan,
        folder=folder / "solve" if folder else None,
        title=title,
    )
    return result._replace(training_queries=asked) if attack.train else result


def _check_cases(cases: Any, ids: Any) -> tuple[Any, np.ndarray, int]:
    cases = jax.tree.map(lambda a: np.asarray(a, jax.dtypes.canonicalize_dtype(np.asarray(a).dtype)), cases)
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(cases)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"cases: leaves have leading axes {sorted(lengths)}; legal is one length for all")
    n = lengths.pop()[0]
    if n == 0:
        raise ValueError("cases: there are none; give at least one case")
    ids = np.arange(n, dtype=np.int32) if ids is None else np.asarray(ids, np.int32)
    if ids.shape != (n,) or len(set(ids.tolist())) != n:
        raise ValueError(f"ids: shape {ids.shape} with {len(set(ids.tolist()))} distinct; legal is {n} distinct ids")
    return cases, ids, n
