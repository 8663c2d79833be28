"""What every attack must satisfy before anything is compiled (`jaxmia.testing`). `-k image/gmi` takes one of them."""

import jax
import pytest

from jaxmia.testing.attacks import STRUCTURE, couplings
from jaxmia.testing.trial import Trial
from tests.contract.methods import METHODS


@pytest.fixture(params=METHODS, ids=[m.name for m in METHODS], scope="module")
def trial(request):
    return Trial(request.param)


@pytest.mark.parametrize("check", STRUCTURE, ids=[check.__name__ for check in STRUCTURE])
def test_structure(trial, check):
    check(trial)


def test_a_coupling_is_found_inside_a_loop():
    def coupled(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: y - jax.lax.psum(y, "cases"), x)

    assert couplings(jax.make_jaxpr(coupled, axis_env=[("cases", 2)])(1.0).jaxpr) == {"psum"}


def test_a_sum_over_an_axis_of_the_case_is_no_coupling():
    def alone(x):
        return jax.vmap(lambda y: jax.lax.psum(y, "copies"), axis_name="copies")(x)

    assert not couplings(jax.make_jaxpr(alone)(jax.numpy.ones(3)).jaxpr)
