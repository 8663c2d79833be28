"""The student learns what is served, and the base attacks the student and nothing else."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, Scenario, attacks, from_function, run
from jaxmia.attacks.image.distilled import distilled
from jaxmia.core import Attack, Process, info
from jaxmia.defenses.rounding import rounding
from jaxmia.engine import Plan
from jaxmia.oracle import ThreatModelError
from jaxmia.recipes import score

SHAPE, CLASSES, PLAN = (3, 1, 1), 3, Plan(progress=False)
WEIGHTS = jnp.asarray([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [-2.0, 0.0, 1.0]])


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


def target(defense=None):
    return from_function(lambda w, x: x.reshape(len(x), -1) @ w, WEIGHTS, classes=CLASSES, defense=defense)


def public(step):
    return {"x": np.random.default_rng(step).normal(size=(32, *SHAPE)).astype(np.float32)}


def reads_weights(oracle):
    """A base with a stage of its own, which reads a sum of parameters; a case gets them all."""
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(oracle.params))
    stage = Process(lambda key, batch: total, lambda key, state, batch: (state, info(0.0)), lambda state: state, 1)
    read = score(lambda key, case: oracle.params["params"]["Dense_0"]["kernel"])
    return Attack(
        lambda fitted: read._replace(read=lambda state: (read.read(state), fitted[0])), (lambda fitted: stage,)
    )


def solved(defense=None, **settings):
    attack = distilled(target(defense).view(Access.SCORES), reads_weights, Linear(), SHAPE, **settings)
    scenario = Scenario(target(defense), np.zeros(1, np.int32), public=public)
    return run(attack, jax.random.key(0), scenario, plan=PLAN)


def centered(kernel):
    return np.asarray(kernel) - np.mean(kernel, 1, keepdims=True)  # a softmax does not see more of it


def test_a_linear_student_becomes_the_linear_target_and_stages_of_the_base_see_it():
    kernel, total = solved(steps=1500, rate=0.02).output
    np.testing.assert_allclose(centered(kernel[0]), centered(WEIGHTS), atol=0.05)
    np.testing.assert_allclose(total[0], np.sum(kernel[0]), atol=0.3)  # with the biases, which are near zero


@pytest.mark.nightly
def test_it_learns_from_scores_that_do_not_sum_to_one_or_are_all_zero():
    kernel, _ = solved(rounding(level=0.2), steps=1500, rate=0.02).output
    np.testing.assert_allclose(centered(kernel[0]), centered(WEIGHTS), atol=0.5)
    nothing = Defense(answer=lambda key, served: 0 * served)
    flat, _ = solved(nothing, steps=600, rate=0.02).output
    assert np.abs(centered(flat[0])).max() < 0.05


def test_labels_do_not_suffice_and_a_base_that_the_student_cannot_feed_is_refused_at_once():
    with pytest.raises(ThreatModelError, match="image/distilled needs access SCORES"):
        distilled(target().view(Access.LABELS), reads_weights, Linear(), SHAPE)
    deep = functools.partial(attacks.get("image/deep_inversion").factory, shape=SHAPE)
    with pytest.raises(ValueError, match="batch_norm"):
        distilled(target().view(Access.SCORES), deep, Linear(), SHAPE)
