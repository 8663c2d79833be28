"""The term against numpy loops, the mutual information of Gaussians, and features that shrink within a class."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import engine, models, train
from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.cem import cem, clusters_of, told
from jaxmia.defenses.dp_sgd import dp_sgd
from jaxmia.oracle import Outputs

KEY = jax.random.key(0)
ROWS, CLASSES = 18, 3
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(ROWS, 2, 3)).astype(np.float32)
Y = (np.arange(ROWS) % CLASSES).astype(np.int32)
MEMBERS = (Y == np.arange(CLASSES)[:, None]).astype(np.float32)


def _kmeans(z, clusters, steps=5):
    """Farthest rows first, then Lloyd, in float64."""
    centers = [z[0]]
    while len(centers) < clusters:
        centers.append(z[np.argmax([min(((row - c) ** 2).sum() for c in centers) for row in z])])
    for _ in range(steps):
        own = np.array([np.argmin([((row - c) ** 2).sum() for c in centers]) for row in z])
        centers = [z[own == k].mean(0) if (own == k).any() else centers[k] for k in range(clusters)]
    return np.array([np.argmin([((row - c) ** 2).sum() for c in centers]) for row in z])


def _term(z, y, clusters, noise=1e-3):
    terms = []
    for c in np.unique(y):
        rows = z[y == c].reshape((y == c).sum(), -1).astype(np.float64)
        own, total = _kmeans(rows, clusters), 0.0
        for k in np.unique(own):
            variance = rows[own == k].var(0)
            total += (own == k).mean() * np.maximum(np.log(variance + noise + 1e-4) - np.log(noise), 0).mean()
        terms.append(total)
    return np.mean(terms)


@pytest.mark.parametrize("clusters, noise", [(1, 1e-3), (2, 1e-3), (3, 0.5), (9, 1e-3)])
def test_it_is_the_weighted_mean_over_clusters_of_the_classes(clusters, noise):
    got = jax.jit(lambda z: told(z, jnp.asarray(MEMBERS), clusters, noise))(Z)
    assert float(got) == pytest.approx(_term(Z, Y, clusters, noise), rel=1e-4)


def test_clusters_that_lie_apart_are_found_whatever_else_is_in_the_minibatch():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 60)
    z = (10 * np.eye(4)[truth] + rng.normal(size=(60, 4))).astype(np.float32)
    counted = (np.arange(60) < 50).astype(np.float32)
    garbage = np.where(counted[:, None] > 0, z, 1e3).astype(np.float32)
    found = np.asarray(clusters_of(jnp.asarray(garbage), counted, 4))[:50]
    together = found[:, None] == found
    assert np.array_equal(together, truth[:50, None] == truth[:50])


def test_for_a_gaussian_it_is_twice_what_the_noisy_feature_tells_and_bounds_the_best_guess():
    """Z = X + noise, both Gaussian: I = log(1 + v / s^2) / 2, and the least error is v exp(-2 I)."""
    variance, noise = 4.0, 0.25
    rng = np.random.default_rng(2)
    x = np.sqrt(variance) * rng.normal(size=200_000)
    measured = float(told(x[:, None].astype(np.float32), jnp.ones((1, len(x))), 1, noise))
    assert measured == pytest.approx(np.log1p(variance / noise), abs=0.01)
    sent = x + np.sqrt(noise) * rng.normal(size=len(x))
    best = ((x - sent * variance / (variance + noise)) ** 2).mean()  # the conditional mean
    assert best == pytest.approx(variance * np.exp(-measured), rel=0.02)


def test_padding_and_absent_classes_count_nowhere_and_gradients_are_finite():
    mask = np.array([1.0] * 12 + [0.0] * 6, np.float32)
    garbage = np.where(mask[:, None, None] > 0, Z, np.nan)
    outputs = Outputs(jnp.zeros((ROWS, CLASSES + 4)), {"inner/block1": jnp.asarray(garbage)})

    def term(z, **options):
        given = outputs._replace(features={"inner/block1": z})
        return cem(weight=2.0, **options).loss(lambda o, b: 0.0)(given, {"y": Y, "mask": mask})

    value, slope = jax.jit(jax.value_and_grad(lambda z: term(z, clusters=2)))(jnp.asarray(garbage))
    assert float(value) == pytest.approx(2 * _term(Z[:12], Y[:12], 2), rel=1e-4)
    assert (slope[12:] == 0).all() and np.isfinite(slope).all() and np.abs(slope[:12]).max() > 0
    equal = jax.jit(jax.grad(lambda z: term(z)))(jnp.ones_like(Z))
    assert np.isfinite(equal).all()


def test_layers_add_up_and_weight_zero_adds_nothing():
    outputs = Outputs(jnp.zeros((ROWS, CLASSES)), {"block1": jnp.asarray(Z), "penultimate": jnp.asarray(3 * Z)})

    def total(**options):
        return float(cem(**options).loss(lambda o, b: 1.0)(outputs, {"y": Y}))

    low, high = _term(Z, Y, 1), _term(3 * Z, Y, 1)
    assert total() == pytest.approx(1 + 0.1 * (low + high), rel=1e-4)
    assert total(layers=("penultimate",), weight=1.0) == pytest.approx(1 + high, rel=1e-4)
    assert total(weight=0.0) == 1


@pytest.mark.nightly
def test_training_makes_features_of_a_class_alike_and_keeps_them_apart_from_others():
    prototypes = np.random.default_rng(3).normal(size=(4, 10))

    def batches(step):
        rng = np.random.default_rng(step)
        y = rng.integers(0, 4, 48).astype(np.int32)
        return {"x": (prototypes[y] + 0.5 * rng.normal(size=(48, 10))).astype(np.float32), "y": y}

    def within_and_right(defense):
        process = train.supervised(models.MLP(4, width=8), optax.adam(0.02), steps=200, defense=defense)
        variables, _ = engine.fit(process, KEY, batches, plan=engine.Plan(progress=False))
        batch = batches(10_000)
        logits, sown = models.MLP(4, width=8).apply(variables, jnp.asarray(batch["x"]), mutable=["features"])
        z = np.asarray(sown["features"]["penultimate"][0])
        within = np.mean([z[batch["y"] == c].var(0).mean() for c in range(4)])
        return within / z.var(0).mean(), (np.argmax(logits, 1) == batch["y"]).mean()

    plain, defended = within_and_right(Defense()), within_and_right(cem())
    assert defended[0] < 0.5 * plain[0], (plain, defended)
    assert defended[1] > plain[1] - 0.1


def test_partners_labels_and_numbers_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="dp_sgd takes gradients example by example, and cem ties"):
        compose({"dp_sgd": dp_sgd(32.0), "cem": cem()})
    outputs = Outputs(jnp.zeros((2, 3, CLASSES)), {"block1": Z[:2]})
    with pytest.raises(ValueError, match=r"y has shape \(2, 3\); legal is one label for each example"):
        cem().loss(lambda o, b: 0.0)(outputs, {"y": np.zeros((2, 3), np.int32)})
    with pytest.raises(ValueError, match="weight: -1.0; legal is finite and 0 or more"):
        cem(weight=-1.0)
    with pytest.raises(ValueError, match="noise_variance: 0.0; legal is finite and above 0"):
        cem(noise_variance=0.0)
    with pytest.raises(ValueError, match="clusters: 0; legal is 1 or more"):
        cem(clusters=0)
