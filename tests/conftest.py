"""Four CPU devices and checked shapes for every test: both must be set before jaxmia is imported.

What is expensive in most tests is compiling, and many differ in nothing but numbers: equal programs are compiled once, and
in haste (JAX_DISABLE_MOST_OPTIMIZATIONS=0 makes XLA optimize), by XLA's older emitters of fusions, which take less time.
"""

import importlib.metadata
import os
import tempfile

flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=4"]
if importlib.metadata.version("jax").startswith("0.10."):  # jax 0.12 dies of a flag that it knows no more
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads stall when test workers share the cores
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and the processes that tests start inherit it
    COMPILED = tempfile.TemporaryDirectory(prefix="jaxmia-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("jaxmia", "beartype.beartype")


def pytest_addoption(parser):
    parser.addoption("--record-golden", action="store_true", help="write the golden digests anew instead of comparing")
