"""Dataset reconstruction: the objective against numpy, and every training image of a network that must remember each."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Plan, from_function, solve
from jaxmia.attacks.image.kkt import kkt, softened
from jaxmia.testing.benches.kkt import logits, trained

KEY = jax.random.key(13)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(5)
SHAPE = (3, 3, 1)
RATES = {"rate": 0.002, "multiplier_rate": 0.01, "multiplier_weight": 5.0, "spread": 0.1}


def network(params, image):
    return logits(params, image[None], softened(150.0))[0]


def view(params, classes):
    return from_function(logits, params, classes=classes).view(Access.WEIGHTS)


@pytest.mark.nightly
@pytest.mark.parametrize("released", [False, True])
def test_the_loss_is_that_of_the_paper(released):
    params = {
        "hidden": RNG.normal(size=(9, 5)).astype(np.float32),
        "top": RNG.normal(size=(5, 3)).astype(np.float32),
    }
    labels = jnp.asarray([0, 2, 1, 2], jnp.int32)
    weights = {"multiplier_weight": 5.0, "box_weight": 2.0}
    process = kkt(view(params, 3), SHAPE, 0.5, least=0.6, spread=0.5, released=released, **weights).solve(())
    state = process.init(KEY, labels)
    told = process.step(KEY, state, labels)[1]
    x, multiplier = np.asarray(state.x), np.asarray(state.multiplier)
    assert x.min() < 0 and x.max() > 1 and multiplier.min() < 0.6
    sums = {"hidden": np.zeros((9, 5)), "top": np.zeros((5, 3))}
    for image, weight, label in zip(x.reshape(4, 9) - 0.5, multiplier, labels):
        before = image @ params["hidden"]
        active = np.maximum(before, 0)
        scores = active @ params["top"]
        scores[label] = -np.inf
        signs = np.zeros(3)
        signs[label], signs[scores.argmax()] = 1, -1
        sums["top"] += weight / 4 * np.outer(active, signs)
        sums["hidden"] += weight / 4 * np.outer(image, (before > 0) * (params["top"] @ signs))
    stationary = sum(np.sum((params[name] - sums[name]) ** 2) for name in sums)
    np.testing.assert_allclose(told.extra["stationary"], stationary, rtol=1e-4)
    hinges = [np.maximum(v, 0) for v in (0.6 - multiplier, x - 1, -x)]
    low, above, below = (np.sum(v**2 if released else v) for v in hinges)
    np.testing.assert_allclose(told.loss, stationary + 5 * low + 2 * (above + below), rtol=1e-4)


def test_a_softened_relu_is_relu_with_a_sigmoid_for_its_derivative():
    x = jnp.linspace(-2.0, 2.0, 9)
    np.testing.assert_allclose(softened(3.0)(x), np.maximum(x, 0))
    slope = jax.vmap(jax.grad(softened(3.0)))
    np.testing.assert_allclose(slope(x), 1 / (1 + np.exp(-3 * np.asarray(x))), rtol=1e-5)
    curve = jax.vmap(jax.grad(jax.grad(softened(3.0))))(x)
    s = np.asarray(slope(x))
    np.testing.assert_allclose(curve, 3 * s * (1 - s), rtol=1e-4, atol=1e-6)


@pytest.mark.nightly
def test_every_training_image_comes_back():
    """Two classes, each of two images that are one another's negative: no direction serves two of them.

    Four starts of eight candidates, twice as many as there are images. The control is a network of other images, whose
    equation is met as well.
    """
    one, two = np.linalg.qr(np.random.default_rng(5).normal(size=(9, 2)))[0].T
    x = (0.5 + np.stack([one, -one, two, -two]) * 0.6).reshape(4, *SHAPE).astype(np.float32)
    labels, case = np.array([0, 0, 1, 1]), np.repeat(np.arange(2, dtype=np.int32), 4)

    def likeness(images):
        """`[starts, 4]`: of every training image, the correlation with the candidate of its class that is likest."""
        attack = kkt(view(trained(images, labels, 2), 2), SHAPE, 0.5, network=network, steps=2000, **RATES)
        found = solve(attack.solve(()), KEY, np.stack([case] * 4), plan=ONE).output.image.reshape(4, 8, 9) - 0.5
        wanted = x.reshape(4, 9) - 0.5
        found, wanted = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (found, wanted))
        return np.stack([(found[:, case == label] @ w).max(1) for w, label in zip(wanted, labels)], 1)

    told, control = likeness(x), likeness(np.roll(x, 1, 1))
    assert told.min() >= 0.85 and told.mean() >= 0.93, told
    assert control.mean() <= 0.6, control


def test_the_defaults_are_the_released_numbers_for_mnist():
    defaults = {name: p.default for name, p in inspect.signature(kkt).parameters.items()}
    assert defaults["center"] is inspect.Parameter.empty
    assert (defaults["rate"], defaults["multiplier_rate"], defaults["momentum"]) == (0.03, 1e-4, 0.9)
    assert (defaults["spread"], defaults["least"]) == (0.035, 0.45)


def test_candidates_start_where_the_first_layer_reads_zero():
    """Two candidates agree on half of a random network's units around its mean, on nearly all around another image."""
    mean = np.random.default_rng(2).uniform(0.05, 0.2, SHAPE).astype(np.float32)
    weights = np.random.default_rng(3).normal(size=(9, 400)).astype(np.float32)
    labels = jnp.zeros(40, jnp.int32)

    def agreement(center):
        state = kkt(view({}, 2), SHAPE, center).solve(()).init(KEY, labels)
        np.testing.assert_allclose(np.mean(state.x, 0), np.broadcast_to(center, SHAPE), atol=4 * 0.035 / np.sqrt(40))
        active = (np.asarray(state.x) - mean).reshape(40, 9) @ weights > 0
        return np.mean(active[:20] == active[20:])

    assert 0.45 <= agreement(mean) <= 0.55
    assert agreement(0.5) >= 0.9


