"""Attribute inversion against targets whose posterior is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Defense, Plan, Scenario, Status, ThreatModelError, from_callable, from_function, run, solve
from jaxmia.attacks.tabular.attribute_inversion import CARD, attribute_inversion

KEY = jax.random.key(0)
ONE = Plan(devices=tuple(jax.devices()[:1]), progress=False)
COLUMNS, SENSITIVE = (3, 2, 4), 1
MARGINALS = np.array([0.25, 0.75])


def one_hot_logits(params, batch):
    """Logits that are linear in the one-hot record; scaled weights make the softmax as sharp as wanted."""
    return batch @ params


def reveals() -> np.ndarray:
    """Weights `[9, 2]` of a target that answers the sensitive value itself, with certainty."""
    weights = np.zeros((sum(COLUMNS), 2), np.float32)
    weights[3, 0] = weights[4, 1] = 200.0
    return weights


def target_of(weights, **options):
    return from_function(one_hot_logits, jnp.asarray(weights, jnp.float32), classes=weights.shape[1], **options)


def constant(classes: int = 2):
    """A target that answers class 0 whatever it is asked."""
    return target_of(np.zeros((sum(COLUMNS), classes), np.float32))


def some_cases(n: int = 16, classes: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    record = np.stack([rng.integers(0, size, n) for size in COLUMNS], 1).astype(np.int32)
    return {"record": record, "label": rng.integers(0, classes, n).astype(np.int32)}


def attack_on(target, access=Access.LABELS, **options):
    given = {"columns": COLUMNS, "sensitive": SENSITIVE, "marginals": MARGINALS, "confusion": np.eye(2), **options}
    return attribute_inversion(target.view(access), **given)


def infer(target, cases, access=Access.LABELS, **options):
    result = run(attack_on(target, access, **options), KEY, Scenario(target, cases), plan=ONE)
    return np.asarray(result.output.posterior), result


@pytest.mark.parametrize("weighting", ["confusion", "none", "confidence"])
def test_label_that_reveals_the_attribute_gives_it_with_certainty(weighting):
    cases = some_cases()
    access = Access.SCORES if weighting == "confidence" else Access.LABELS
    posterior, result = infer(target_of(reveals()), cases, access, weighting=weighting)
    np.testing.assert_array_equal(posterior, np.eye(2)[cases["label"]])
    assert (result.status == Status.RUNNING).all() and (result.output.queries == 2).all()


def test_confidence_is_bayes_rule():
    weights = np.random.default_rng(1).normal(size=(sum(COLUMNS), 3)).astype(np.float32)
    cases = some_cases(classes=3)
    posterior, _ = infer(target_of(weights), cases, Access.SCORES, weighting="confidence", confusion=None)
    for record, label, found in zip(cases["record"], cases["label"], posterior, strict=True):
        scores = []
        for value in range(2):
            a, _, c = record
            logits = weights[a] + weights[3 + value] + weights[5 + c]
            scores.append(MARGINALS[value] * np.exp(logits[label]) / np.exp(logits).sum())
        np.testing.assert_allclose(found, np.array(scores) / sum(scores), rtol=1e-5)


@pytest.mark.nightly
def test_confusion_weighting_by_hand():
    # The target answers the sensitive value. Label 0: scores 0.25 * 8 / 10 and 0.75 * 2 / 10; label 1: 0.25 * 5 / 20
    # and 0.75 * 15 / 20. Shares of a column instead of a row would give other numbers.
    confusion = np.array([[8, 2], [5, 15]])
    cases = {"record": np.array([[0, 0, 0], [2, 1, 3]], np.int32), "label": np.array([0, 1], np.int32)}
    posterior, _ = infer(target_of(reveals()), cases, confusion=confusion)
    np.testing.assert_allclose(posterior, [[0.2 / 0.35, 0.15 / 0.35], [0.0625 / 0.625, 0.5625 / 0.625]], rtol=1e-6)
    # The joint frequencies of the paper say the same.
    joint, _ = infer(target_of(reveals()), cases, confusion=confusion / 30)
    np.testing.assert_allclose(joint, posterior, rtol=1e-6)


def test_unknown_attribute_is_summed_over_by_hand():
    # The target answers 1 where the last attribute is 3 or the sensitive one is 1, and 0 elsewhere.
    weights = np.zeros((sum(COLUMNS), 2), np.float32)
    weights[4, 1] = weights[8, 1] = 10.0
    weights[:3, 0] = 5.0
    cases = {"record": np.array([[1, 0, 0], [1, 0, 0]], np.int32), "label": np.array([1, 0], np.int32)}
    unknown = {2: (0.1, 0.2, 0.3, 0.4)}
    posterior, result = infer(target_of(weights), cases, weighting="none", confusion=None, unknown=unknown)
    # Label 1: value 0 fits in 0.4 of the completions, value 1 in all. Label 0: only value 0 fits, in 0.6 of them.
    np.testing.assert_allclose(posterior, [[0.25 * 0.4 / 0.85, 0.75 / 0.85], [1, 0]], rtol=1e-6)
    assert (result.output.queries == 8).all()


@pytest.mark.parametrize("weighting", ["confusion", "none", "confidence"])
def test_constant_target_leaves_the_prior(weighting):
    access = Access.SCORES if weighting == "confidence" else Access.LABELS
    posterior, _ = infer(constant(), some_cases(), access, weighting=weighting, confusion=np.full((2, 2), 0.5))
    np.testing.assert_array_equal(posterior, np.broadcast_to(MARGINALS, posterior.shape))


@pytest.mark.nightly
@pytest.mark.parametrize("weighting", ["confusion", "none", "confidence"])
def test_constant_target_ranks_no_record_above_another(weighting):
    # Scores that are no round numbers and differ by label: rounding must not put the label into the posterior.
    target = from_function(
        lambda params, batch: jnp.zeros((len(batch), 3)) + params, jnp.log(jnp.array([0.61, 0.27, 0.12])), classes=3
    )
    confusion = np.random.default_rng(5).dirichlet(np.ones(3), 3)
    posterior, _ = infer(
        target,
        some_cases(n=64, classes=3),
        Access.SCORES if weighting == "confidence" else Access.LABELS,
        weighting=weighting,
        confusion=confusion,
        marginals=np.array([0.3171, 0.6829]),
        unknown={2: (0.11, 0.23, 0.37, 0.29)},
    )
    np.testing.assert_array_equal(posterior, np.broadcast_to(posterior[0], posterior.shape))
    np.testing.assert_allclose(posterior[0], [0.3171, 0.6829], rtol=1e-6)


def test_no_possible_completion_leaves_the_prior():
    cases = {"record": np.zeros((1, 3), np.int32), "label": np.array([1], np.int32)}
    posterior, result = infer(constant(), cases, confusion=np.eye(2))
    np.testing.assert_array_equal(posterior, [MARGINALS])
    assert result.status[0] == Status.RUNNING


@pytest.mark.nightly
def test_hidden_entries_of_the_record_are_not_looked_at():
    target, cases = target_of(np.random.default_rng(2).normal(size=(sum(COLUMNS), 2))), some_cases()
    options = {"access": Access.SCORES, "weighting": "confidence", "unknown": {2: (0.1, 0.2, 0.3, 0.4)}}
    first, _ = infer(target, cases, **options)
    changed = {**cases, "record": cases["record"] * np.array([1, 0, 0], np.int32) + np.array([0, -7, 99], np.int32)}
    second, result = infer(target, changed, **options)
    np.testing.assert_array_equal(first, second)
    assert (result.status == Status.RUNNING).all()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("weighting", "unknown", "expected"), [("none", None, 2), ("confidence", {0: (0.5, 0.25, 0.25)}, 6)]
)
def test_queries_are_the_records_the_target_saw(weighting, unknown, expected):
    seen = []

    def predict(batch):
        seen.append(batch.copy())
        return np.full((len(batch), 2), 0.5, np.float32)

    target = from_callable(predict, classes=2)
    cases = some_cases(n=3)
    attack = attack_on(target, Access.SCORES, weighting=weighting, unknown=unknown, encoding="codes")
    process = attack.solve(())
    case = jax.tree.map(lambda leaf: jnp.asarray(leaf[1]), cases)
    output = process.read(process.init(KEY, case))
    asked = np.concatenate(seen)
    assert int(output.queries) == len(asked) == len(np.unique(asked, axis=0)) == expected
    kept = [j for j in range(3) if j != SENSITIVE and j not in (unknown or {})]
    assert (asked[:, kept] == cases["record"][1, kept]).all()


@pytest.mark.nightly
def test_host_tree_and_one_hot_agree_with_a_traced_target():
    weights = np.random.default_rng(3).normal(size=(sum(COLUMNS), 2)).astype(np.float32)
    starts = np.array([0, 3, 5])

    def predict(codes):
        logits = weights[starts + codes.astype(int)].sum(1)
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    cases = some_cases()
    options = {"access": Access.SCORES, "weighting": "confidence"}
    traced, _ = infer(target_of(weights), cases, **options)
    host, _ = infer(from_callable(predict, classes=2), cases, encoding="codes", **options)
    np.testing.assert_allclose(host, traced, rtol=1e-5)


@pytest.mark.nightly
def test_every_completion_gets_a_key_of_its_own():
    noise = Defense(answer=lambda key, answer: jax.random.dirichlet(key, jnp.ones_like(answer)))
    defended = target_of(reveals(), defense=noise, noise="fresh")
    cases = jax.tree.map(lambda leaf: np.repeat(leaf[:1], 2, axis=0), some_cases())
    posterior, _ = infer(defended, cases, Access.SCORES, weighting="confidence")
    assert not np.allclose(posterior[0], posterior[1])  # case ids differ
    assert not np.allclose(posterior[0], MARGINALS)  # equal noise for both values would leave the prior


@pytest.mark.nightly
def test_eager_jit_and_chunks_agree():
    target, cases = target_of(np.random.default_rng(4).normal(size=(sum(COLUMNS), 2))), some_cases()
    process = attack_on(target, Access.SCORES, weighting="confidence").solve(())
    case = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), cases)
    with jax.disable_jit():
        eager = process.read(process.init(KEY, case))
    jitted = jax.jit(lambda c: process.read(process.init(KEY, c)))(case)
    np.testing.assert_allclose(eager.posterior, jitted.posterior, rtol=1e-6)
    whole = solve(process, KEY, cases, plan=ONE).output.posterior
    parts = solve(process, KEY, cases, plan=ONE._replace(chunk=3)).output.posterior
    np.testing.assert_allclose(whole, parts, rtol=1e-6)
    assert process.steps == 0


def test_access():
    target = target_of(reveals())
    assert CARD.access == Access.LABELS
    for access in (Access.LABELS, Access.SCORES, Access.WEIGHTS):
        attack_on(target, access)
    for access in (Access.SCORES, Access.WEIGHTS):
        attack_on(target, access, weighting="confidence")
    with pytest.raises(ThreatModelError, match="tabular/attribute_inversion needs access SCORES.*LABELS"):
        attack_on(target, Access.LABELS, weighting="confidence")


@pytest.mark.nightly
def test_a_case_that_makes_no_sense_is_flagged():
    cases = {
        "record": np.array([[0, 0, 0], [3, 0, 0], [0, 0, -1]], np.int32),
        "label": np.array([0, 0, 0], np.int32),
    }
    bad = [Status.RUNNING] + [Status.NONFINITE] * 2
    for access, weighting in ((Access.LABELS, "confusion"), (Access.SCORES, "confidence")):
        _, result = infer(target_of(reveals()), cases, access, weighting=weighting)
        assert result.status.tolist() == bad
    signed = target_of(-reveals(), serve=lambda outputs: outputs.logits)
    _, result = infer(signed, some_cases(), Access.SCORES, weighting="confidence")
    assert (result.status == Status.NONFINITE).all()


@pytest.mark.parametrize("weighting", ["confusion", "none"])
@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ({"record": [[0, 0, 0]], "label": [2]}, "cases: label 2; legal is 0 to 1"),
        ({"record": [[0, 0, 0]], "label": [-1]}, "cases: label -1; legal is 0 to 1"),
        ({"record": [[0, 0, 0]], "label": [0.0]}, r"cases: label 0.0, float32 \(1,\); legal is an integer a case"),
        ({"record": [[0, 0]], "label": [0]}, r"cases: record of shape \(1, 2\); legal is a row of 3 codes a case"),
        ({"record": [["a", "b", "c"]], "label": [0]}, "cases: np.str_\\('a'\\); legal is numbers"),
        ([[0, 0, 0]], "cases: ndarray; legal is a dict of record and label"),
    ],
)
def test_cases_that_cannot_be_meant_are_refused(cases, message, weighting):
    with pytest.raises(ValueError, match=message):
        infer(target_of(reveals()), cases, weighting=weighting)


def test_cases_may_be_lists():
    cases = {"record": [[0, 0, 0], [2, 1, 3]], "label": [0, 1]}
    found, _ = infer(target_of(reveals()), cases)
    same, _ = infer(target_of(reveals()), {name: np.array(value, np.int32) for name, value in cases.items()})
    np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weighting": "label"}, "weighting: 'label'"),
        ({"encoding": "binary"}, "encoding: 'binary'"),
        ({"columns": (3, 0, 4)}, "columns: "),
        ({"columns": ()}, "columns: "),
        ({"sensitive": 3}, "sensitive: attribute 3; legal is 0 to 2"),
        ({"sensitive": -1}, "sensitive: attribute -1"),
        ({"marginals": np.array([0.5, 0.6])}, "marginals: .*sums to 1.1"),
        ({"marginals": np.array([-0.5, 1.5])}, "marginals: .*legal is probabilities"),
        ({"marginals": np.array([np.nan, 1.0])}, "marginals: .*legal is probabilities"),
        ({"marginals": np.full(3, 1 / 3)}, r"marginals: shape \(3,\); legal is \(2,\)"),
        ({"unknown": {1: (0.5, 0.5)}}, "unknown: holds 1, the sensitive attribute"),
        ({"unknown": {5: (0.5, 0.5)}}, "unknown: attribute 5"),
        ({"unknown": {2: (0.5, 0.5)}}, r"unknown\[2\]: shape \(2,\); legal is \(4,\)"),
        ({"confusion": None}, "confusion: None"),
        ({"confusion": np.ones((2, 3))}, r"confusion: shape \(2, 3\)"),
        ({"confusion": np.ones(2)}, r"confusion: shape \(2,\)"),
        ({"confusion": np.array([[1.0, np.nan], [0.0, 1.0]])}, "confusion: .*non-finite"),
        ({"confusion": np.array([[1.0, -1.0], [0.0, 1.0]])}, "confusion: .*negative"),
        ({"confusion": np.array([[1.0, 1.0], [0.0, 0.0]])}, "confusion: row 1 sums to 0"),
        ({"budget": 7, "unknown": {2: (0.25,) * 4}}, "budget: 7 queries .* 8 completions"),
    ],
)
def test_bad_inputs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attack_on(constant(), **options)
