"""The Secret Sharer against order-1 Markov language models, whose log-perplexities are sums one can do by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import (
    Access,
    Defense,
    Plan,
    Scenario,
    Status,
    Target,
    ThreatModelError,
    from_function,
    from_linen,
    run,
    solve,
)
from jaxmia.attacks.text.secret_sharer import CARD, secret_sharer
from jaxmia.core import WORST
from jaxmia.metrics.privacy import exposure_by_sampling, exposure_exact
from jaxmia.models.language import LSTMLanguageModel

KEY = jax.random.key(0)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
START, END, VOCABULARY = 10, 11, 12  # tokens 0 to 9 are the digits
DIGITS = np.arange(10, dtype=np.int32)
CASES = {"prefix": np.array([[END, START]], np.int32), "suffix": np.array([[END]], np.int32)}


def serve(outputs):
    return jax.nn.log_softmax(outputs.logits)


def markov(transitions, **options) -> Target:
    """The language model with Pr(next = j | last = i) = transitions[i, j]."""
    table = jnp.asarray(transitions, jnp.float32)
    options = {"serve": serve, **options}
    return from_function(lambda params, tokens: jnp.log(params[tokens]), table, classes=VOCABULARY, **options)


def random_transitions(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(VOCABULARY), VOCABULARY)


def counted(canary, times: int) -> np.ndarray:
    """Transitions with add-one counts of a text that holds the canary `times` times."""
    counts = np.ones((VOCABULARY, VOCABULARY))
    np.add.at(counts, (np.array([START, *canary]), np.array([*canary, END])), times)
    return counts / counts.sum(1, keepdims=True)


def extract(target, length, cases=CASES, **options):
    attack = secret_sharer(target.view(Access.SCORES), [DIGITS] * length, **options)
    return run(attack, KEY, Scenario(target, cases), plan=ONE)


def once(attack, case):
    """The attack's output on one case, without the engine."""
    process = attack.solve(())
    return jax.jit(lambda c: process.read(process.init(KEY, c)))(case)


def ranks(log_perplexity, secrets):
    """1 for the likeliest; ties count against the secret."""
    return np.searchsorted(np.sort(log_perplexity), log_perplexity[secrets], side="right")


def by_hand(transitions, length, prefix, suffix):
    """Log-perplexity of what follows the prefix, candidate by candidate."""
    found = []
    for secret in itertools.product(range(10), repeat=length):
        chain = [prefix[-1], *secret, *suffix]
        found.append(-sum(math.log2(transitions[i, j]) for i, j in itertools.pairwise(chain)))
    return np.array(found)


