"""Randomized explanations: odds of each bit, the true epsilon of both responses, and where they are served."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access
from jaxmia.adapters.linen import from_linen
from jaxmia.defenses.explanation_response import (
    bit_epsilon,
    explanation_epsilon,
    explanation_response,
    response,
)
from jaxmia.models.features import expose

KEY = jax.random.key(0)


def odds(epsilon, released):
    """P(1 | 1) and P(1 | 0), by enumeration of the coins."""
    p = np.exp(epsilon) / (1 + np.exp(epsilon))
    return (p + (1 - p) ** 2, (1 - p) ** 2) if released else (p, 1 - p)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 1.0, 2.5])
def test_bits_come_out_with_the_odds_of_the_response(epsilon, released):
    n = 100_000
    for bit, wanted in zip((1, 0), odds(epsilon, released)):
        out = response(KEY, jnp.full(n, bit, jnp.int32), epsilon, released=released)
        assert out.dtype == jnp.int32 and set(np.unique(out)) <= {0, 1}
        assert abs(float(jnp.mean(out)) - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / n) + 1e-9


@pytest.mark.parametrize("epsilon", [1e-4, 0.1, 1.0, 2.0, 5.0])
def test_the_stated_epsilon_is_the_largest_log_ratio(epsilon):
    for released in (False, True):
        one, zero = odds(epsilon, released)
        ratio = max(abs(np.log(one / zero)), abs(np.log((1 - one) / (1 - zero))))
        assert float(bit_epsilon(epsilon, released=released)) == pytest.approx(ratio, rel=1e-4, abs=1e-4)
    assert float(bit_epsilon(epsilon, released=True)) > epsilon


def test_what_the_released_response_claims_is_ln_3_short_at_nothing():
    assert float(bit_epsilon(1e-4, released=True)) == pytest.approx(np.log(3), abs=1e-3)
    assert float(explanation_epsilon(1.0, 100)) == pytest.approx(100)
    assert float(explanation_epsilon(1.0, 100, released=True)) == pytest.approx(241, abs=1)


def test_shape_dtype_and_a_large_epsilon_are_kept_and_strengths_may_be_swept():
    mask = jnp.array([[0.0, -0.3], [2.0, 0.0]], jnp.float32)
    np.testing.assert_array_equal(response(KEY, mask, 60.0), [[0, 1], [1, 0]])
    swept = jax.jit(jax.vmap(lambda e: explanation_response(epsilon=e).send(KEY, jnp.ones(500))))(jnp.array([0.1, 9.0]))
    assert swept.dtype == jnp.float32 and swept[0].mean() < 0.7 < swept[1].mean()


class Explained(nn.Module):
    """Scores of a candidate, and which of its features are on, as an explanation."""

    @nn.compact
    def __call__(self, x, train=False):
        expose(self, "explanation", (x > 0.5).astype(jnp.float32))
        return nn.Dense(2)(x)


def test_an_explanation_that_is_a_feature_is_served_through_it_and_asking_again_tells_no_more():
    module = Explained()
    variables = module.init(KEY, jnp.ones((1, 200)))
    target = from_linen(module, variables, classes=2, defense=explanation_response(epsilon=1.0), secret=3)
    view = target.until("explanation").view(Access.SCORES)
    x = jax.random.uniform(jax.random.key(1), (200,))
    served = np.asarray(view.answer(KEY, x))
    true = np.asarray(x > 0.5, np.float32)
    assert 0.6 < (served == true).mean() < 0.86  # 0.731 of them
    np.testing.assert_array_equal(served, view.answer(jax.random.key(9), x))


@pytest.mark.parametrize("epsilon", [-0.1, float("inf")])
def test_an_illegal_epsilon_is_named(epsilon):
    with pytest.raises(ValueError, match="epsilon: .*; legal is finite and 0 or more"):
        explanation_response(epsilon=epsilon)


def test_what_is_spent_is_the_true_epsilon():
    spent = explanation_response(epsilon=0.1, released=True).spent
    assert spent is not None and spent(1, 1, 1).startswith("epsilon 1.2 for one bit")
