"""Compiled programs kept on disk, which processes share."""

import os
import pathlib

import jax
import jax.numpy as jnp


def test_a_program_that_another_process_has_half_written_is_compiled_anew():
    kept = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    before = set(kept.glob("*-cache"))
    jax.jit(lambda x: jnp.sin(x) * 3.0625 + 17.0)(jnp.ones(7))
    new = set(kept.glob("*-cache")) - before
    assert new
    for file in new:
        if "jit__lambda" in file.name:
            file.write_bytes(file.read_bytes()[:40])
    jax.clear_caches()
    assert jax.jit(lambda x: jnp.sin(x) * 3.0625 + 17.0)(jnp.zeros(7))[0] == 17.0