def test_log_perplexities_are_the_sums_of_definition_1():
    transitions = random_transitions(0)
    result = extract(markov(transitions), 3)
    expected = by_hand(transitions, 3, [END, START], [END])
    np.testing.assert_allclose(result.output.log_perplexity[0], expected, rtol=1e-5)
    best = int(expected.argmin())
    assert result.output.secret[0].tolist() == [best // 100, best // 10 % 10, best % 10]
    assert result.output.queries[0] == 1000 and result.status[0] == Status.RUNNING and result.steps[0] == 0


def test_planted_canary_is_extracted_with_all_of_its_exposure():
    canary = [3, 1, 4, 2]
    result = extract(markov(counted(canary, 50)), 4)
    assert result.output.secret[0].tolist() == canary
    rank = ranks(result.output.log_perplexity[0], [3142])
    assert rank.tolist() == [1]
    np.testing.assert_allclose(exposure_exact(rank, 10_000), math.log2(10_000))


def test_exposure_of_geometric_digits_is_known():
    # Pr(d) = 2^-(d+1) after anything: candidate (a, b) has a + b + 2 bits, and (s+1)(s+2)/2 candidates have a + b <= s.
    transitions = np.full((VOCABULARY, VOCABULARY), 1e-9)
    transitions[:, :10] = 0.5 ** (DIGITS + 1.0)
    result = extract(markov(transitions), 2, {**CASES, "suffix": np.zeros((1, 0), np.int32)})
    found = result.output.log_perplexity[0].reshape(10, 10)
    total = transitions.sum(1)[0]
    np.testing.assert_allclose(found, DIGITS[:, None] + DIGITS + 2 + 2 * math.log2(total), rtol=1e-4)
    rounded = np.round(found, 3).ravel()
    secrets = np.array([0, 10, 25, 80])  # a + b = 0, 1, 7, 8
    np.testing.assert_allclose(
        exposure_exact(ranks(rounded, secrets), 100), np.log2(100 / np.array([1, 3, 36, 45])), rtol=1e-12
    )


def test_secrets_that_were_never_planted_are_at_chance():
    found = extract(markov(random_transitions(1)), 4).output.log_perplexity[0]
    secrets = np.random.default_rng(2).integers(0, 10_000, 2000)
    assert np.mean(exposure_exact(ranks(found, secrets), 10_000)) == pytest.approx(math.log2(math.e), abs=0.1)
    reference = found[np.random.default_rng(3).integers(0, 10_000, 1000)]
    sampled = exposure_by_sampling(found[secrets], reference)
    assert np.mean(sampled.by_rank) == pytest.approx(math.log2(math.e), abs=0.15)


def test_uniform_model_exposes_nothing():
    # All candidates tie. Counted against the secret the exposure is 0 bits, never above chance.
    found = extract(markov(np.full((VOCABULARY, VOCABULARY), 1 / VOCABULARY)), 3).output
    np.testing.assert_array_equal(found.log_perplexity[0], found.log_perplexity[0, 0])
    assert found.log_perplexity[0, 0] == pytest.approx(4 * math.log2(VOCABULARY), rel=1e-6)
    assert (exposure_exact(ranks(found.log_perplexity[0], np.arange(1000)), 1000) == 0).all()
    assert found.secret[0].tolist() == [0, 0, 0]


@pytest.mark.nightly
def test_log_perplexities_of_a_network_are_its_own():
    module = LSTMLanguageModel(VOCABULARY, width=8, layers=1)
    variables = module.init(jax.random.key(1), jnp.zeros((1, 3), jnp.int32))
    found = extract(from_linen(module, variables, classes=VOCABULARY, serve=serve), 2).output.log_perplexity[0]
    secrets = np.indices((10, 10)).reshape(2, -1).T
    ends = [np.tile(CASES[end], (100, 1)) for end in ("prefix", "suffix")]
    sequences = np.concatenate([ends[0], secrets, ends[1]], axis=1)
    logits = np.asarray(module.apply(variables, jnp.asarray(sequences)), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [-sum(log_p[n, i - 1, row[i]] for i in (2, 3, 4)) / math.log(2) for n, row in enumerate(sequences)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_formats_of_any_space_and_many_cases():
    # A dash in the middle that is known, another choice at each position, three formats at once.
    transitions = random_transitions(4)
    space = [np.array([5, 2]), np.array([START]), np.array([9, 0, 7])]
    prefixes = np.array([[0], [1], [END]], np.int32)
    suffixes = np.array([[2, 3], [END, 1], [4, 4]], np.int32)
    attack = secret_sharer(markov(transitions).view(Access.SCORES), space)
    result = solve(attack.solve(()), KEY, {"prefix": prefixes, "suffix": suffixes}, plan=ONE)
    for n in range(3):
        expected = []
        for secret in itertools.product(*space):
            chain = [*prefixes[n], *secret, *suffixes[n]]
            expected.append(-sum(math.log2(transitions[i, j]) for i, j in itertools.pairwise(chain)))
        np.testing.assert_allclose(result.output.log_perplexity[n], expected, rtol=1e-5)
        assert result.output.secret[n].tolist() == list(list(itertools.product(*space))[int(np.argmin(expected))])
    assert result.output.queries.tolist() == [6, 6, 6]


@pytest.mark.parametrize("chunk", [1, 7, 100, 4096])
def test_queries_are_the_sequences_the_target_saw(chunk):
    seen = []

    def look(tokens):
        seen.extend(np.asarray(tokens).reshape(-1, 5).tolist())
        return np.zeros(np.shape(tokens)[:-1], np.float32)

    def watched(params, tokens):
        none = jax.ShapeDtypeStruct((len(tokens),), jnp.float32)
        return params[tokens] + jax.pure_callback(look, none, tokens, vmap_method="expand_dims")[:, None, None]

    target = from_function(watched, jnp.zeros((VOCABULARY, VOCABULARY)), classes=VOCABULARY, serve=serve)
    attack = secret_sharer(target.view(Access.SCORES), [DIGITS] * 2, chunk=chunk)
    output = once(attack, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), CASES))
    assert int(output.queries) == len(seen) == len({tuple(row) for row in seen}) == 100
    assert {tuple(row[2:4]) for row in seen} == set(itertools.product(range(10), repeat=2))
    assert all(row[:2] == [END, START] and row[4] == END for row in seen)


@pytest.mark.nightly
def test_eager_jit_and_chunks_agree():
    target = markov(random_transitions(5))
    case = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), CASES)

    def attack(chunk):
        return secret_sharer(target.view(Access.SCORES), [DIGITS[:4], DIGITS[7:]], chunk=chunk)

    jitted = once(attack(256), case)
    with jax.disable_jit():
        eager = once(attack(6), case)
    for other in (eager, once(attack(1), case), once(attack(5), case)):
        np.testing.assert_allclose(other.log_perplexity, jitted.log_perplexity, rtol=1e-6)
        assert other.secret.tolist() == jitted.secret.tolist()


