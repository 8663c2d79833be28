"""The device side of `solve`: slots that hold cases, and the three compiled programs that work on them."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Bool, Int

from jaxmia.compiling import traced
from jaxmia.core import Info, Process, info, tree_where
from jaxmia.identity import check_stable, equations
from jaxmia.parallel import Program, compile_program
from jaxmia.plan import Plan
from jaxmia.queries import Lane, Ledger, asking

__all__ = ["Programs", "Slots", "Status", "build"]


class Status(IntEnum):
    """How a case ended."""

    RUNNING = 0  # in a result: took all its steps
    STOPPED = 1  # asked to stop
    NONFINITE = 2  # went non-finite and was frozen at its last finite state


class Slots(NamedTuple):
    """The device side of `solve`; leaves `[chunk, ...]` inside a program, `[devices, chunk, ...]` outside.

    A checkpoint and the example that programs are built from hold numpy arrays.
    """

    rows: Int[Array | np.ndarray, " c"]  # the row of the result that the case is for
    ids: Int[Array | np.ndarray, " c"]  # the identity of its randomness
    steps: Int[Array | np.ndarray, " c"]
    status: Int[Array | np.ndarray, " c"]
    idle: Bool[Array | np.ndarray, " c"]
    case: Any
    state: Any
    info: Info


class Programs(NamedTuple):
    block: Any
    admit: Program
    read: Program
    example: Slots  # every slot idle
    traced: tuple[ClosedJaxpr, ...]  # init, step and read of one case
    memory: int  # bytes that one device needs
    ledger: Ledger  # what they ask a target on the host
    fresh: int  # of the memory, bytes that are not on the device yet, of weights and the like
    largest: str  # the program that needs most of those: init, step or read

    def share(self, free: float) -> float:
        """Of the chunk that fits so many bytes, as what is not there yet grows with the cases."""
        return (free - (self.memory - self.fresh)) / max(1, self.fresh)


def build(
    process: Process,
    key: Any,
    cases: Any,
    ids: np.ndarray,
    steps: int,
    devices: Any,
    chunk: int,
    plan: Plan,
) -> Programs:
    """Compile block, admit and read once, and make the idle slots that they all work on.

    A target on the host is asked for fresh and active slots alone.
    """
    ledger = Ledger()

    def case_keys(key: Any, ids: Any, step: Any) -> Any:
        return jax.vmap(lambda i, t: jax.random.fold_in(jax.random.fold_in(key, i), t))(ids, step)

    lead, together = (len(devices), chunk), plan.microbatch or chunk
    # Each is traced for one case, whatever the chunk: so it is known by what it computes, and batched afterwards.
    case = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), cases)
    case_key = jax.eval_shape(jax.random.fold_in, key, 0)
    blank = Lane(np.array(True), np.zeros((), np.int32), np.zeros((), np.int32))

    def for_lanes(fn: Any, *examples: Any) -> tuple[Any, Any, ClosedJaxpr]:
        """`fn` of one case as a function of lanes and a chunk of cases, the shapes of its output, and its program."""

        def one_lane(lane: Lane, *case: Any) -> Any:
            with asking(ledger, lane):
                return fn(*case)

        ledger.asks = False
        call, shapes, program = traced(one_lane, blank, *examples)
        if ledger.asks:
            return _one_after_another(jax.vmap(call), together, chunk), shapes, program
        # Nothing of lanes is compiled in.
        alone = _one_after_another(jax.vmap(functools.partial(call, blank)), together, chunk)
        return lambda lanes, *cases: alone(*cases), shapes, program

    try:
        begin, state_shapes, program = for_lanes(process.init, case_key, case)
    except (TypeError, ValueError) as error:
        # Often the cases are of another shape than the attack wants, and JAX's words do not say so.
        error.add_note(f"one case is {_shape_of(case)}; see the attack's docstring on what a case is")
        raise
    programs = [program]
    info_shapes = jax.eval_shape(lambda: info(0.0))
    advance: Any = None
    if steps > 0:
        advance, (after, info_shapes), program = for_lanes(process.step, case_key, state_shapes, case)
        check_stable(state_shapes, after)
        programs.append(program)
    slow_in_a_loop = _slow_in_a_loop(program)
    finish, _, program = traced(process.read, state_shapes)
    finish = _one_after_another(jax.vmap(finish), together, chunk)
    programs.append(program)

    def zeros(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.zeros(lead + x.shape, x.dtype), tree)

    def admit(key: Any, slots: Slots, fresh: Any, rows: Any, ids: Any, case: Any) -> Slots:
        # Many a start is a constant image; the barrier keeps the compiler from working out at length that it is finite.
        lanes, keys = Lane(fresh, rows, jnp.zeros_like(rows)), case_keys(key, ids, jnp.zeros_like(ids))
        state = jax.lax.optimization_barrier(begin(lanes, keys, case))
        asked = jax.vmap(lambda state: jnp.asarray(process.asked(state), jnp.int32))(state)
        new = slots._replace(
            rows=rows,
            ids=ids,
            steps=jnp.zeros_like(slots.steps),
            status=jnp.where(_finite(state), Status.RUNNING, Status.NONFINITE).astype(jnp.int8),
            idle=jnp.zeros_like(slots.idle),
            case=case,
            state=state,
            info=jax.tree.map(jnp.zeros_like, slots.info)._replace(
                loss=jnp.full_like(slots.info.loss, jnp.inf), queries=asked
            ),
        )
        return tree_where(fresh, new, slots)

    def step(key: Any, slots: Slots) -> Slots:
        active = ~slots.idle & (slots.status == Status.RUNNING) & (slots.steps < steps)
        lanes, keys = Lane(active, slots.rows, slots.steps + 1), case_keys(key, slots.ids, slots.steps + 1)
        state, told = advance(lanes, keys, slots.state, slots.case)
        # A nan loss with a finite state freezes too; an infinite loss is legal (log 0) as long as the state is finite.
        ok = active & _finite(state) & ~jnp.isnan(told.loss)
        status = jnp.where(active & ~ok, Status.NONFINITE, jnp.where(ok & told.done, Status.STOPPED, slots.status))
        return slots._replace(
            steps=slots.steps + ok,
            status=status.astype(jnp.int8),
            state=tree_where(ok, state, slots.state),
            # A step that went wrong has asked all the same.
            info=tree_where(ok, told, slots.info)._replace(queries=jnp.where(active, told.queries, slots.info.queries)),
        )

    def read(key: Any, slots: Slots) -> tuple:
        del key
        return finish(slots.state), slots.info, slots.status, slots.steps

    example = Slots(
        rows=np.zeros(lead, np.int32),
        ids=np.full(lead, ids[0], np.int32),
        steps=np.zeros(lead, np.int32),
        status=np.zeros(lead, np.int8),
        idle=np.ones(lead, bool),
        case=jax.tree.map(lambda a: np.broadcast_to(a[0], lead + a.shape[1:]).copy(), cases),
        state=zeros(state_shapes),
        info=zeros(info_shapes),
    )
    on_cpu, block_length = devices[0].platform == "cpu", max(1, min(plan.block, steps))
    fastest = "host" if on_cpu and slow_in_a_loop else "scan"
    looped = steps > 0 and (fastest if plan.loop == "auto" else plan.loop) == "scan"

    def block(shared: Any, slots: Slots) -> Slots:
        key, length = shared
        # A GPU asks the host before every round of a loop whose length is not compiled in.
        return jax.lax.fori_loop(0, length if on_cpu else block_length, lambda _, s: step(key, s), slots)

    how: dict[str, Any] = {"devices": devices, "mapper": plan.mapper}
    new = (example.idle, example.rows, example.ids, example.case)
    admit_program = compile_program(admit, key, example, *new, donate=(0,), **how)
    read_program = compile_program(read, key, example, **how)
    stepped: Any = None
    if steps > 0:
        one = (block, (key, np.int32(1))) if looped else (step, key)
        stepped = compile_program(*one, example, donate=(0,), **how)
    run_block = _Blocks(stepped, looped, block_length if steps > 0 else 0)
    compiled = [program for program in (admit_program, read_program, stepped) if program]
    with ThreadPoolExecutor() as threads:  # the compiler does not hold the interpreter
        list(threads.map(Program.compile, compiled))
    memory = max(program.memory() for program in compiled)
    fresh = {name: program.memory() - program.held() for name, program in zip(("init", "read", "step"), compiled)}
    largest = max(fresh, key=lambda name: fresh[name])
    return Programs(
        run_block, admit_program, read_program, example, tuple(programs), memory, ledger, fresh[largest], largest
    )


def _shape_of(case: Any) -> str:
    """A case in words: dtype and shape of its parts."""
    parts = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(case)}
    return ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)}".strip() for name, leaf in parts.items())


def _one_after_another(fn: Any, together: int, chunk: int) -> Any:
    """`fn` of `together` cases as a function of `chunk`, its microbatches in turn."""
    if together == chunk:
        return fn

    def mapped(*cases: Any) -> Any:
        cut = jax.tree.map(lambda a: a.reshape(chunk // together, together, *a.shape[1:]), cases)
        return jax.tree.map(lambda a: a.reshape(chunk, *a.shape[2:]), jax.lax.map(lambda one: fn(*one), cut))

    return mapped


def _slow_in_a_loop(step: ClosedJaxpr) -> bool:
    """Whether a traced step convolves with a kernel that is not [..., in, out], as gradients of convolutions do by default.

    Such are 7 to 13 times slower on CPU inside a loop of the device. Those of `jaxmia.models.convolution` are not.
    """
    kernels = [
        equation.params["dimension_numbers"].rhs_spec
        for equation in equations(step.jaxpr)
        if equation.primitive.name == "conv_general_dilated"
    ]
    return any(kernel[:2] != (len(kernel) - 1, len(kernel) - 2) for kernel in kernels)


class _Blocks:
    """Blocks of steps, driven from Python, where nothing is waited for between steps, or looped over by the device.

    It begins with one step, and keeps a block within `SECONDS` where steps are slow, so that somebody may look. On a GPU
    a looped block has its whole length always; what is beyond a case's last step changes nothing.
    """

    SECONDS = 3.0

    def __init__(self, step: Any, looped: bool, length: int):
        self.step, self.looped, self.most, self.length = step, looped, length, min(1, length)

    def __call__(self, key: Any, slots: Slots, most: int) -> Slots:
        """At most so many steps."""
        began, length = time.monotonic(), min(self.length, most)
        if self.looped:
            slots = self.step((key, np.int32(length)), slots)
        else:
            for _ in range(length):
                slots = self.step(key, slots)
        jax.block_until_ready(slots.steps)
        share = self.SECONDS / max(time.monotonic() - began, 1e-9)
        self.length = min(self.most, max(1, int(length * share)))
        return slots


def _finite(state: Any) -> Bool[Array, " c"]:
    """Per case, whether every float in the state is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if not leaves:
        return jnp.ones(jax.tree.leaves(state)[0].shape[0], bool)
    return jnp.all(jnp.stack([_all_finite(leaf.reshape(leaf.shape[0], -1)) for leaf in leaves]), axis=0)


def _all_finite(rows: Array) -> Bool[Array, " c"]:
    if jax.default_backend() != "cpu":
        return jnp.all(jnp.isfinite(rows), axis=1)
    # XLA's CPU backend reduces a row number by number; a product with zeros, nan where a number is not finite, is eight
    # times as fast. The barrier keeps the compiler from seeing that they are zeros.
    zeros = jax.lax.optimization_barrier(jnp.zeros(rows.shape[1], rows.dtype))
    return rows @ zeros == 0
