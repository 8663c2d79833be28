"""A generator in blocks: `decode` is all of them, and changing a prior does not lose them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.core import Prior
from jaxmia.priors import Feature, chain, cut, eigen

TURN = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
BLOCKS = (
    lambda feature, w: Feature(w @ TURN, w),
    lambda feature, w: jnp.tanh(feature.map) + jnp.sum(feature.rest * w),
)
PRIOR = chain(lambda key: jax.random.normal(key, (3,)), BLOCKS)
W = jnp.asarray([0.5, -1.0, 2.0])


def test_decode_is_all_blocks_one_after_another():
    np.testing.assert_allclose(PRIOR.decode(W), np.tanh(W @ TURN) + np.sum(W * W), rtol=1e-6)
    assert float(PRIOR.penalty(W, None)) == 0.0
    np.testing.assert_array_equal(PRIOR.project(W), W)


def test_a_changed_prior_keeps_its_blocks():
    """PPA and MIRROR change a prior's penalty and projection."""
    changed = PRIOR._replace(penalty=lambda latent, candidate: jnp.ones(()), project=lambda latent: latent)
    assert changed.blocks == BLOCKS and isinstance(changed, Prior)
    assert cut(changed)._replace(init=PRIOR.init).blocks


def test_a_prior_without_blocks_has_none_and_can_be_cut():
    prior = eigen(np.random.default_rng(0).uniform(size=(20, 3, 4, 1)), 3)
    assert prior.blocks == () and len(cut(prior).blocks) == 2
    np.testing.assert_allclose(cut(prior).decode(W), prior.decode(W), atol=1e-6)


def test_refuses_a_generator_without_a_block():
    with pytest.raises(ValueError, match="blocks: none; legal is 1 or more"):
        chain(PRIOR.init, ())
