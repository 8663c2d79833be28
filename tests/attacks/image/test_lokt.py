"""LOKT: exact queries, labels that are the target's, surrogates that learn them."""

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, from_function
from jaxmia.attacks.image.lokt import lokt
from jaxmia.testing.benches import linear
from jaxmia.testing.benches.image import CLASSES, SHAPE, images
from jaxmia.testing.benches.networks import ConditionalGenerator, Discriminator, Surrogate
from tests.models.compiled import compiled

KEY = jax.random.key(4)
X, LABELS = images(0, 600)
PARAMS = linear.ridge(X, LABELS, CLASSES)
GALLERY = jnp.asarray(X[:64]).reshape(-1, *SHAPE)
GENERATOR, CRITIC = ConditionalGenerator(CLASSES, SHAPE), Discriminator(CLASSES + 1)
SMALL = {"dimensions": 8, "gan_steps": 2, "gan_batch": 16, "critic_steps": 1, "labels": 40, "augment": False}
SMALL |= {"surrogate_steps": 300, "surrogate_batch": 32}


def target(**options):
    return from_function(linear.logits, PARAMS, classes=CLASSES, **options)


def attack(oracle, surrogates=(Surrogate(CLASSES), Surrogate(CLASSES, 16)), **options):
    return lokt(oracle, GALLERY, CLASSES, GENERATOR, CRITIC, surrogates, **{**SMALL, **options})


def trained(stages, fitted=()):
    """What stages read out, one after another, and what each asked."""
    asked = []
    for stage in stages:
        process = stage(fitted)
        state, step = compiled(process.init)(KEY, None), compiled(process.step)
        for t in range(process.steps):
            state, told = step(jax.random.fold_in(KEY, t), state, None)
        fitted += (process.read(state),)
        asked.append(int(told.queries))
    return fitted, asked


@pytest.mark.nightly
def test_counts_every_query_of_training():
    served = []

    def answer(key, scores):
        jax.debug.callback(lambda seen: served.append(1), scores)
        return scores

    view = target(defense=Defense(answer=answer)).view(Access.LABELS)
    options = {"critic_steps": 2, "labels": 5, "surrogate_steps": 2}
    _, asked = trained(attack(view, surrogates=(Surrogate(CLASSES),), **options).train)
    jax.effects_barrier()
    assert asked == [2 * 2 * 16, 5 * CLASSES, 0] and len(served) == sum(asked)


@pytest.mark.nightly
def test_surrogates_learn_what_the_target_says_of_fakes():
    blank = GENERATOR.init(KEY, jnp.zeros((1, 8)), jnp.zeros(1, jnp.int32))
    generator = jax.tree.map(lambda leaf: 4 * leaf, blank)  # fakes that differ
    modules = (Surrogate(CLASSES), Surrogate(CLASSES, 16))
    one = attack(target().view(Access.LABELS), surrogates=modules, class_weight=1.0, surrogate_rate=0.03)
    (_, (z, said), *learned), _ = trained(one.train[1:], ({"generator": generator},))
    fakes = GENERATOR.apply(generator, z, jnp.arange(len(z)) % CLASSES)
    np.testing.assert_array_equal(said, np.argmax(linear.logits(PARAMS, fakes), 1))
    assert len(z) == 40 * CLASSES
    majority = np.bincount(np.asarray(said)).max() / len(said)
    for module, variables in zip(modules, learned):
        agree = float(np.mean(np.argmax(module.apply(variables, fakes), 1) == said))
        assert agree > majority + 0.5 * (1 - majority), (agree, majority)


@pytest.mark.nightly
def test_losses_of_both_networks():
    """Against numpy, from the same random numbers."""
    process = attack(target().view(Access.LABELS), gan_rate=0.0, class_weight=0.7).train[0](())
    g, d, *_ = state = compiled(process.init)(KEY, None)
    _, told = compiled(process.step)(KEY, state, None)
    last, first = jax.random.split(KEY)
    which, one, _ = jax.random.split(first, 3)

    def fakes(key):
        draw, classes = jax.random.split(key)
        y = jax.random.randint(classes, (16,), 0, CLASSES)
        return np.asarray(GENERATOR.apply(g, jax.random.normal(draw, (16, 8)), y)), np.asarray(y)

    def judged(x):
        out = np.asarray(CRITIC.apply(d, x), np.float64)
        return out[:, -1], out[:, :-1] - np.log(np.exp(out[:, :-1]).sum(1, keepdims=True))

    (x, _), real = fakes(one), np.asarray(GALLERY)[np.asarray(jax.random.randint(which, (16,), 0, 64))]
    said = np.argmax(linear.logits(PARAMS, jnp.asarray(x)), 1)
    high, (low, guess) = judged(real)[0], judged(x)
    critic = np.logaddexp(0, -high).mean() + np.logaddexp(0, low).mean() - 0.7 * guess[np.arange(16), said].mean()
    np.testing.assert_allclose(told.extra["critic"], critic, rtol=1e-4)
    x, y = fakes(last)
    high, guess = judged(x)
    painted = np.logaddexp(0, -high).mean() - 0.7 * guess[np.arange(16), y].mean()
    np.testing.assert_allclose(told.loss, painted, rtol=1e-4)


