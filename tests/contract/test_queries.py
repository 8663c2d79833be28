"""Every attack below white-box access asks a host target exactly the queries that it counts, whatever the plan."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxmia import Access, Target, fit, queries, solve
from jaxmia.testing.trial import FOUR, KEY, ONE, Trial
from tests.contract.methods import METHODS

BLACK_BOX = [method for method in METHODS if Access.NONE < method.card.access < Access.WEIGHTS]
PLANS = {  # four slots twice for the six cases of a bench, in microbatches; eight slots, of four devices
    "microbatch": ONE._replace(chunk=4, microbatch=2, loop="host"),
    "devices": FOUR._replace(chunk=2),
}
STEPS = 3


class Host:
    """A target on the host that serves numbers of the shape of the bench's, and counts what it is asked."""

    def __init__(self, trial):
        served = trial.on.target("leaks").view(Access.SCORES).answer
        self.asked, self.text = 0, trial.method.card.modality == "text"

        def scores(key, x):
            blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(served, key, x))
            flat, unflatten = ravel_pytree(blank)
            return unflatten(queries.metered(lambda x: self.predict(x, flat.size), flat.shape)(key, x))

        self.target = Target(None, None, classes=trial.on.target("leaks").classes, granted=Access.SCORES, scores=scores)

    def predict(self, x, size):
        assert len(x) and x.flags.writeable
        self.asked += len(x)
        flat = x.reshape(len(x), -1).astype(np.float32)
        logits = 3 * flat @ np.random.default_rng(0).normal(size=(flat.shape[1], size)).astype(np.float32)
        scores = np.exp(logits - logits.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        return np.log(scores + 1e-6) - 1 if self.text else scores


@pytest.fixture(params=BLACK_BOX, ids=[m.name for m in BLACK_BOX], scope="module")
def trained(request):
    """A trial, its host target, the attack on it, and what a few steps of its training read out."""
    trial = Trial(request.param)
    host = Host(trial)
    attack, outputs = trial.attack(host.target.view(trial.method.card.access)), ()
    for stage in attack.train:
        before, process = host.asked, stage(outputs)
        output, history = fit(process, KEY, trial.batches(), steps=min(process.steps, STEPS), plan=ONE)
        assert host.asked - before == history.queries[-1]
        outputs += (output,)
    return trial, host, attack.solve(outputs)


@pytest.mark.parametrize("plan", ["microbatch", pytest.param("devices", marks=pytest.mark.nightly)])
def test_what_is_asked_is_what_is_counted(trained, plan, monkeypatch):
    trial, host, process = trained
    by_case, answer = Counter(), queries.Ledger.answer

    def counted(self, ask, shape, x, identities):
        by_case.update(identities[1].tolist())
        return answer(self, ask, shape, x, identities)

    monkeypatch.setattr(queries.Ledger, "answer", counted)
    before = host.asked
    result = solve(process, KEY, trial.cases(), steps=min(process.steps, STEPS), plan=PLANS[plan])
    assert [by_case[row] for row in range(len(result.status))] == result.info.queries.tolist()
    assert host.asked - before == result.info.queries.sum()
    if process.steps == 0 and hasattr(result.output, "queries"):
        np.testing.assert_array_equal(result.output.queries, result.info.queries)
