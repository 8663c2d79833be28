"""What every attack makes of its bench's targets, one compiled program for each attack: `Trial.meanings`."""

import json
import pathlib

import jax
import numpy as np
import pytest

from jaxmia.testing.attacks import MEANING
from jaxmia.testing.trial import Trial
from tests.contract.methods import CHAOTIC, METHODS, compiled_for

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"


@pytest.fixture(params=METHODS, ids=[m.name for m in METHODS], scope="module")
def trial(request):
    return Trial(request.param)


@pytest.mark.parametrize("check", MEANING, ids=[check.__name__ for check in MEANING])
def test_meaning(trial, check):
    with compiled_for(trial.method):
        check(trial)


def test_golden_digest(trial, request):
    """After a long training the numbers may be those of one kind of processor: there it is of a short one."""
    short = Trial(trial.method, training=3) if trial.method.name in CHAOTIC else trial
    with compiled_for(trial.method):
        output = (short.meaning("leaks") if short is not trial else trial.meanings["leaks"]).short
    digest = {
        jax.tree_util.keystr(path) or "output": [float(np.mean(leaf)), float(np.std(leaf)), float(np.ravel(leaf)[0])]
        for path, leaf in jax.tree_util.tree_leaves_with_path(output)
    }
    file = GOLDEN / f"{trial.method.name.replace('/', '-')}.json"
    if request.config.getoption("--record-golden"):
        file.write_text(json.dumps(digest, indent=1) + "\n")
    golden = json.loads(file.read_text())
    assert golden.keys() == digest.keys()
    for name, values in digest.items():
        np.testing.assert_allclose(values, golden[name], rtol=2e-3, atol=2e-4, err_msg=name)
