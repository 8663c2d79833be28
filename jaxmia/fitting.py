"""Training: the loop over minibatches, on one device or spread over many."""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxmia import checkpoint
from jaxmia.compiling import hoisted, jit, refuse_64_bit, traced
from jaxmia.core import Info, Process
from jaxmia.holding import alone
from jaxmia.identity import check_stable, identify
from jaxmia.journal import Journal
from jaxmia.parallel import Spread, agree, uncommitted
from jaxmia.plan import Plan, check_plan
from jaxmia.progress import Progress
from jaxmia.queries import Lane, Ledger, asking

__all__ = ["LOOKED_AT", "Training", "fit", "prepare"]

LOOKED_AT = 16
"""How many minibatches, from the first to the last, tell one training from another where nothing else does."""


class Training(NamedTuple):
    """The two programs of a training run, traced; called, they compile. What the process closed over is an argument.

    Attributes:
      init: `(held, key, minibatch) -> state`.
      step: `(constants, number of the step, state, minibatch) -> (state, Info)`; the state is given away.
      held: what `init` closed over, on every device.
      constants: what `step` closed over, likewise.
      layout: how the state lies on the devices.
      state: its shapes.
      info: those of the `Info`.
      programs: init and step as they were traced.
    """

    init: Any
    step: Any
    held: Any
    constants: Any
    layout: Any
    state: Any
    info: Any
    programs: tuple[ClosedJaxpr, ClosedJaxpr]


def prepare(process: Process, key: Any, batch: Any, spread: Spread, ledger: Ledger | None = None) -> Training:
    """Trace a training run; what it asks a target on the host goes on account of `ledger`.

    Raises:
      ValueError: for a step that changes shapes or dtypes of the state.
    """
    account = ledger or Ledger()

    def begin(key: Any, batch: Any) -> Any:
        with asking(account, Lane(True, 0, 0)):
            return process.init(key, batch)

    def go_on(t: Any, key: Any, state: Any, batch: Any) -> Any:
        with asking(account, Lane(True, 0, t)):
            return process.step(key, state, batch)

    start, before, initial = traced(begin, key, batch)
    stepped, (after, shapes), program = traced(go_on, np.int32(0), key, before, batch)
    check_stable(before, after)
    layout = spread.layout(before)
    start, held, _ = hoisted(start, key, batch)
    step, constants, _ = hoisted(
        lambda t, state, batch: stepped(t, jax.random.fold_in(key, t), state, batch), np.int32(0), before, batch
    )
    init = jit(start, out_shardings=layout)
    advance = jit(step, donate_argnums=2, out_shardings=(layout, spread.whole))
    held, constants = spread.everywhere(held), spread.everywhere(constants)
    return Training(init, advance, held, constants, layout, before, shapes, (initial, program))


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
      batches: `step -> minibatch`, pure: the same step gives the same batch. In a folder they are known by their
        attribute `identity`, a text, as those of `jaxmia.data.minibatches` are; without one, by `LOOKED_AT` of them.
      steps: number of steps; None takes the process's own.
      plan: devices, training, block, save_seconds and progress are used.
      folder: where checkpoints go, and what a target on the host answered since the last two of them; a run that finds
        its own there continues to the same result, without asking anything again.
      title: shown by the progress bar.

    Returns:
      What the process reads out, and the history as an `Info` of numpy arrays `[steps]`.

    Raises:
      FloatingPointError: when the loss goes non-finite, naming the step.
      ValueError: for fewer than one step, a bad plan, minibatches that the devices do not divide, a folder of another
        run or in which another process works, or in JAX's 64-bit mode.
    """
    refuse_64_bit()
    steps = process.steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")
    check_plan(plan)
    return _fit(process, key, batches, steps, plan, folder=folder, title=title)


@alone
def _fit(
    process: Process,
    key: Any,
    batches: Callable[[int], Any],
    steps: int,
    plan: Plan,
    *,
    folder: str | os.PathLike | None,
    title: str,
) -> tuple[Any, Info]:
    """`fit` of what is legal."""
    folder = checkpoint.private_folder(folder) if folder is not None else None
    alone = plan.training == "one_device"
    devices = plan.devices or tuple(jax.local_devices() if alone else jax.devices())
    spread = Spread(devices[:1] if alone else devices, sharded=plan.training == "fully_sharded")
    key, first = uncommitted(key), batches(0)
    journal = Journal(folder) if folder is not None else None
    ledger = Ledger(journal)
    training = prepare(process, key, first, spread, ledger)
    state = training.init(training.held, jax.random.fold_in(key, 0), spread.cut(first))
    history = jax.tree.map(lambda x: np.zeros((steps,) + x.shape, x.dtype), training.info)
    done, identity = 0, {}
    ledger.raise_error()
    if folder is not None and journal is not None:
        programs = [*training.programs, traced(process.read, training.state)[2]]
        inputs = {"key": key, "set of minibatches": _known_by(batches, steps), "number of steps": steps}
        identity = identify(programs, **inputs)
        found = checkpoint.load_newest(folder, (state, history), identity=identity)
        if found is not None:
            done, (state, history) = found
            state = jax.device_put(state, training.layout)
        journal.turn()
    saved = time.monotonic()
    with Progress(title, steps, "steps") as bar:
        while done < steps:
            block = []
            for t in range(done, min(done + plan.block, steps)):
                state, one = training.step(training.constants, np.int32(t + 1), state, spread.cut(batches(t)))
                block.append(one)
            block = jax.device_get(block)
            ledger.raise_error()
            for t, one in enumerate(block, start=done):
                jax.tree.map(lambda rows, value, t=t: rows.__setitem__(t, value), history, one)
                if not np.isfinite(one.loss):
                    raise FloatingPointError(
                        f"{title}: the loss is {one.loss} at step {t + 1}; lower the learning rate"
                    )
            done += len(block)
            if plan.progress:
                bar.update(done, f"loss {history.loss[done - 1]:.4g}")
            due = done == steps or time.monotonic() - saved >= plan.save_seconds
            if folder is not None and journal is not None and agree(due):
                kept = spread.collect(state)
                if jax.process_index() == 0:
                    checkpoint.save(folder, done, (kept, history), identity=identity)
                    journal.turn()
                saved = time.monotonic()
    if journal is not None:
        journal.clear()
    # Host copies, since what is read out must be the same on any devices, and whether resumed or not.
    return process.read(jax.tree.map(jax.numpy.asarray, spread.collect(state))), history


def _known_by(batches: Callable[[int], Any], steps: int) -> Any:
    """What tells these minibatches from others."""
    identity = getattr(batches, "identity", None)
    if identity is not None:
        return identity
    return [batches(int(step)) for step in np.unique(np.linspace(0, steps - 1, LOOKED_AT).astype(int))]
