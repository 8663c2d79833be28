"""Log-scores as the released code of TB-MIA and C2FMI shapes them."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.attacks.image.tb_mia import truncate
from jaxmia.recipes.raised_logs import raised_logs

SCORES = jnp.asarray([1.0, 1e-30, 5e-31, 1e-12])


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (None, [69.8, 0.69, 0.0, 42.1]),  # the least is raised to zero, and all the others with it
        (4, [69.8, 0.69, 0.0, 42.1]),
        (3, [69.1, 0.0, 0.0, 41.4]),
        (2, [50.0, 0.0, 0.0, 22.4]),  # none is below zero
        (1, [50.0, 0.0, 0.0, 0.0]),
    ],
)
def test_the_least_score_shown_is_raised_to_zero(keep, expected):
    np.testing.assert_allclose(raised_logs(SCORES, keep), expected, atol=0.06)
    np.testing.assert_array_equal(truncate(SCORES, keep, "log"), raised_logs(SCORES, keep))


def test_a_score_of_zero_counts_as_e_to_the_minus_1000():
    np.testing.assert_allclose(raised_logs(jnp.asarray([1.0, 0.0])), [1000.0, 0.0])
