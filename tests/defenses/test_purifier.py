"""The loss has its terms, purified scores lose what examples have of their own, labels stay."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.core import Defense
from jaxmia.defenses.purifier import Reformer, purifier, purifier_loss

KEY = jax.random.key(0)
CLASSES = 6
RNG = np.random.default_rng(0)
SCORES = RNG.dirichlet(np.full(CLASSES, 0.4), 300).astype(np.float32)
TIES = np.array([[1, 1, 1, 1, 1, 1], [0, 2, 2, 1, 0, 2], [0, 0, 0, 1, 1, 0]], np.float32)
ALL = np.concatenate([SCORES, TIES / TIES.sum(1, keepdims=True)])


@pytest.fixture(scope="module", params=["autoencoder", "cvae"])
def trained(request):
    defense = purifier(variant=request.param, steps=200, rate=5e-3)
    batch = {"x": jnp.asarray(SCORES[:64]), "y": jnp.zeros(64, int)}  # which are scores themselves
    process = defense.guard.fit(lambda key, x: jnp.asarray(x))

    def whole(key):
        keys = jax.random.split(key, process.steps)
        start = process.init(key, batch)
        state, told = jax.lax.scan(lambda s, k: process.step(k, s, batch), start, keys)
        return process.read(state), told

    params, history = jax.jit(whole)(KEY)  # one program: most of the time here is compiling
    return request.param, defense.guarded(params), history


def _served(defense, scores=ALL):
    return np.asarray(jax.jit(defense.answer)(KEY, jnp.asarray(scores)))


@pytest.mark.parametrize("variational", [False, True])
def test_the_loss_has_its_terms(variational):
    module = Reformer(CLASSES, variational, 8)
    variables = jax.jit(module.init)(KEY, jnp.zeros(CLASSES))
    p = jnp.asarray(SCORES[:10])
    logs, divergences = jax.jit(module.apply)(variables, p, jax.random.key(1))
    purified = np.exp(np.asarray(logs, np.float64))
    np.testing.assert_allclose(purified.sum(1), 1, atol=1e-5)
    wanted = ((purified - SCORES[:10]) ** 2).sum(1).mean()
    wanted += 0.3 * -np.log(purified[np.arange(10), SCORES[:10].argmax(1)]).mean()
    if variational:
        seen = jnp.concatenate([p, jax.nn.one_hot(p.argmax(1), CLASSES)], 1)
        out = module.apply(variables, seen, method=lambda m, x: m.encoder(x))
        mean, raw = np.split(np.asarray(out, np.float64), 2, axis=1)
        wanted += 0.5 * (mean**2 + np.exp(raw) - 1 - raw).sum(1).mean()
    got = purifier_loss(logs, divergences, p, jnp.ones(10), 0.3)
    assert float(got) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.nightly
def test_padding_rows_count_nowhere():
    process = purifier(variant="cvae", width=8).guard.fit(lambda key, x: x)

    def stepped(key, batch):
        state = process.init(key, batch)
        return process.step(key, state, batch)

    def run(padding, mask):
        x = np.concatenate([SCORES[:16], np.full((8, CLASSES), padding, np.float32)])
        mask = np.repeat(np.float32([1, mask]), [16, 8])
        return jax.tree.leaves(once(KEY, {"x": x, "y": np.zeros(24, np.int32), "mask": mask}))

    once = jax.jit(stepped)
    assert all((a == b).all() for a, b in zip(run(0.5, 0), run(7.0, 0)))
    assert not all((a == b).all() for a, b in zip(run(0.5, 1), run(7.0, 1)))


@pytest.mark.nightly
def test_fitting_lowers_the_loss_and_labels_keep_the_largest_score(trained):
    _, defense, history = trained
    assert history.loss[-20:].mean() < 0.7 * history.loss[:20].mean()
    served = _served(defense)
    np.testing.assert_allclose(served.sum(1), 1, atol=1e-5)
    at_label = np.take_along_axis(served, ALL.argmax(1)[:, None], 1)[:, 0]
    assert (at_label == served.max(1)).all()


def test_what_passes(trained):
    variant, defense, _ = trained
    served, labels = _served(defense, SCORES), SCORES.argmax(1)
    if variant == "cvae":  # one vector for each class, near its mean
        for c in range(CLASSES):
            assert np.ptp(served[labels == c], axis=0).max() < 1e-6
            mean = SCORES[:64][labels[:64] == c].mean(0)
            assert np.abs(served[labels == c][0] - mean).sum() < 0.5
    else:
        off = ((served - SCORES) ** 2).sum(1).mean()
        spread = ((SCORES - SCORES.mean(0)) ** 2).sum(1).mean()
        assert 1e-3 < off < 0.5 * spread


def test_untrained_answers_have_their_largest_entry_moved_to_the_label():
    """Of two entries alone, by which G and what is served differ."""
    module = Reformer(CLASSES)
    variables = jax.jit(module.init)(KEY, jnp.zeros(CLASSES))
    raw = np.exp(jax.jit(module.apply)(variables, jnp.asarray(SCORES))[0])
    served = _served(purifier().guarded(variables["params"]), SCORES)
    differ = ~np.isclose(raw, served, atol=1e-7)
    assert set(differ.sum(1)) <= {0, 2} and differ.any()


def test_it_sets_its_guard_alone():
    assert purifier()._replace(guard=None, keeps_label=False) == Defense()


def test_illegal_arguments_are_named():
    with pytest.raises(ValueError, match="variant: 'vae'; legal is 'autoencoder' or 'cvae'"):
        inspect.unwrap(purifier)(variant="vae")  # without the type checks of the tests
    with pytest.raises(ValueError, match="label_weight: -0.1; legal is finite and 0 or more"):
        purifier(label_weight=-0.1)
    with pytest.raises(ValueError, match="rate: 0.0; legal is finite and above 0"):
        purifier(rate=0.0)
    with pytest.raises(ValueError, match="width: 0; legal is 1 or more"):
        purifier(width=0)
    with pytest.raises(ValueError, match="steps: 0; legal is 1 or more"):
        purifier(steps=0)
