"""XAI-aware inversion: what an explaining target serves, and that the explanation is what is inverted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, Plan, Scenario, ThreatModelError, from_callable, from_function, run
from jaxmia.attacks.image.xai_aware import standardize, xai_aware

KEY, SHAPE = jax.random.key(8), (2, 3, 1)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
RNG = np.random.default_rng(3)
TURN = np.linalg.qr(RNG.normal(size=(6, 6)))[0].astype(np.float32)
PRIVATE = RNG.uniform(size=(5, *SHAPE)).astype(np.float32)


def network(turn, x):
    """Two logits, |x|^2 / 2 in the coordinates of `turn`, whose third weighs most, and one that is always less."""
    turned = x.reshape(len(x), -1) @ turn
    weighed = 0.5 * jnp.sum(turned**2 * jnp.asarray([1.0, 1.0, 3.0, 1.0, 1.0, 1.0]), 1)
    return jnp.stack([weighed, weighed - 1.0], 1)


TARGET = from_function(network, jnp.asarray(TURN), classes=2)
EXPLAINED = TARGET.explained()


class Decoder(nn.Module):
    """Linear in both."""

    explanation: bool = True

    @nn.compact
    def __call__(self, told, train: bool = False):
        both = [told["scores"]] + [told["explanation"].reshape(len(told["scores"]), -1)] * self.explanation
        return nn.Dense(6)(jnp.concatenate(both, -1)).reshape(-1, *SHAPE)


def public(step):
    return {"x": np.random.default_rng(step).uniform(size=(32, *SHAPE)).astype(np.float32)}


def test_an_explaining_target_serves_the_gradient_beside_its_scores():
    served = EXPLAINED.view(Access.SCORES).answer(KEY, PRIVATE[0])
    by_hand = TURN @ (np.array([1, 1, 3, 1, 1, 1]) * (PRIVATE[0].reshape(6) @ TURN))
    np.testing.assert_allclose(served["explanation"].reshape(6), by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(served["scores"], np.array([np.e, 1.0]) / (1 + np.e), rtol=1e-4)
    assert TARGET.view(Access.SCORES).answer(KEY, PRIVATE[0]).shape == (2,)  # the one before is as it was
    assert int(EXPLAINED.view(Access.LABELS).answer(KEY, PRIVATE[0])) == 0


def test_it_may_be_asked_and_not_differentiated():
    for part in ("scores", "explanation"):
        with pytest.raises(ThreatModelError, match="WEIGHTS"):
            jax.grad(lambda x, part=part: jnp.sum(EXPLAINED.view(Access.SCORES).answer(KEY, x)[part]))(PRIVATE[0])
    with pytest.raises(ThreatModelError, match="host"):
        from_callable(lambda x: np.zeros((len(x), 2)), classes=2).explained()


def test_a_defense_of_scores_leaves_the_explanation():
    defense = Defense(answer=lambda key, scores: jnp.round(scores))
    guarded = from_function(network, jnp.asarray(TURN), classes=2, defense=defense).explained()
    served, plain = (t.view(Access.SCORES).answer(KEY, PRIVATE[1]) for t in (guarded, EXPLAINED))
    np.testing.assert_array_equal(served["scores"], [1.0, 0.0])
    np.testing.assert_array_equal(served["explanation"], plain["explanation"])


def test_any_explanation_can_be_served():
    occluded = TARGET.explained(lambda model, x: model(x).logits[0] - model(0 * x).logits[0])
    served = occluded.view(Access.SCORES).answer(KEY, PRIVATE[0])
    np.testing.assert_allclose(served["explanation"], network(TURN, PRIVATE[:1])[0, 0], rtol=1e-5)


def error(decoder, **options):
    view = EXPLAINED.view(Access.SCORES)
    cases = jax.tree.map(np.asarray, jax.vmap(lambda x: view.answer(KEY, x))(jnp.asarray(PRIVATE)))
    attack = xai_aware(view, decoder, steps=800, rate=0.02)
    result = run(attack, KEY, Scenario(EXPLAINED, cases, public=public), plan=ONE)
    assert result.training_queries == 32 * 800
    return np.sqrt(np.mean((result.output - PRIVATE) ** 2))


@pytest.mark.nightly
def test_the_explanation_is_what_tells_the_image():
    """Up to its length, which standardizing takes: scores are the same for every image."""
    both, scores = error(Decoder()), error(Decoder(explanation=False))
    assert both <= 0.6 * scores
    assert scores >= 0.9 * np.sqrt(np.mean((PRIVATE - 0.5) ** 2))


def test_standardizing_forgets_how_steep_the_target_is():
    served = {"scores": jnp.asarray([0.2, 0.8]), "explanation": jnp.asarray([[3.0, 4.0]])}
    told = standardize(served)
    np.testing.assert_allclose(told["explanation"], np.array([[3.0, 4.0]]) / np.sqrt(12.5), rtol=1e-6)
    np.testing.assert_allclose(told["scores"], np.array([-1, 1]) * np.log(4) / 2 / 5, rtol=1e-5)
    steep = standardize({**served, "explanation": 1e-9 * served["explanation"]})
    np.testing.assert_allclose(steep["explanation"], told["explanation"], rtol=1e-5)


def test_refuses_a_target_that_explains_nothing():
    attack = xai_aware(TARGET.view(Access.SCORES), Decoder())
    with pytest.raises(ValueError, match="Target.explained"):
        attack.train[0](()).init(KEY, public(0))
