"""Tracing and compiling: a function traced once, what the compiler is told, and where compiled programs are kept."""

import hashlib
import pathlib
import platform
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

__all__ = ["compiler_options", "hoisted", "jit", "keep_compiled", "refuse_64_bit", "traced"]


def keep_compiled(folder: pathlib.Path) -> None:
    """Keep compiled programs in `folder` for later runs, unless JAX was told of another place."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        # Machines that share a home may differ in what instructions their CPUs know.
        flags = re.search(r"^(flags|Features)\s*:.*", _read("/proc/cpuinfo"), re.MULTILINE)
        told = f"{platform.machine()} {flags[0] if flags else platform.processor()}"
        jax.config.update("jax_compilation_cache_dir", str(folder / hashlib.sha256(told.encode()).hexdigest()[:12]))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _read(path: str) -> str:
    return pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ""


def refuse_64_bit() -> None:
    """Refuse JAX's 64-bit mode (ValueError): jaxmia keeps states and checkpoints in 32 bits.

    >>> with jax.enable_x64(True):
    ...     refuse_64_bit()
    Traceback (most recent call last):
    ValueError: jax_enable_x64: True; legal is False, since jaxmia computes in 32 bits: unset JAX_ENABLE_X64, or ...
    """
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            "jax_enable_x64: True; legal is False, since jaxmia computes in 32 bits: unset JAX_ENABLE_X64, or run "
            "this call within `jax.enable_x64(False)`"
        )


def compiler_options(platform: str) -> dict[str, str]:
    """What the compiler of a platform is told.

    Before jax 0.11 XLA's CPU backend hands convolutions to a library (YNNPACK) that is slower than its own routine
    (`experiments/benchmarks/convolution.py`); only products of matrices are left to it here.
    """
    if platform != "cpu" or jax.__version_info__ >= (0, 11):
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def jit(fn: Callable, **how: Any) -> Callable:
    """`jax.jit` with `compiler_options`, for the default backend."""
    return jax.jit(fn, compiler_options=compiler_options(jax.default_backend()), **how)


def traced(fn: Callable, *examples: Any) -> tuple[Callable, Any, ClosedJaxpr]:
    """Trace `fn` once: an equal function that never runs its Python again, its output shapes, and its program."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*examples)
    structure = jax.tree.structure(shapes)

    def call(*args: Any) -> Any:
        return jax.tree.unflatten(structure, jaxpr_as_fun(closed)(*jax.tree.leaves(args)))

    return call, shapes, closed


def hoisted(fn: Callable, *examples: Any) -> tuple[Callable, list, Any]:
    """Trace `fn` once: an equal function of `(constants, *arguments)`, the arrays that `fn` closed over (a target's
    weights), and its output shapes. As arguments they are not compiled in, where the compiler would compute with them.
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*examples)
    structure = jax.tree.structure(shapes)

    def call(constants: list, *arguments: Any) -> Any:
        flat = jaxpr_as_fun(closed.replace(consts=constants))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(structure, flat)

    return call, closed.consts, shapes
