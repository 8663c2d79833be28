"""PLG-MI: pseudo-labels against numpy, that the GAN learns its classes, and the two views of the search."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import Access, Plan, fit, from_function, solve
from jaxmia.attacks.image.plg_mi import plg_mi
from jaxmia.testing.benches.networks import ConditionalGenerator, ProjectionDiscriminator

KEY, CLASSES, SHAPE = jax.random.key(9), 3, (4, 4, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(7)
MATRIX = RNG.normal(size=(16, CLASSES)).astype(np.float32)
TARGET = from_function(lambda w, x: x.reshape(-1, 16) @ w, jnp.asarray(MATRIX), classes=CLASSES)
GALLERY = RNG.uniform(size=(600, *SHAPE)).astype(np.float32)  # in three parts, the last one overlapping
SMALL = {"dimensions": 4, "gan_batch": 32, "gan_steps": 300, "critic_steps": 1, "gan_rate": 2e-3}


def attack(**options):
    generator, critic = ConditionalGenerator(CLASSES, SHAPE), ProjectionDiscriminator(CLASSES)
    return plg_mi(TARGET.view(Access.WEIGHTS), jnp.asarray(GALLERY), CLASSES, generator, critic, **{**SMALL, **options})


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_a_class_takes_the_images_that_show_most_of_it():
    process = attack(top=7).train[0](())
    assert process.steps == 3
    rows, _ = fit(process, KEY, lambda step: {"x": GALLERY[:2]}, plan=ONE)
    scores = softmax(GALLERY.reshape(600, 16) @ MATRIX)
    for c in range(CLASSES):
        assert set(np.asarray(rows)[c].tolist()) == set(np.argsort(-scores[:, c])[:7].tolist())


@pytest.mark.nightly
@pytest.mark.parametrize("weight", [0.0])
def test_the_gan_learns_the_images_of_each_class(weight):
    """With one image for a class, G(., c) is that image."""
    one = attack(top=1, margin_weight=weight, gan_steps=1500)
    rows = jnp.asarray([[10], [20], [30]])
    networks, _ = fit(one.train[1]((rows,)), KEY, lambda step: {"x": GALLERY[:2]}, plan=ONE)
    z = jax.random.normal(KEY, (CLASSES * 20, 4))
    labels = jnp.tile(jnp.arange(CLASSES), 20)
    fake = ConditionalGenerator(CLASSES, SHAPE).apply(networks["generator"], z, labels)
    fake = np.asarray(fake).reshape(20, CLASSES, 16)
    real = GALLERY[np.asarray([10, 20, 30])].reshape(CLASSES, 16)
    apart = np.linalg.norm(fake[:, :, None] - real[None, None], axis=-1).mean(0)  # of images of c and the one of k
    assert np.all(apart.argmin(1) == np.arange(CLASSES)) and np.diag(apart).max() < 0.6 * np.linalg.norm(
        real[0] - real[1]
    )


@pytest.mark.nightly
def test_the_margin_pulls_the_generator_to_the_target():
    """With one and the same image behind every class, only the target tells the generator what a class is."""
    rows = jnp.asarray([[10], [10], [10]])

    def margins(weight):
        stage = attack(top=1, margin_weight=weight).train[1]((rows,))
        networks, _ = fit(stage, KEY, lambda step: {"x": GALLERY[:2]}, plan=ONE)
        labels = jnp.tile(jnp.arange(CLASSES), 20)
        z = jax.random.normal(KEY, (60, 4))
        fake = ConditionalGenerator(CLASSES, SHAPE).apply(networks["generator"], z, labels)
        return np.mean(np.argmax(np.asarray(fake).reshape(60, 16) @ MATRIX, 1) == np.asarray(labels))

    assert margins(5.0) >= 0.9 and margins(0.0) <= 0.6


@pytest.mark.nightly
def test_the_search_sums_the_margin_of_two_views_and_stays_in_its_class():
    one = attack(rate=0.1, smallest=1.0, flip=0.0, rotation=0.0, change=0.0, steps=3)
    generator = ConditionalGenerator(CLASSES, SHAPE)
    variables = generator.init(KEY, jnp.zeros((1, 4)), jnp.zeros(1, jnp.int32))
    process = one.solve((None, {"generator": variables, "critic": None}))
    label = jnp.asarray(2, jnp.int32)
    state = process.init(KEY, label)
    z = state[1].latent

    def loss(z):
        logits = (generator.apply(variables, z[None], label[None]).reshape(16)) @ MATRIX
        return 2 * (jnp.maximum(logits[0], logits[1]) - logits[2])

    value, slope = jax.value_and_grad(loss)(z)
    after, told = process.step(KEY, state, label)
    np.testing.assert_allclose(told.loss, value, rtol=1e-3, atol=1e-4)
    updates, _ = optax.adam(0.1).update(slope, optax.adam(0.1).init(z))
    np.testing.assert_allclose(after[1].latent, z + updates, atol=2e-3)
    np.testing.assert_allclose(
        process.read(after), generator.apply(variables, after[1].latent[None], label[None])[0], atol=1e-6
    )
    found = solve(process, KEY, np.arange(CLASSES, dtype=np.int32), plan=ONE).output
    assert not np.allclose(found[0], found[1])


class Still:
    """A generator that paints one image, whatever it is told."""

    def init(self, key, z, labels, train):
        return {"params": {"shift": jnp.zeros(())}}

    def apply(self, variables, z, labels, train, mutable=()):
        images = jnp.broadcast_to(GALLERY[0], (len(z), *SHAPE)) + variables["params"]["shift"]
        return (images, {}) if mutable else images


@pytest.mark.nightly
@pytest.mark.parametrize(("stage", "tinted"), [("gan", (70, 130)), ("search", (200, 200))])
def test_views_are_turned_and_tinted_as_often_as_released(stage, tinted):
    """Half are turned in both stages; half are tinted while the GAN learns, all in the search. 4.2 deviations."""

    def changed(**options):
        """How many of 200 views differ from the image."""
        shown = []

        def logits(params, x):
            jax.debug.callback(lambda x: shown.extend(np.asarray(x)), x)
            return x.reshape(-1, 16) @ params

        view = from_function(logits, jnp.asarray(MATRIX), classes=CLASSES).view(Access.WEIGHTS)
        options = {**SMALL, "gan_batch": 200, "smallest": 1.0, "flip": 0.0, **options}
        made = plg_mi(view, jnp.asarray(GALLERY), CLASSES, Still(), ProjectionDiscriminator(CLASSES), **options)
        if stage == "gan":
            process = made.train[1]((jnp.asarray([[0]] * CLASSES),))
            process.step(KEY, process.init(KEY, None), None)
        else:
            process, label = made.solve((None, {"generator": Still().init(0, 0, 0, True)})), jnp.asarray(0, jnp.int32)
            state = process.init(KEY, label)
            jax.vmap(lambda key: process.step(key, state, label)[1].loss)(jax.random.split(KEY, 100))
        jax.effects_barrier()
        assert len(shown) == 200
        return sum(not np.allclose(x, GALLERY[0], atol=1e-3) for x in shown)

    assert 70 <= changed(rotation=30.0, change=0.0) <= 130
    assert tinted[0] <= changed(rotation=0.0, change=0.5) <= tinted[1]


def test_refuses():
    with pytest.raises(ValueError, match="top: 601; legal is 1 to the number of public images, 600"):
        attack(top=601)