def test_the_search_averages_margins_over_surrogates_and_sums_two_views():
    modules = (Surrogate(CLASSES), Surrogate(CLASSES))
    variables = [module.init(jax.random.key(i), GALLERY[:1]) for i, module in enumerate(modules)]
    g = GENERATOR.init(KEY, jnp.zeros((1, 8)), jnp.zeros(1, jnp.int32))
    process = attack(target().view(Access.LABELS), surrogates=modules).solve(({"generator": g}, None, *variables))
    label = jnp.asarray(3, jnp.int32)
    state = compiled(process.init)(KEY, label)
    _, told = compiled(process.step)(KEY, state, label)
    x, loss = process.read(state)[None], 0.0
    for module, known in zip(modules, variables):
        logits = np.asarray(module.apply(known, x))[0]
        loss += (np.delete(logits, 3).max() - logits[3]) * 2 / 2
    assert float(told.loss) == pytest.approx(loss, rel=1e-4) and int(told.queries) == 0


def test_weights_of_surrogates_decay_as_released():
    """PyTorch's SGD adds decay * p to the gradient, so that the first step takes rate * decay * p more."""
    assert inspect.signature(lokt).parameters["decay"].default == 5e-4
    generator = GENERATOR.init(KEY, jnp.zeros((1, 8)), jnp.zeros(1, jnp.int32))
    fitted = ({"generator": generator}, (jnp.ones((40 * CLASSES, 8)), jnp.zeros(40 * CLASSES, jnp.int32)))
    after = {}
    for decay in (0.0, 0.25):
        surrogate = attack(target().view(Access.LABELS), decay=decay, surrogate_rate=0.1).train[2](fitted)
        state = compiled(surrogate.init)(KEY, None)
        before = state[0]["params"]
        after[decay] = compiled(surrogate.step)(KEY, state, None)[0][0]["params"]
    lost = jax.tree.map(jnp.subtract, after[0.0], after[0.25])
    for shrunk, weights in zip(jax.tree.leaves(lost), jax.tree.leaves(before)):
        np.testing.assert_allclose(shrunk, 0.1 * 0.25 * weights, atol=1e-6)


def test_colors_change_in_half_of_the_views_of_training_and_in_all_of_the_attack(monkeypatch):
    module = importlib.import_module("jaxmia.attacks.image.lokt")
    chances, inner = [], module.jitter

    def spied(key, image, **options):
        chances.append(options.get("chance", 1.0))
        return inner(key, image, **options)

    monkeypatch.setattr(module, "jitter", spied)
    made = attack(target().view(Access.LABELS), surrogates=(Surrogate(CLASSES),), augment=True)
    gan = {"generator": GENERATOR.init(KEY, jnp.zeros((1, 8)), jnp.zeros(1, jnp.int32))}
    labeled = (jnp.ones((40 * CLASSES, 8)), jnp.zeros(40 * CLASSES, jnp.int32))
    surrogate = made.train[2]((gan, labeled))
    state = jax.eval_shape(surrogate.init, KEY, None)
    jax.eval_shape(surrogate.step, KEY, state, None)
    assert chances and set(chances) == {0.5}
    chances.clear()
    search, label = made.solve((gan, labeled, Surrogate(CLASSES).init(KEY, GALLERY[:1]))), jnp.asarray(1, jnp.int32)
    jax.eval_shape(search.step, KEY, jax.eval_shape(search.init, KEY, label), label)
    assert chances and set(chances) == {1.0}


def test_the_discriminators_own_classes_can_be_attacked_without_a_label_more():
    made = attack(target().view(Access.LABELS), surrogates=(), on_discriminator=True, budget=2 * 16)
    (gan,), asked = trained(made.train)
    assert asked == [2 * 16]
    process, label = made.solve((gan,)), jnp.asarray(3, jnp.int32)
    state = compiled(process.init)(KEY, label)
    _, info = compiled(process.step)(KEY, state, label)
    logits = np.asarray(CRITIC.apply(gan["critic"], process.read(state)[None]))[0, :-1]
    assert len(logits) == CLASSES
    assert float(info.loss) == pytest.approx(2 * (np.delete(logits, 3).max() - logits[3]), rel=1e-4)


def test_refuses():
    view = target().view(Access.LABELS)
    with pytest.raises(ValueError, match="surrogates"):
        attack(view, surrogates=())
    with pytest.raises(ValueError, match="budget: 271; training asks 272"):
        attack(view, budget=271)
