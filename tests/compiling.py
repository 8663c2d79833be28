"""Tests compile in haste (see conftest); a few ask for what users get."""

import contextlib

import jax

__all__ = ["as_users_do"]


@contextlib.contextmanager
def as_users_do():
    """Within it XLA optimizes."""
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    jax.config.update(name, False)
    yield
    jax.config.update(name, before)