@pytest.mark.nightly
@pytest.mark.parametrize(("center", "found"), [(0.13, True), (0.5, False)])
def test_around_the_networks_mean_candidates_find_the_images(center, found):
    """A network at its stationary point that subtracts 0.13, the mean pixel of MNIST."""
    one, two = np.linalg.qr(np.random.default_rng(5).normal(size=(9, 2)))[0].T
    images = np.stack([one, -one, two, -two]).reshape(4, *SHAPE).astype(np.float32) * 0.6
    params = trained(0.5 + images, np.array([0, 0, 1, 1]), 2)  # the bench's network subtracts 0.5

    def shifted(params, batch):
        return logits(params, batch + 0.37)

    attack = kkt(
        from_function(shifted, params, classes=2).view(Access.WEIGHTS), SHAPE, center, steps=2000, box_weight=0.0,
        network=lambda params, image: network(params, image + 0.37), **{**RATES, "spread": 0.035},
    )  # fmt: skip
    case = np.repeat(np.arange(2, dtype=np.int32), 4)
    process = attack.solve(())._replace(read=lambda state: state.x)  # as `read` clips to [0, 1]
    x = solve(process, KEY, np.stack([case] * 4), plan=ONE).output.reshape(4, 8, 9) - 0.13
    x, wanted = x / np.linalg.norm(x, axis=-1, keepdims=True), images.reshape(4, 9) / 0.6
    likeness = np.max(np.einsum("spd,kd->skp", x, wanted), -1).mean()
    assert likeness >= 0.75 if found else likeness <= 0.5, likeness


def test_refuses_batch_norm():
    target = from_function(lambda p, x: x, {"params": {}, "batch_stats": {"mean": np.zeros(2)}}, classes=2)
    with pytest.raises(ValueError, match="BatchNorm"):
        kkt(target.view(Access.WEIGHTS), SHAPE, 0.5)
