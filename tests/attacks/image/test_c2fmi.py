"""C2FMI beside the authors' rules: what M is asked for, who is kept and blended, how children are made."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, from_function
from jaxmia.attacks.image.c2fmi import blend, c2fmi, children, shape_scores, strength
from jaxmia.core import Prior
from jaxmia.models import Perceptron
from tests.models.compiled import compiled

KEY, CLASSES, D = jax.random.key(2), 3, 4
PRIOR = Prior(
    lambda key: jax.random.normal(key, (D,)), lambda z: z, lambda z, x: jnp.zeros(()), lambda z: jnp.clip(z, -3, 3)
)
SMALL = {"width": 8, "starts": 6, "kept": 4, "members": 10, "steps": 20}
WANTED = jnp.asarray([0.5, -1.0, 0.3, 2.0])


def view(**options):
    target = from_function(lambda params, x: x @ params, 2.0 * jnp.eye(D)[:, :CLASSES], classes=CLASSES, **options)
    return target.view(Access.SCORES)


def attack(oracle=None, **options):
    return c2fmi(oracle or view(), PRIOR, lambda x: x, CLASSES, **{**SMALL, **options})


def mapped(bias=WANTED, classes=CLASSES):
    """Variables of a mapping network that says the same whatever it is shown."""
    blank = jax.tree.map(jnp.zeros_like, Perceptron(8, D).init(KEY, jnp.zeros((1, classes))))
    blank["params"]["Dense_2"]["bias"] = bias
    return blank


def test_scores_are_shaped_as_described():
    scores = np.array([0.7, 0.25, 0.05])
    logs = np.log(scores) + 50
    shaped = shape_scores(jnp.asarray(scores, jnp.float32), 2)
    expected = np.array([logs[0], logs[1], 0.0])
    np.testing.assert_allclose(shaped, expected / np.linalg.norm(expected), rtol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("keep", [1, CLASSES])
def test_the_mapping_is_asked_for_what_it_saw_in_training(keep, monkeypatch):
    """h of 1e18 for the class and |N(0, 1)| for the others: with one score kept that is one-hot."""
    asked = []
    inner = Perceptron.apply

    def spied(self, variables, scores, **options):
        jax.debug.callback(lambda seen: asked.append(np.asarray(seen)), scores)
        return inner(self, variables, scores, **options)

    monkeypatch.setattr(Perceptron, "apply", spied)
    attack(keep=keep, coarse_steps=2).solve((mapped(),)).init(KEY, jnp.asarray(1, jnp.int32))
    jax.effects_barrier()
    assert len(asked) == 2 and asked[0].shape == (6, CLASSES)
    if keep == 1:
        np.testing.assert_array_equal(asked[0], np.tile([0.0, 1.0, 0.0], (6, 1)))
        return
    np.testing.assert_allclose(np.linalg.norm(asked[0], axis=1), 1.0, rtol=1e-5)
    others = asked[0][:, [0, 2]] / asked[0][:, [1]] * 50  # log(1e-18 |N|) + 50 is 8.55 + log |N|
    assert np.all(others < 8.553 + np.log(5)) and np.all(others > 8.553 + np.log(1e-3))
    assert len(np.unique(others)) == others.size and not np.array_equal(asked[0], asked[1])


def test_starts_are_means_of_two_latents():
    """Without descent, of many starts each coordinate deviates by 1 / sqrt(2)."""
    process = attack(coarse_steps=0, starts=2000, kept=2000, members=2000).solve((mapped(),))
    state = compiled(process.init)(KEY, jnp.asarray(0, jnp.int32))
    assert np.asarray(state.population).std() == pytest.approx(np.sqrt(0.5), abs=0.02)


@pytest.mark.nightly
def test_those_are_kept_that_the_target_believes_most_and_every_query_is_counted():
    served = []

    def answer(key, scores):
        jax.debug.callback(lambda seen: served.append(np.asarray(seen)), scores)
        return scores

    process = attack(view(defense=Defense(answer=answer)), coarse_steps=0).solve((mapped(),))
    state = jax.jit(process.init)(KEY, jnp.asarray(0, jnp.int32))
    jax.effects_barrier()
    assert len(served) == int(state.queries) == 6 + 10 - 4
    scores = np.sort([row[0] for row in served])
    np.testing.assert_allclose(-np.sort(-np.exp(-state.loss[:4])), np.exp(-state.loss[:4]))  # the best first
    everything = np.exp(-np.asarray(state.loss))
    assert np.all(np.isin(np.round(everything, 5), np.round(scores, 5)))
    lost = [score for score in scores if np.abs(everything - score).min() > 1e-6]
    assert len(lost) == 2 and max(lost) < everything[:4].min()


@pytest.mark.nightly
def test_coarse_stage_finds_the_wanted_embedding():
    process = attack(coarse_steps=200, coarse_rate=0.05, fresh=0.0).solve((mapped(),))
    state = compiled(process.init)(KEY, jnp.asarray(0, jnp.int32))
    np.testing.assert_allclose(state.population, jnp.broadcast_to(WANTED, (10, D)), atol=0.05)


@pytest.mark.nightly
def test_blends_are_of_three_different_and_of_new_ones():
    """7/10 of a sum weighted 1/2, 1/4, 1/4, and 3/10 of a mean of three: .46 of the spread of a latent."""
    kept, nothing = jnp.eye(5), jnp.zeros((40, 3, 5))
    members = np.asarray(blend(KEY, kept, nothing, 0.3)) / 0.7
    np.testing.assert_allclose(np.sort(members, 1)[:, 2:], np.tile([0.25, 0.25, 0.5], (40, 1)), rtol=1e-5)
    assert len(np.unique(members, axis=0)) > 10
    drawn = jax.random.normal(KEY, (40, 3, 5))
    np.testing.assert_allclose(blend(KEY, jnp.zeros((4, 5)), drawn, 0.3), 0.3 * drawn.mean(1), rtol=1e-4, atol=1e-6)
    many = [jax.random.normal(jax.random.fold_in(KEY, i), shape) for i, shape in enumerate(((900, 32), (2000, 3, 32)))]
    spread = np.sqrt(0.7**2 * (0.5**2 + 2 * 0.25**2) + 0.3**2 / 3)
    assert float(jnp.sqrt(jnp.mean(blend(KEY, *many, 0.3) ** 2))) == pytest.approx(spread, abs=0.01)


@pytest.mark.nightly
def test_a_child_is_moved_by_four_differences_in_half_of_its_genes():
    w = jax.random.normal(KEY, (32, 400))
    child = np.asarray(children(jax.random.key(1), w, w[3], 0.0, 0.1))
    moved = child != np.asarray(w)
    assert moved.mean() == pytest.approx(0.5, abs=0.02)
    # Of a difference of two of 32 the variance is 2 * 31 / 32, of four of them four times that.
    deviation = (child - np.asarray(w))[moved].std()
    assert deviation == pytest.approx(0.1 * np.sqrt(8 * 31 / 32), rel=0.1)
    pulled = np.asarray(children(jax.random.key(1), w, w[3], 0.02, 0.0))
    np.testing.assert_allclose(pulled[moved], np.asarray(w + 0.02 * (w[3] - w))[moved], rtol=1e-5)


def test_the_strength_of_the_differences_jumps_and_falls():
    expected = {0: 1.0, 469: 1.0, 470: 0.6, 485: 0.3, 499: 0.02}
    for generation, share in expected.items():
        assert float(strength(jnp.asarray(generation), 500)) == pytest.approx(share, abs=1e-5)
    assert float(strength(jnp.asarray(93), 100)) == 1.0 and float(strength(jnp.asarray(94), 100)) == pytest.approx(0.6)


@pytest.mark.nightly
def test_a_generation_takes_the_strength_of_its_number():
    process = attack(beta=1.0, pull=0.0, steps=100).solve((mapped(),))
    state, label = compiled(process.init)(KEY, jnp.asarray(0, jnp.int32)), jnp.asarray(0, jnp.int32)
    unlikely = state._replace(loss=jnp.full(10, 1e6), population=jnp.arange(40.0).reshape(10, 4) / 40)
    change = {}
    for generation in (0, 97):
        new, _ = process.step(KEY, unlikely._replace(generation=jnp.asarray(generation)), label)
        change[generation] = np.asarray(new.population - unlikely.population)
    free = np.abs(change[0]).max(1) < 2  # not cut off by the box
    np.testing.assert_allclose(change[97][free], 0.3 * change[0][free], rtol=1e-3, atol=1e-5)
    assert np.abs(change[0][free]).max() > 0.1


@pytest.mark.nightly
def test_fine_stage_never_loses_a_member_and_stops_at_the_budget():
    label = jnp.asarray(1, jnp.int32)
    process = attack(budget=47).solve((mapped(),))
    state, step = compiled(process.init)(KEY, label), compiled(process.step)
    for t in range(3):
        before = state.loss
        state, info = step(jax.random.fold_in(KEY, t), state, label)
        assert np.all(state.loss <= before) and int(info.queries) == 12 + 10 * (t + 1)
        assert bool(info.done) == (t == 2)  # another ten would be 52
    scores = jax.vmap(view().answer, (None, 0))(KEY, state.population)[:, 1]
    np.testing.assert_allclose(state.loss, -np.log(scores), rtol=1e-4)  # losses belong to their latents
    np.testing.assert_array_equal(process.read(state), state.population[int(np.argmin(state.loss))])


@pytest.mark.nightly
def test_the_mapping_is_trained_for_20_epochs_whose_rate_falls_by_tenths():
    defaults = {name: value.default for name, value in inspect.signature(c2fmi).parameters.items()}
    assert defaults["train_steps"] == 20 * (150_000 // 128)
    process = attack(train_steps=20, train_rate=0.1).train[0](())
    batch = {"x": jax.random.normal(KEY, (5, D))}
    state, step, moves = process.init(KEY, batch), compiled(process.step), []
    for t in range(20):
        new, _ = step(jax.random.fold_in(KEY, t), state, batch)
        change = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), new[0]["params"], state[0]["params"])
        moves.append(max(map(float, jax.tree.leaves(change))))
        state = new
    # Adam moves by its rate at most a little more, and by no more than is left of it in the end.
    assert moves[0] == pytest.approx(0.1, rel=0.01) and max(moves[18:]) < 0.1 * 0.8**9 * 1.5


@pytest.mark.parametrize("wrong", [{"kept": 7}, {"kept": 2}, {"members": 3}, {"budget": 21}])
def test_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        attack(**wrong)
