"""Four CPU devices and checked shapes for every test: both must be set before jaxmia is imported."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads stall when test workers share the cores

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("jaxmia", "beartype.beartype")


def pytest_addoption(parser):
    parser.addoption("--record-golden", action="store_true", help="write the golden digests anew instead of comparing")
