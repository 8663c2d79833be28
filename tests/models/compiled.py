"""Compiling for tests: what runs once on small arrays is not worth optimizing, which takes most of the time."""

import functools

import jax

compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def initialize(module, *inputs):
    """The variables of a module, from key 0."""
    return compiled(module.init)(jax.random.key(0), *inputs)
