"""What of the contracts of some attacks takes too long for every run."""

import pytest

from tests.contract.methods import CHAOTIC


def pytest_collection_modifyitems(items):
    """The digest of an attack whose training is long is of a training of its own, compiled as users do."""
    for item in items:
        if item.name.startswith("test_golden_digest[") and item.callspec.params["trial"].name in CHAOTIC:
            item.add_marker(pytest.mark.nightly)
