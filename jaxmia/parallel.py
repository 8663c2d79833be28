"""Devices: one mesh axis, `cases`, and two mappers that run the same per-device program (architecture section 5).

This is the only module that knows devices. A mapped function takes `shared` trees, replicated, and `cases` trees whose
leaves are `[devices, chunk, ...]`; its per-device program sees `[chunk, ...]` and never communicates. Training has an
axis of its own, `data`, along which minibatches are cut; there the compiler adds the sums over devices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmia.compiling import compiler_options, hoisted

__all__ = [
    "Program",
    "Spread",
    "agree",
    "compile_program",
    "find_devices",
    "free_memory",
    "gather_rows",
    "join",
    "own_rows",
    "place",
    "ran_out_of_memory",
    "uncommitted",
]

AXIS = "cases"


def join(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Become one of several processes, on one machine or many, before anything is computed.

    Args:
      coordinator: "host:port" of process 0; "auto" leaves all three to JAX, which knows Slurm and other clusters.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      ValueError: for numbers that do not fit, naming them.
    """
    automatic, (_, colon, port) = coordinator == "auto", coordinator.rpartition(":")
    numbered = processes is not None and process is not None and 0 <= process < processes
    if not automatic and not (numbered and colon and port.isdecimal() and int(port) < 1 << 16):
        raise ValueError(
            f"process {process} of {processes} at {coordinator}: legal is a coordinator host:port, a number of "
            "processes, and which one this is, from 0; or auto alone"
        )
    try:
        if automatic:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        raise ConnectionError(f"coordinator: {coordinator}: the processes cannot be joined ({error})") from error


def find_devices() -> None:
    """Start JAX's devices.

    Raises:
      ValueError: if there are none of the kind that was asked for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for JAX_PLATFORMS=cuda without a GPU
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        reason = f" ({str(error).partition(' (')[0].rstrip('.')})" if str(error) else ""
        raise ValueError(
            f"JAX_PLATFORMS: {asked or 'not set'!r}; JAX finds no such device here{reason}; legal is cpu, or a platform "
            "whose driver and JAX plugin are installed"
        ) from error


class Program:
    """A per-device function traced for all devices, and compiled by `compile`.

    Calling it runs `fn(shared, *cases)`. Arrays that `fn` closed over (a target's weights) are hoisted out of the
    program and passed as replicated arguments, so they are neither compiled in nor traced again.

    Attributes:
      constants: the hoisted arrays.
      shapes: of what it returns on one device.
    """

    def __init__(self, lowered: Any, options: dict[str, str], constants: list, shapes: Any):
        self._lowered, self._options, self.constants, self.shapes = lowered, options, constants, shapes

    def compile(self) -> None:
        """Must be called once, before anything else; in any thread."""
        self._compiled = self._lowered.compile(compiler_options=self._options)

    def __call__(self, shared: Any, *cases: Any) -> Any:
        return self._compiled(self.constants, shared, *cases)

    def compiled_text(self) -> str:
        """The optimized HLO, to show that it holds no collective."""
        return self._compiled.as_text()

    def memory(self) -> int:
        """Bytes that one device needs while the program runs, as the compiler foresees them; 0 where it tells none."""
        found = self._compiled.memory_analysis()
        if found is None:
            return 0
        held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return held + found.temp_size_in_bytes

    def held(self) -> int:
        """Bytes of its constants, which lie on every device from when it was traced."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.constants))


def compile_program(
    fn: Callable, shared: Any, *cases: Any, devices: Sequence[Any], mapper: str, donate: tuple[int, ...] = ()
) -> Program:
    """Trace `fn(shared, *cases)` once, at per-device shapes, and map it over `devices`.

    Args:
      fn: the per-device program; every output leaf has a leading chunk axis.
      shared: example of the replicated tree.
      *cases: examples of the sharded trees, leaves `[devices, chunk, ...]` (arrays or ShapeDtypeStructs).
      devices: the devices to run on, in order.
      mapper: "shard_map" or "pmap".
      donate: positions in `cases` whose buffers may be reused.
    """
    inner = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), cases)
    program, constants, out_shape = hoisted(fn, shared, *inner)
    donated = tuple(position + 2 for position in donate)
    constants = replicate(constants, devices)
    if mapper == "pmap":
        run = jax.pmap(
            program, AXIS, in_axes=(None, None) + (0,) * len(cases), devices=list(devices), donate_argnums=donated
        )
    else:
        sharded = PartitionSpec(AXIS)

        def local(constants: list, shared: Any, *cases: Any) -> Any:
            out = program(constants, shared, *jax.tree.map(lambda leaf: leaf[0], cases))
            return jax.tree.map(lambda leaf: leaf[None], out)

        specs = (PartitionSpec(), PartitionSpec()) + (sharded,) * len(cases)
        mapped = jax.shard_map(local, mesh=mesh(devices), in_specs=specs, out_specs=sharded, check_vma=False)
        run = jax.jit(mapped, donate_argnums=donated)
    outer = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), cases)
    options = compiler_options(devices[0].platform)
    return Program(run.lower(constants, shared, *outer), options, constants, out_shape)


