"""What of the contracts of some attacks takes too long for every run."""

import pytest

from tests.contract.methods import CHAOTIC, LONG, TRAINED

NIGHTLY = {"test_meaning.py": LONG | TRAINED, "test_queries.py": LONG}


def pytest_collection_modifyitems(items):
    """Meaning where a training is long; digests of long trainings, which are of a training of their own; and agents."""
    for item in items:
        method = getattr(item, "callspec", None) and item.callspec.params.get(
            "trial", item.callspec.params.get("trained")
        )
        name = getattr(method, "name", "")
        digest = item.name.startswith("test_golden_digest[") and name in CHAOTIC
        if digest or name in NIGHTLY.get(item.path.name, ()):
            item.add_marker(pytest.mark.nightly)
