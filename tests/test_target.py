"""What a target answers: in whatever precision it counts, and of which layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, attacks, from_linen, models, solve
from jaxmia.adapters.linen import FirstLayers
from jaxmia.plan import Plan

KEY = jax.random.key(0)


def halved():
    """A model whose parameters and images are bfloat16, and its logits are too."""
    module = models.MLP(3, width=8)
    variables = module.init(KEY, jnp.zeros((1, 4, 4, 1)))
    return from_linen(module, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables), classes=3)


def test_a_model_in_half_precision_answers_in_float32():
    image = jnp.full((4, 4, 1), 0.5, jnp.bfloat16)
    assert halved().apply(halved().params, image).logits.dtype == jnp.float32
    for access in (Access.SCORES, Access.WEIGHTS):
        assert halved().view(access).answer(KEY, image).dtype == jnp.float32


def test_and_can_be_attacked():
    attack = attacks.get("image/mi_face").factory(halved().view(Access.WEIGHTS), (4, 4, 1), alpha=20, rate=0.1)
    found = solve(attack.solve(()), KEY, np.arange(3), plan=Plan(progress=False))
    assert found.output.dtype == np.float32 and np.all(np.isfinite(found.output))


@pytest.mark.nightly
def test_first_layers_are_a_module_that_answers_a_feature():
    module, x = models.VGG(3, stages=((4,), (5,)), hidden=6), jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    first = FirstLayers(module, "block1")
    variables = first.init(jax.random.key(1), x)
    target = from_linen(module, variables, classes=3).until("block1")
    told = jax.vmap(lambda x: target.view(Access.SCORES).answer(jax.random.key(2), x))(x)
    np.testing.assert_allclose(first.apply(variables, x), told, rtol=1e-5)
    feature, changed = first.apply(variables, x, train=True, mutable=["batch_stats"])
    assert feature.shape == (2, 4, 4, 4) and changed.keys() == {"batch_stats"}
