"""Initial and final selection keep what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.core import Process, info
from jaxmia.recipes import selected

KEY, CASE = jax.random.key(1), jnp.asarray(3.0)


def process(done=False):
    """A number that grows by one a step."""
    return Process(
        lambda key, case: jax.random.normal(key),
        lambda key, x, case: (x + 1.0, info(x, queries=2, done=done)),
        lambda x: x,
        5,
    )


def test_the_best_of_the_pool_run_and_the_best_of_those_is_read():
    drawn = np.asarray([jax.random.normal(jax.random.fold_in(KEY, i)) for i in range(20)])
    one = selected(
        process(), pool=20, starts=4, first=lambda x, case: jnp.abs(x - case / 3), last=lambda x, case: -x * case
    )
    assert one.steps == 5
    state = one.init(KEY, CASE)
    wanted = drawn[np.argsort(np.abs(drawn - 1.0))[:4]]
    np.testing.assert_allclose(state.runs, wanted, rtol=1e-6)
    state, told = one.step(KEY, state, CASE)
    np.testing.assert_allclose(state.runs, wanted + 1, rtol=1e-6)
    assert float(told.loss) == pytest.approx(wanted.min()) and int(told.queries) == 8 and not bool(told.done)
    assert float(one.read(state)) == pytest.approx(wanted.max() + 1)  # last looks at the case, too
    assert float(one.read(state._replace(case=-CASE))) == pytest.approx(wanted.min() + 1)


@pytest.mark.parametrize("starts", [0, 21])
def test_refuses(starts):
    with pytest.raises(ValueError, match=f"starts: {starts}; legal is 1 to pool, 20"):
        selected(process(), pool=20, starts=starts, first=lambda x, case: x, last=lambda x, case: x)
