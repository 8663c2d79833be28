"""What is expensive here is compiling, and many runs differ in nothing but numbers: equal programs are compiled once."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

SETTINGS = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


@pytest.fixture(scope="package", autouse=True)
def compiled_once(tmp_path_factory):
    before = {name: getattr(jax.config, name) for name in ("jax_compilation_cache_dir", *SETTINGS)}
    here = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")), **SETTINGS}
    for settings in (here, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # whether there is a cache is decided at the first compilation after this
        if settings is here:
            yield
