"""Training: the loop over minibatches, on one device or spread over many."""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmia import checkpoint
from jaxmia.compiling import hoisted, jit, traced
from jaxmia.core import Info, Process
from jaxmia.parallel import Spread, agree, uncommitted
from jaxmia.plan import Plan, check_plan
from jaxmia.progress import Progress
from jaxmia.slots import check_stable, fingerprint

__all__ = ["Training", "fit", "prepare"]


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
      text: of the traced step.
    """

    init: Any
    step: Any
    held: Any
    constants: Any
    layout: Any
    state: Any
    info: Any
    text: str


def prepare(process: Process, key: Any, batch: Any, spread: Spread) -> Training:
    """Trace a training run.

    Raises:
      ValueError: for a step that changes shapes or dtypes of the state.
    """
    before = jax.eval_shape(process.init, key, batch)
    stepped, (after, shapes), text = traced(process.step, key, before, batch)
    check_stable(before, after)
    layout = spread.layout(before)
    begin, held, _ = hoisted(process.init, key, batch)
    step, constants, _ = hoisted(
        lambda t, state, batch: stepped(jax.random.fold_in(key, t), state, batch), np.int32(0), before, batch
    )
    init = jit(begin, out_shardings=layout)
    advance = jit(step, donate_argnums=2, out_shardings=(layout, spread.whole))
    held, constants = spread.everywhere(held), spread.everywhere(constants)
    return Training(init, advance, held, constants, layout, before, shapes, text)


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
      plan: devices, training, block, save_seconds and progress are used.
      folder: where checkpoints go; a run that finds its own there continues to the same result.
      title: shown by the progress bar.

    Returns:
      What the process reads out, and the history as an `Info` of numpy arrays `[steps]`.

    Raises:
      FloatingPointError: when the loss goes non-finite, naming the step.
      ValueError: for fewer than one step, a bad plan, minibatches that the devices do not divide, or a folder of
        another run.
    """
    steps = process.steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps: {steps}; legal is 1 or more")
    check_plan(plan)
    folder = checkpoint.private_folder(folder) if folder is not None else None
    alone = plan.training == "one_device"
    devices = plan.devices or tuple(jax.local_devices() if alone else jax.devices())
    spread = Spread(devices[:1] if alone else devices, sharded=plan.training == "fully_sharded")
    key, first = uncommitted(key), batches(0)
    training = prepare(process, key, first, spread)
    state = training.init(training.held, jax.random.fold_in(key, 0), spread.cut(first))
    history = jax.tree.map(lambda x: np.zeros((steps,) + x.shape, x.dtype), training.info)
    done, run_print = 0, fingerprint(training.text, steps, key, first, spread.collect(state))
    if folder is not None:
        found = checkpoint.load_newest(folder, (state, history), fingerprint=run_print)
        if found is not None:
            done, (state, history) = found
            state = jax.device_put(state, training.layout)
    saved = time.monotonic()
    with Progress(title, steps, "steps") as bar:
        while done < steps:
            block = []
            for t in range(done, min(done + plan.block, steps)):
                state, one = training.step(training.constants, np.int32(t + 1), state, spread.cut(batches(t)))
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
            if folder is not None and agree(done == steps or time.monotonic() - saved >= plan.save_seconds):
                kept = spread.collect(state)
                if jax.process_index() == 0:
                    checkpoint.save(folder, done, (kept, history), fingerprint=run_print)
                saved = time.monotonic()
    # Host copies, since what is read out must be the same on any devices, and whether resumed or not.
    return process.read(jax.tree.map(jax.numpy.asarray, spread.collect(state))), history
