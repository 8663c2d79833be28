"""What a target answers does not depend on how its model counts."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmia import Access, attacks, from_linen, models, solve
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
