"""Label-only by error rate: distances to a boundary that is known, and exact query counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, from_function
from jaxmia.attacks.image.label_error_rate import label_error_rate, pseudo_logits
from jaxmia.testing.benches.image import DenseDecoder

KEY, SHAPE = jax.random.key(9), (6, 6, 1)
NORMAL = np.random.default_rng(0).standard_normal(36)
NORMAL /= np.linalg.norm(NORMAL)
DISTANCES = np.array([0.3, -0.6, 0.0, 0.9])
GALLERY = jnp.asarray(0.5 + DISTANCES[:, None] * NORMAL, jnp.float32).reshape(-1, *SHAPE)


def target(**options):
    """Class 1 beyond the plane through 0.5 with that normal, class 0 before it."""
    weights = jnp.asarray(np.stack([-NORMAL, NORMAL], 1), jnp.float32)
    return from_function(lambda w, x: (x.reshape(len(x), -1) - 0.5) @ w, weights, classes=2, **options)


def measured(oracle, **options):
    stage = label_error_rate(oracle, GALLERY, DenseDecoder(), 2, **options).train[0](())
    state, step = stage.init(KEY, None), jax.jit(stage.step)
    for t in range(stage.steps):
        state, told = step(jax.random.fold_in(KEY, t), state, None)
    return np.asarray(stage.read(state)), told


def test_vectors_tell_the_distance_to_the_boundary():
    noise = 0.5
    vectors, _ = measured(target().view(Access.LABELS), copies=20_000, noise=noise)
    gaps = vectors[:, 1] - vectors[:, 0]
    np.testing.assert_allclose(gaps * noise, DISTANCES, atol=0.02)  # four standard errors at distance 0.9
    np.testing.assert_allclose(vectors.sum(1), 0.0, atol=1e-5)


def test_counts_every_query():
    served = []

    def answer(key, scores):
        jax.debug.callback(lambda seen: served.append(1), scores)
        return scores

    _, told = measured(target(defense=Defense(answer=answer)).view(Access.LABELS), copies=7)
    jax.effects_barrier()
    assert int(told.queries) == len(served) == 4 * 8


def test_what_was_never_called_anything_else_is_farthest():
    never, sometimes, wrong = (
        np.asarray(pseudo_logits(jnp.asarray(counts), jnp.asarray(1)))
        for counts in ([0.0, 100.0, 0.0], [10.0, 80.0, 10.0], [0.0, 40.0, 60.0])
    )
    ahead = [told[1] - max(told[0], told[2]) for told in (never, sometimes, wrong)]
    assert np.isfinite(never).all() and ahead[0] > ahead[1] > ahead[2]
    assert ahead[2] == 0.0  # beyond the boundary counts as on it


def test_refuses():
    view = target().view(Access.LABELS)
    with pytest.raises(ValueError, match="copies"):
        label_error_rate(view, GALLERY, DenseDecoder(), 2, copies=0)
    with pytest.raises(ValueError, match="budget"):
        label_error_rate(view, GALLERY, DenseDecoder(), 2, copies=9, budget=39)
