"""LOMMA: the identity loss against numpy, what surrogates learn, and the order of training stages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import Access, Attack, Plan, from_function
from jaxmia.attacks.image.lomma import lomma
from jaxmia.core import Process, info
from jaxmia.engine import fit
from jaxmia.objectives import logit
from jaxmia.oracle import Outputs
from jaxmia.recipes import distill, moments
from jaxmia.testing.benches.networks import Surrogate

KEY, CLASSES, D = jax.random.key(5), 4, 6
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(D, CLASSES)).astype(np.float32)
X = RNG.normal(size=D).astype(np.float32)
MEAN, DEVIATION = RNG.normal(size=D).astype(np.float32), RNG.uniform(0.5, 2.0, D).astype(np.float32)


def target(feature="penultimate"):
    """Linear; its feature is twice its input."""
    return from_function(
        lambda w, x: Outputs(x.reshape(-1, D) @ w, {feature: 2 * x.reshape(-1, D)}),
        jnp.asarray(MATRIX),
        classes=CLASSES,
    )


def batches(step):
    return {"x": np.random.default_rng(step).normal(size=(16, D)).astype(np.float32)}


class Base:
    """An attack that does nothing but remember what it was given."""

    def __init__(self, stages=0):
        self.seen, self.stages, self.fitted = [], stages, None

    def __call__(self, oracle, objective):
        self.seen.append((oracle, objective))

        def stage(fitted):
            return Process(lambda key, batch: jnp.zeros(()), lambda key, s, b: (s, info(0.0)), lambda s: "base", 1)

        def solve(fitted):
            self.fitted = fitted
            return Process(lambda key, case: case, lambda key, s, c: (s, info(0.0)), lambda s: s, 1)

        return Attack(solve, (stage,) * self.stages)


def answers(surrogates, variables, **options):
    base = Base()
    lomma(target().view(Access.WEIGHTS), base, surrogates, **options).solve(((MEAN, DEVIATION), *variables))
    oracle, objective = base.seen[-1]
    assert objective is logit
    return oracle.answer


def test_the_identity_loss_is_that_of_the_paper():
    surrogates = (Surrogate(CLASSES), Surrogate(CLASSES, 5))
    variables = [s.init(jax.random.key(i), X[None]) for i, s in enumerate(surrogates)]
    told = answers(surrogates, variables, sampled=False, regularizer_weight=0.7)(KEY, jnp.asarray(X))

    first, second = (jax.tree.map(np.asarray, v["params"]) for v in variables)
    linear = X @ first["Dense_0"]["kernel"] + first["Dense_0"]["bias"]
    hidden = np.maximum(X @ second["Dense_1"]["kernel"] + second["Dense_1"]["bias"], 0)  # made after the outer layer
    deep = hidden @ second["Dense_0"]["kernel"] + second["Dense_0"]["bias"]
    wanted = (X @ MATRIX + linear + deep) / 3 - 0.7 * np.mean((2 * X - MEAN) ** 2)
    np.testing.assert_allclose(told, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logit(told, jnp.asarray(2)), -wanted[2], rtol=1e-4)


def test_p_reg_is_drawn_anew_unless_as_released():
    answer = answers((), [])
    far = X @ MATRIX - np.asarray(jax.vmap(answer, (0, None))(jax.random.split(KEY, 4000), jnp.asarray(X)))
    # E (p - mu - sigma e)^2 = (p - mu)^2 + sigma^2
    wanted, error = np.mean((2 * X - MEAN) ** 2 + DEVIATION**2), far[:, 0].std() / np.sqrt(4000)
    assert error > 0 and abs(far[:, 0].mean() - wanted) < 4 * error
    released = answers((), [], sampled=False)
    assert float(released(KEY, X)[0]) == float(released(jax.random.key(6), X)[0])


def test_moments_are_exact_over_minibatches_of_any_size():
    rows = [np.random.default_rng(step).normal(3.0, 2.0, (size, D)) for step, size in enumerate((3, 11, 7))]
    process = moments(lambda key, batch: batch, steps=3)
    state = process.init(KEY, jnp.asarray(rows[0]))
    for batch in rows:
        state, _ = process.step(KEY, state, jnp.asarray(batch))
    mean, deviation = process.read(state)
    np.testing.assert_allclose(mean, np.concatenate(rows).mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, np.concatenate(rows).std(0), rtol=1e-5)


def test_a_surrogate_learns_the_target():
    view = target().view(Access.WEIGHTS)
    teach = lambda key, x: jax.nn.softmax(view.answer(key, x))  # noqa: E731
    process = distill(Surrogate(CLASSES), teach, optax.adam(0.05), steps=300)
    variables, told = fit(process, KEY, batches, plan=ONE)
    assert float(told.loss[-1]) < 1e-3
    learned = np.asarray(variables["params"]["Dense_0"]["kernel"])  # up to what softmax does not see
    np.testing.assert_allclose(
        learned - learned.mean(1, keepdims=True), MATRIX - MATRIX.mean(1, keepdims=True), atol=0.1
    )


def test_stages_of_the_base_come_first_and_it_gets_theirs_alone():
    base = Base(stages=2)
    attack = lomma(target().view(Access.WEIGHTS), base, (Surrogate(CLASSES),), moments_steps=2, distill_steps=2)
    assert [stage(()).steps for stage in attack.train] == [1, 1, 2, 2]
    variables = Surrogate(CLASSES).init(KEY, X[None])
    attack.solve(("a", "b", (MEAN, DEVIATION), variables))
    assert base.fitted == ("a", "b")


def test_a_target_without_the_feature_is_refused_with_what_it_shows():
    attack = lomma(target("hidden").view(Access.WEIGHTS), Base(), ())
    with pytest.raises(ValueError, match="'penultimate'; the target shows hidden"):
        attack.train[0](()).init(KEY, batches(0))
