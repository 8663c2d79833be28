"""What of the contracts of some attacks takes too long for every run."""

import pytest

from tests.contract.methods import CHAOTIC, LONG


def pytest_collection_modifyitems(items):
    """Digests of attacks whose training is long, which are of a training of their own, compiled as users do; and agents."""
    for item in items:
        method = getattr(item, "callspec", None) and item.callspec.params.get(
            "trial", item.callspec.params.get("trained")
        )
        digest = item.name.startswith("test_golden_digest[") and method.name in CHAOTIC
        if digest or (item.path.name in ("test_meaning.py", "test_queries.py") and getattr(method, "name", "") in LONG):
            item.add_marker(pytest.mark.nightly)