def place(tree: Any, devices: Sequence[Any]) -> Any:
    """Put `[devices, chunk, ...]` leaves on their devices, one slice each."""
    sharding = NamedSharding(mesh(devices), PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), tree)


class Spread:
    """Training over `devices`: minibatches in slices; what is trained whole on each, or (`sharded`) in slices too.

    Every leaf is cut along its longest axis that the number of devices divides, and whole where there is none.
    """

    def __init__(self, devices: Sequence[Any], sharded: bool):
        self.devices, self.sharded, self._mesh = devices, sharded, mesh(devices, "data")
        self.whole = NamedSharding(self._mesh, PartitionSpec())

    def layout(self, state: Any) -> Any:
        """The sharding of every leaf of a state (arrays or shapes)."""

        def lie(leaf: Any) -> NamedSharding:
            able = [axis for axis, size in enumerate(leaf.shape) if size and size % len(self.devices) == 0]
            if not self.sharded or not able:
                return self.whole
            longest = max(able, key=lambda axis: leaf.shape[axis])
            return NamedSharding(self._mesh, PartitionSpec(*(None,) * longest, "data"))

        return jax.tree.map(lie, state)

    def cut(self, batch: Any) -> Any:
        """A minibatch of host arrays on the devices, each its slice.

        Raises:
          ValueError: if the devices do not divide its leading axis.
        """
        if len(self.devices) == 1:
            return batch

        def put(leaf: Any) -> Any:
            leaf = np.asarray(leaf)
            if leaf.shape[0] % len(self.devices):
                raise ValueError(
                    f"batch: {leaf.shape[0]} examples on {len(self.devices)} devices; legal is a multiple of the devices"
                )
            sharding = NamedSharding(self._mesh, PartitionSpec("data"))
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(put, batch)

    def everywhere(self, tree: Any) -> Any:
        """Whole on every device, whichever it lay on; where processes share the devices, all must bring the same."""

        def free(leaf: Any) -> Any:
            return uncommitted(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)

        return jax.jit(lambda tree: tree, out_shardings=self.whole)(jax.tree.map(free, tree))

    def collect(self, tree: Any) -> Any:
        """Numpy copies, whole; where processes share the devices, all must call it."""
        if jax.process_count() > 1 and self.sharded:
            tree = jax.jit(lambda tree: tree, out_shardings=self.whole)(tree)
        return jax.device_get(tree)


def agree(yes: bool) -> bool:
    """The first process's answer, on all of them; each must ask."""
    return bool(multihost_utils.broadcast_one_to_all(np.array(yes))) if jax.process_count() > 1 else yes


def replicate(tree: Any, devices: Sequence[Any]) -> Any:
    """Put whole leaves on every device."""
    return jax.device_put(tree, NamedSharding(mesh(devices), PartitionSpec()))


def uncommitted(key: Any) -> Any:
    """The same key, bound to no device."""
    bits = jax.numpy.asarray(np.asarray(jax.random.key_data(key)))
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(key))


def mesh(devices: Sequence[Any], axis: str = AXIS) -> Mesh:
    """One axis over `devices`; Auto, since loops over an axis that is sharded explicitly do not trace."""
    return Mesh(np.asarray(devices), (axis,), axis_types=(AxisType.Auto,))


def free_memory(devices: Sequence[Any]) -> int | None:
    """Bytes that each of `devices` has left; None where nobody knows. CPU devices share the machine's memory."""
    told = devices[0].memory_stats()
    if told and "bytes_limit" in told:
        return told["bytes_limit"] - told.get("bytes_in_use", 0)
    return psutil.virtual_memory().available // len(devices) if devices[0].platform == "cpu" else None


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error is the device's word that it has no memory left."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def own_rows(n: int) -> np.ndarray:
    """The rows that this process works on: all of them, or every k-th where k processes share the work."""
    return np.arange(jax.process_index(), n, jax.process_count())


def gather_rows(tree: Any, n: int) -> Any:
    """Complete arrays `[n, ...]` of which every process has filled its `own_rows`; all processes must call it."""
    if jax.process_count() == 1:
        return tree
    own, most = own_rows(n), -(-n // jax.process_count())
    padded = jax.tree.map(lambda a: np.concatenate([a[own], np.zeros((most - len(own), *a.shape[1:]), a.dtype)]), tree)
    every = multihost_utils.process_allgather(padded)  # [processes, most, ...]
    # Row r is entry r // k of process r % k, so that turning the two leading axes restores the order.
    return jax.tree.map(lambda a, e: np.swapaxes(e, 0, 1).reshape(-1, *a.shape[1:])[:n], tree, every)