def test_access():
    target = markov(counted([7, 6, 5], 50))
    assert CARD.access == Access.SCORES
    with pytest.raises(ThreatModelError, match="text/secret_sharer needs access SCORES; this oracle grants LABELS"):
        secret_sharer(target.view(Access.LABELS), [DIGITS])
    with pytest.raises(ThreatModelError, match="WEIGHTS"):
        jax.grad(lambda p: target.view(Access.SCORES).answer(KEY, p).sum())(jnp.ones(3))
    case = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), CASES)
    scores, weights = (
        once(secret_sharer(target.view(access), [DIGITS] * 3), case) for access in (Access.SCORES, Access.WEIGHTS)
    )
    np.testing.assert_allclose(scores.log_perplexity, weights.log_perplexity, rtol=1e-6)
    assert scores.secret.tolist() == weights.secret.tolist() == [7, 6, 5]


def test_every_candidate_gets_a_key_of_its_own():
    noise = Defense(answer=lambda key, answer: answer - jax.random.exponential(key))
    found = extract(markov(np.full((VOCABULARY, VOCABULARY), 1 / VOCABULARY), defense=noise, noise="fresh"), 2).output
    assert len(np.unique(found.log_perplexity[0])) == 100


def test_impossible_candidates_come_last():
    transitions = np.full((VOCABULARY, VOCABULARY), 1 / VOCABULARY)
    transitions[START, 3] = 0  # no secret starts with 3
    transitions[3, END] = 0  # nor ends with it
    result = extract(markov(transitions), 2)
    found = result.output.log_perplexity[0].reshape(10, 10)
    assert result.status[0] == Status.RUNNING
    assert (found[3] == np.float32(WORST)).all() and (found[:, 3] == np.float32(WORST)).all()
    assert (np.delete(np.delete(found, 3, 0), 3, 1) < 20).all()


@pytest.mark.nightly
def test_a_case_that_makes_no_sense_is_flagged():
    transitions = random_transitions(6)
    probabilities = markov(transitions, serve=lambda outputs: jax.nn.softmax(outputs.logits))
    assert extract(probabilities, 2).status[0] == Status.NONFINITE
    for token in (-1, VOCABULARY):
        cases = {**CASES, "suffix": np.array([[token]], np.int32)}
        assert extract(markov(transitions), 2, cases).status[0] == Status.NONFINITE
    with pytest.raises(ValueError, match="prefix: has no tokens"):
        extract(markov(transitions), 2, {**CASES, "prefix": np.zeros((1, 0), np.int32)})


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ([], {}, "space: has no positions"),
        ([DIGITS, DIGITS[:0]], {}, r"space\[1\]: \[\]"),
        ([np.array([4, 4])], {}, r"space\[0\]: \[4, 4\]; legal is one token or more, distinct"),
        ([np.array([-1, 4])], {}, r"space\[0\]: \[-1, 4\]"),
        ([DIGITS] * 3, {"budget": 999}, "budget: 999 queries per case, but the space has 1000 candidates"),
        ([DIGITS] * 30, {}, "budget: 1000000 queries"),
        ([DIGITS], {"chunk": 0}, "chunk: 0; legal is 1 or more"),
    ],
)
def test_bad_inputs_are_refused(space, options, message):
    with pytest.raises(ValueError, match=message):
        secret_sharer(markov(random_transitions(7)).view(Access.SCORES), space, **options)
