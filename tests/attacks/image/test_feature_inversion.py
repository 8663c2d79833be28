"""Feature inversion: its terms against numpy, an exact inverse where there is one, and what the priors decide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.feature_inversion import alpha_norm, feature_inversion, smooth_variation
from jaxmia.oracle import Outputs

KEY, SHAPE = jax.random.key(4), (4, 4, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(0)
PRIVATE = RNG.uniform(0.05, 0.95, (3, *SHAPE)).astype(np.float32)
MATRIX = jnp.asarray(RNG.normal(size=(16, 16)) / 4 + np.eye(16), jnp.float32)


def network(params, x):
    hidden = x.reshape(len(x), 16) @ params
    return Outputs(hidden[:, :2], {"hidden": hidden, "half": hidden[:, :8]})


TARGET = from_function(network, MATRIX, classes=2)


def found(layer, **options):
    part = TARGET.until(layer).view(Access.WEIGHTS)
    observed = np.asarray(jax.vmap(lambda x: part.answer(KEY, x))(PRIVATE))
    attack = feature_inversion(part, SHAPE, **{"steps": 1500, **options})
    return solve(attack.solve(()), KEY, observed, plan=ONE)


def error(images):
    return np.sqrt(np.mean((np.asarray(images) - PRIVATE) ** 2, (1, 2, 3)))


def test_terms_are_the_papers_as_means():
    r = RNG.uniform(-1, 1, (5, 6, 2))
    np.testing.assert_allclose(alpha_norm(jnp.asarray(r), 6.0), np.mean(r**6), rtol=1e-5)
    for beta in (1.0, 2.0, 3.0):
        total = 0.0
        for i in range(4):
            for j in range(5):
                total += (((r[i, j + 1] - r[i, j]) ** 2 + (r[i + 1, j] - r[i, j]) ** 2) ** (beta / 2)).sum()
        np.testing.assert_allclose(smooth_variation(jnp.asarray(r), beta), total / (4 * 5 * 2), rtol=1e-5)


def test_an_invertible_layer_is_inverted_and_of_that_image():
    result = found("hidden", bound=0.0, variation=0.0)
    assert np.all(error(result.output) <= 0.01)
    blind = np.sqrt(np.mean((PRIVATE - 0.5) ** 2))
    assert np.sqrt(np.mean((result.output - np.roll(PRIVATE, 1, axis=0)) ** 2)) >= blind


def test_half_of_the_features_give_less():
    whole, half = found("hidden"), found("half")
    assert np.all(error(half.output) >= error(whole.output) + 0.03)
    assert np.all(half.info.extra["identity"] <= 0.02)  # what was observed is explained all the same


@pytest.mark.nightly
def test_variation_smooths():
    def roughness(images):
        return np.array([smooth_variation(jnp.asarray(2 * image - 1), 2.0) for image in images])

    rough, smooth = found("half", variation=0.0), found("half", variation=0.1)
    assert np.all(roughness(smooth.output) <= 0.8 * roughness(rough.output))


def test_refuses_scores():
    with pytest.raises(TypeError, match="image/feature_inversion.*WEIGHTS"):
        feature_inversion(TARGET.view(Access.SCORES), SHAPE)
