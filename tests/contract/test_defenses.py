"""Every defense keeps the contracts of `jaxmia.testing`. `-k dp_sgd` takes one of them."""

import jax
import numpy as np
import pytest

from jaxmia import Access, Defense, defenses, discovery
from jaxmia.testing.benches import image
from jaxmia.testing.defenses import check, trained
from jaxmia.testing.trial import KEY
from tests.contract.skeletons.defenses.temper import temper

SKELETONS = "tests.contract.skeletons.defenses"
METHODS = [defenses.get(name) for name in defenses.names()]
METHODS += [discovery.get(SKELETONS, name) for name in discovery.names(SKELETONS)]


@pytest.mark.parametrize("method", METHODS, ids=[m.name for m in METHODS])
def test_it_keeps_its_contracts(method):
    check(method, {})


def test_the_skeleton_changes_training_and_serving():
    def confidence(defense):
        target, x, _ = trained(defense)
        return np.asarray(jax.vmap(target.view(Access.SCORES).answer, (None, 0))(KEY, x)).max(1)

    plain, milder, mixed = (confidence(d).mean() for d in (Defense(), temper(share=0.0), temper()))
    assert milder <= plain - 0.05  # the loss
    np.testing.assert_allclose(mixed, 0.9 * milder + 0.1 / image.CLASSES, rtol=1e-5)  # what is served
