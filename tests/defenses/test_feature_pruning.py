"""The smallest numbers of one feature go, as many as asked for, whatever is sent beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.core import Defense
from jaxmia.defenses.feature_pruning import feature_pruning

KEY = jax.random.key(0)
Z = np.random.default_rng(0).normal(size=(5, 4, 10)).astype(np.float32)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.6, 0.7, 1.0])
def test_the_smallest_go_with_their_sign(share):
    sent = np.asarray(feature_pruning(share=share).send(KEY, Z))
    count = round(share * Z.size)
    kept = np.sort(Z.ravel())[count:]
    assert (np.sort(sent[sent != 0]) == kept).all() and (sent == 0).sum() == count
    assert (sent == np.where(sent == 0, 0, Z)).all()


def test_every_feature_is_pruned_by_itself_and_the_first_of_equal_ones_go():
    one = jax.vmap(lambda z: feature_pruning(share=0.5).send(KEY, z))(jnp.asarray(Z))
    assert ((np.asarray(one) == 0).sum((1, 2)) == 20).all()
    assert feature_pruning(share=0.5).send(KEY, jnp.ones(5)).tolist() == [0, 0, 1, 1, 1]


def test_behind_a_relu_a_share_below_that_of_the_zeros_changes_nothing():
    rectified = np.maximum(Z, 0)
    assert (feature_pruning(share=0.4).send(KEY, rectified) == rectified).all()
    assert (feature_pruning(share=0.7).send(KEY, rectified) != rectified).any()


def test_shares_can_be_traced_and_illegal_ones_are_named():
    shares = jnp.array([0.5, 0.6, 0.7])
    counts = jax.jit(jax.vmap(lambda s: (feature_pruning(share=s).send(KEY, Z) == 0).sum()))(shares)
    assert counts.tolist() == [100, 120, 140]
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"share: {share}; legal is 0 to 1"):
            feature_pruning(share=share)
    assert feature_pruning()._replace(send=Defense().send) == Defense()
