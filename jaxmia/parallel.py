"""Devices: one mesh axis, `cases`, and two mappers that run the same per-device program (architecture section 5).

This is the only module that knows devices. A mapped function takes `shared` trees, replicated, and `cases` trees whose
leaves are `[devices, chunk, ...]`; its per-device program sees `[chunk, ...]` and never communicates.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = ["Program", "compile_program", "place", "traced"]

AXIS = "cases"


class Program:
    """A per-device function compiled once for all devices.

    Calling it runs `fn(shared, *cases)`. Arrays that `fn` closed over (a target's weights) are hoisted out of the
    program and passed as replicated arguments, so they are neither compiled in nor traced again.

    Attributes:
      constants: the hoisted arrays.
    """

    def __init__(self, run: Any, constants: list):
        self._run, self.constants = run, constants

    def __call__(self, shared: Any, *cases: Any) -> Any:
        return self._run(self.constants, shared, *cases)

    def compiled_text(self, shared: Any, *cases: Any) -> str:
        """The optimized HLO, to show that it holds no collective."""
        return self._run.lower(self.constants, shared, *cases).compile().as_text()


def traced(fn: Callable, *examples: Any) -> tuple[Callable, Any, str]:
    """Trace `fn` once: an equal function that never runs its Python again, its output shapes, and its text."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*examples)
    structure = jax.tree.structure(shapes)

    def call(*args: Any) -> Any:
        return jax.tree.unflatten(structure, jaxpr_as_fun(closed)(*jax.tree.leaves(args)))

    return call, shapes, str(closed.jaxpr)


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
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(shared, *inner)
    constants = closed.consts
    out_tree = jax.tree.structure(out_shape)

    def program(constants: list, shared: Any, *cases: Any) -> Any:
        flat = jaxpr_as_fun(closed.replace(consts=constants))(*jax.tree.leaves((shared, *cases)))
        return jax.tree.unflatten(out_tree, flat)

    donated = tuple(position + 2 for position in donate)
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
        mapped = jax.shard_map(local, mesh=_mesh(devices), in_specs=specs, out_specs=sharded, check_vma=False)
        run = jax.jit(mapped, donate_argnums=donated)
        constants = jax.device_put(constants, NamedSharding(_mesh(devices), PartitionSpec()))
    return Program(run, constants)


def place(tree: Any, devices: Sequence[Any]) -> Any:
    """Put `[devices, chunk, ...]` leaves on their devices, one slice each."""
    sharding = NamedSharding(_mesh(devices), PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), tree)


def _mesh(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
