"""Skips of the last stages go away or are scaled, and parameters stay the same."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import models
from jaxmia.composing import compose
from jaxmia.defenses.mid import mid
from jaxmia.defenses.rolss import rolss
from jaxmia.models.face_networks import ImageNetResNet, IRNetwork

KEY = jax.random.key(0)
NETWORK = models.ResNet(3, widths=(4, 8), blocks=1)
X = jax.random.uniform(KEY, (2, 8, 8, 1))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(NETWORK.init)(KEY, X)


def _logits(network, variables):
    return np.asarray(jax.jit(network.apply)(variables, X))


def test_share_one_is_the_network_as_it_was_with_the_same_parameters(variables):
    plain = _logits(NETWORK, variables)
    assert (plain == _logits(rolss(share=1.0).model(NETWORK), variables)).all()
    removed = rolss().model(NETWORK)
    assert jax.tree.map(jnp.shape, jax.eval_shape(removed.init, KEY, X)) == jax.tree.map(jnp.shape, variables)
    assert np.abs(plain - _logits(removed, variables)).max() > 1e-3


def test_without_its_branch_the_last_stage_passes_on_that_share_of_its_input(variables):
    """F = 0 by a BatchNorm of scale 0: the skip is all there is; the head has no bias yet."""
    params = variables["params"]
    block = params["_BasicBlock_1"]
    silent = {**block["BatchNorm_1"], "scale": jnp.zeros_like(block["BatchNorm_1"]["scale"])}
    silenced = {**variables, "params": {**params, "_BasicBlock_1": {**block, "BatchNorm_1": silent}}}
    whole = _logits(NETWORK, silenced)
    assert np.abs(whole).max() > 0.01
    for share in (0.01, 0.0):
        scaled = _logits(rolss(share=share).model(NETWORK), silenced)
        np.testing.assert_allclose(scaled, share * whole, rtol=1e-3, atol=1e-9)


class Block(nn.Module):
    """One linear residual block, of a network that counts its stages."""

    widths: tuple[int, ...] = (4,)
    skip: tuple | None = None

    @nn.compact
    def __call__(self, x, train=False):
        (share,) = (1.0,) if self.skip is None else self.skip
        return nn.Dense(4, name="branch")(x) + share * x


def test_the_jacobian_of_a_block_loses_the_identity_and_the_share_can_be_traced():
    x = jnp.arange(4.0)
    variables = Block().init(KEY, x)

    def jacobian(share):
        return jax.jacobian(lambda x: rolss(share=share).model(Block()).apply(variables, x))(x)

    shares = jnp.array([0.0, 0.3, 1.0])
    branch = variables["params"]["branch"]["kernel"].T
    expected = branch + shares[:, None, None] * np.eye(4)
    np.testing.assert_allclose(jax.jit(jax.vmap(jacobian))(shares), expected, atol=1e-6)


def test_earlier_stages_keep_what_they_have():
    assert rolss().model(models.ResNet(3)).skip == (1, 1, 0)
    assert rolss(stages=3, share=0.2).model(models.ResNet(3)).skip == (0.2, 0.2, 0.2)
    assert rolss().model(ImageNetResNet(3)).skip == (1, 1, 1, 0)
    assert rolss().model(models.CenteredInput(models.ResNet(3, skip=(0.5, 1.0, 1.0)))).inner.skip == (0.5, 1, 0)
    both = compose({"rolss": rolss(), "mid": mid()}).model(models.ResNet(3))
    assert both.skip == (1, 1, 0) and both.head is not models.ResNet(3).head


def test_networks_without_skips_and_illegal_arguments_are_named():
    for network in (models.MLP(3), IRNetwork(3), models.CenteredInput(models.VGG(3))):
        with pytest.raises(ValueError, match="has no 'skip' to exchange"):
            rolss().model(network)
    with pytest.raises(ValueError, match="stages: 4; legal is 1 to the 3 of ResNet"):
        rolss(stages=4).model(models.ResNet(3))
    with pytest.raises(ValueError, match="stages: 0; legal is 1 or more"):
        rolss(stages=0)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"share: {share}; legal is 0 to 1"):
            rolss(share=share)
