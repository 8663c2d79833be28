"""What every attack makes of its bench's targets, one compiled program for each attack: `Trial.meanings`."""

import json
import pathlib

import jax
import numpy as np
import pytest

from tests.contract.methods import METHODS, compiled_for
from tests.contract.trial import Trial

MARGIN = 0.2  # by which the whole interval of the success must be above chance
GOLDEN = pathlib.Path(__file__).parent.parent / "golden"


@pytest.fixture(params=METHODS, ids=[m.name for m in METHODS], scope="module")
def trial(request):
    trial = Trial(request.param)
    with compiled_for(request.param):
        assert trial.meanings  # computed here, as the tests of this attack want it compiled
    return trial


def test_it_starts_without_nan(trial):
    assert np.all(trial.meanings["leaks"].started)


def test_recovers_the_analytic_target_and_nothing_from_the_controls(trial):
    chance = trial.on.chance
    found = {which: trial.on.judge(meaning.whole) for which, meaning in trial.meanings.items()}
    words = ", ".join(f"{which} {estimate}" for which, estimate in found.items())
    assert found["leaks"].low >= chance + MARGIN, f"{words}; chance is {chance:.3g}"
    for control in ("shuffled", "constant"):
        assert found[control].low <= chance, f"{words}; chance is {chance:.3g}"
        assert found[control].value <= found["leaks"].value - 0.3, words


def test_golden_digest(trial, request):
    digest = {
        jax.tree_util.keystr(path) or "output": [float(np.mean(leaf)), float(np.std(leaf)), float(np.ravel(leaf)[0])]
        for path, leaf in jax.tree_util.tree_leaves_with_path(trial.meanings["leaks"].short)
    }
    file = GOLDEN / f"{trial.method.name.replace('/', '-')}.json"
    if request.config.getoption("--record-golden"):
        file.write_text(json.dumps(digest, indent=1) + "\n")
    golden = json.loads(file.read_text())
    assert golden.keys() == digest.keys()
    for name, values in digest.items():
        np.testing.assert_allclose(values, golden[name], rtol=2e-3, atol=2e-4, err_msg=name)
