"""PPDG-MI: the discrepancy against numpy, what is kept, what tuning does to each class's generator, and which one draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Attack, Plan, from_function, slots, solve
from jaxmia.attacks.image.gmi import gmi
from jaxmia.attacks.image.ppdg_mi import ppdg_mi
from jaxmia.core import Cases, Process, info
from jaxmia.engine import learn
from jaxmia.objectives import mmd
from jaxmia.priors import pixels
from jaxmia.testing.benches.networks import Discriminator, Generator

KEY, CLASSES, SHAPE, D = jax.random.key(12), 3, (4, 4, 1), 5
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(3)
MATRIX = RNG.normal(size=(16, CLASSES)).astype(np.float32)
TARGET = from_function(lambda w, x: x.reshape(-1, 16) @ w, jnp.asarray(MATRIX), classes=CLASSES)
GALLERY = jnp.asarray(RNG.uniform(size=(20, *SHAPE)).astype(np.float32))
GENERATOR, DISCRIMINATOR = Generator(SHAPE), Discriminator(4)
FITTED = ({
    "generator": GENERATOR.init(KEY, jnp.zeros((1, D))),
    "critic": DISCRIMINATOR.init(KEY, GALLERY[:1]),
},)  # fmt: skip
DRAWS = jnp.asarray(RNG.uniform(size=(50, *SHAPE)).astype(np.float32))


def draws(oracle, prior, trained=()):
    """An attack that reads out one of fifty images."""
    begin = lambda key, case: jax.random.randint(key, (), 0, len(DRAWS))  # noqa: E731
    return Attack(
        lambda fitted: Process(begin, lambda key, row, case: (row, info(0.0)), lambda row: DRAWS[row], 2), trained
    )


def middle(oracle, prior):
    """An attack that reads out what the prior draws at zero."""
    return Attack(
        lambda fitted: Process(
            lambda key, case: jnp.zeros(D), lambda key, z, case: (z, info(0.0)), lambda z: prior.decode(z), 1
        )
    )


def make(base=draws, **options):
    options = {"dimensions": D, "views": 0, "candidates": 10, "kept": 3, **options}
    return ppdg_mi(TARGET.view(Access.WEIGHTS), base, GALLERY, CLASSES, GENERATOR, DISCRIMINATOR, **options)


def paint(variables, z):
    return np.asarray(GENERATOR.apply(variables, z))


def test_the_discrepancy_is_that_of_five_kernels():
    a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(6, 3)) + 1.0
    rows = np.concatenate([a, b])
    apart = np.array([[np.sum((x - y) ** 2) for y in rows] for x in rows])
    scale = apart.sum() / (10 * 9)
    kernel = sum(np.exp(-apart / (scale * factor)) for factor in (0.25, 0.5, 1.0, 2.0, 4.0))
    wanted = kernel[:4, :4].mean() + kernel[4:, 4:].mean() - 2 * kernel[:4, 4:].mean()
    assert wanted > 0.1
    np.testing.assert_allclose(mmd(jnp.asarray(a), jnp.asarray(b)), wanted, rtol=1e-4)
    np.testing.assert_allclose(mmd(jnp.asarray(a), jnp.asarray(a)), 0.0, atol=1e-5)


def test_those_believed_most_are_kept():
    images, _ = learn(make().train[1](FITTED), KEY, None, plan=ONE)
    assert images.shape == (CLASSES, 3, *SHAPE)
    logits = np.asarray(DRAWS).reshape(50, 16) @ MATRIX
    belief = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for label in range(CLASSES):
        rows = [int(np.abs(np.asarray(DRAWS) - x).sum((1, 2, 3)).argmin()) for x in np.asarray(images[label])]
        told = belief[rows, label]
        assert np.all(np.diff(told) <= 1e-6)
        # The best of ten of fifty is among the upper half but with probability 2^-10, so three classes nearly surely.
        assert told[0] > np.median(belief[:, label])


@pytest.mark.nightly
@pytest.mark.parametrize("measure", ["point", "mmd"])
def test_every_class_gets_a_generator_that_draws_what_was_kept(measure):
    attack = make(measure=measure, seek_steps=100, seek_rate=0.05, tune_steps=150, tune_rate=0.01)
    fitted = FITTED
    for stage in attack.train[1:]:
        fitted += (learn(stage(fitted), KEY, None, plan=ONE)[0],)
    _, images, latents, tuned = fitted
    assert latents.shape == (CLASSES, 3, D) and np.abs(latents).max() <= 1.0

    def far(variables, label):
        x, wanted = paint(variables, latents[label]).reshape(3, -1), np.asarray(images[label]).reshape(3, -1)
        return float(mmd(jnp.asarray(x), jnp.asarray(wanted))) if measure == "mmd" else np.mean((x - wanted) ** 2)

    for label in range(CLASSES):
        own = jax.tree.map(lambda leaf, label=label: leaf[label], tuned)
        other = jax.tree.map(lambda leaf, label=label: leaf[label - 1], tuned)
        assert far(own, label) < 0.3 * far(FITTED[0]["generator"], label)
        assert far(own, label) < far(other, label)


@pytest.mark.nightly
def test_the_latents_sought_are_likelier_where_realism_weighs():
    def realism(weight):
        attack = make(seek_steps=100, seek_rate=0.05, realism_weight=weight)
        kept = jnp.asarray(np.stack([DRAWS[:3]] * CLASSES))
        z, _ = learn(attack.train[2]((*FITTED, kept)), KEY, None, plan=ONE)
        x = paint(FITTED[0]["generator"], z.reshape(-1, D))
        return jax.nn.logsumexp(DISCRIMINATOR.apply(FITTED[0]["critic"], x), -1).mean()

    assert realism(10.0) > realism(0.0) + 0.01


def test_a_case_is_drawn_by_the_generator_of_its_class():
    tuned = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.1 * leaf, leaf - 0.2]), FITTED[0]["generator"])
    cases = np.array([2, 0, 1], np.int32)
    output = solve(make(middle).solve((*FITTED, None, None, tuned)), KEY, cases, plan=ONE).output
    for case, image in zip(cases, output):
        own = jax.tree.map(lambda leaf, case=case: leaf[case], tuned)
        np.testing.assert_allclose(image, paint(own, np.zeros((1, D)))[0], atol=1e-6)
    assert np.abs(output[0] - output[1]).max() > 0.01
    alone = solve(make(middle, rounds=1).solve(FITTED), KEY, cases, plan=ONE).output
    np.testing.assert_allclose(alone[1], output[1], atol=1e-6)


@pytest.mark.nightly
def test_tuned_generators_of_all_classes_never_lie_on_a_device():
    """Neither where they are made nor where they attack; those of 1,000 classes are larger than most."""

    def needed(classes):
        fitted = (*FITTED, np.zeros((classes, 3, *SHAPE), np.float32), np.zeros((classes, 3, D), np.float32))
        attack = ppdg_mi(
            TARGET.view(Access.WEIGHTS), draws, GALLERY, classes, GENERATOR, DISCRIMINATOR,
            rounds=3, dimensions=D, views=0, candidates=10, kept=3,
        )  # fmt: skip
        tuned = jax.tree.map(lambda leaf: np.zeros((classes, *leaf.shape), leaf.dtype), FITTED[0]["generator"])
        processes = (
            attack.train[3](fitted).process,
            attack.train[4]((*fitted, tuned)).process,
            attack.train[6]((*fitted, tuned, *fitted[1:])).process,
            attack.solve((*fitted, tuned)),
        )
        one, ids = np.zeros(1, np.int32), np.zeros(1, np.int32)
        return [slots.build(p, KEY, one, ids, p.steps, ONE.devices, 1, ONE).memory for p in processes]

    generator = sum(leaf.nbytes for leaf in jax.tree.leaves(FITTED[0]["generator"]))
    small = 3 * (np.prod(SHAPE) + D) * 4  # what was kept of a class, and its latents, which do
    for few, many in zip(needed(3), needed(103)):
        assert many - few <= 100 * small < 100 * generator
    tuned, _ = learn(
        make(tune_steps=1).train[3]((*FITTED, np.stack([DRAWS[:3]] * 3), np.zeros((3, 3, D), np.float32))),
        KEY,
        None,
        plan=ONE,
    )
    assert all(isinstance(leaf, np.ndarray) and len(leaf) == CLASSES for leaf in jax.tree.leaves(tuned))


def test_stages_and_rounds():
    base = functools.partial(gmi, prior=pixels(SHAPE), steps=7, restarts=1)
    steps = {"gan_steps": 3, "seek_steps": 4, "tune_steps": 5}
    attack = make(base, rounds=3, **steps)
    fitted, taken = (), []
    for stage in attack.train:
        process, lead = stage(fitted), ()
        if isinstance(process, Cases):
            assert process.cases.tolist() == list(range(CLASSES))
            process, lead = process.process, (CLASSES,)
        taken.append(process.steps)
        shapes = jax.eval_shape(lambda process=process: process.read(process.init(KEY, jnp.asarray(0))))
        fitted += (jax.tree.map(lambda leaf, lead=lead: np.zeros(lead + leaf.shape, leaf.dtype), shapes),)
    assert taken == [3, *[7, 4, 5] * 2]
    assert attack.solve(fitted).steps == 7


def test_refuses():
    with pytest.raises(ValueError, match="base: it takes no prior"):
        make(lambda oracle: None)
    with pytest.raises(ValueError, match="training stages"):
        make(functools.partial(draws, trained=(None,))).solve(FITTED)
    for name, wrong in {"kept": 11, "rounds": 0, "seek_steps": 0, "views": -1}.items():
        with pytest.raises(ValueError, match=name):
            make(**{name: wrong})
