"""Attribute inversion: complete a record with every value of its sensitive attribute and see which one the target fits.

Fredrikson, Lantz, Jha, Lin, Page, Ristenpart, "Privacy in Pharmacogenetics: An End-to-End Case Study of Personalized
Warfarin Dosing", USENIX Security 2014, algorithms A_0 and A_pi
(https://www.usenix.org/conference/usenixsecurity14/technical-sessions/presentation/fredrikson_matthew), and the
black-box attack on decision trees of Fredrikson, Jha, Ristenpart, CCS 2015, figure 2
(https://doi.org/10.1145/2810103.2813677). For every value v of the sensitive attribute
score(v) = sum over completions x of the record with v of  pi(y, f(x)) * prod_i p_i(x_i),
where y is the record's label, p_i are marginals and pi(y, y') is how often f answers y' when the label is y. The guess
is the value of largest score. Known attributes give the same factor for every v and are left out.

`weighting="confusion"` is A_pi; `"none"` is A_0, where pi is 1 if f(x) = y and else 0; `"confidence"` puts the served
f_y(x) in place of pi and then needs score access.

What differs. The paper returns the argmax; here all scores are read out, normalized to a posterior. A row of pi is used
as shares of its class, the papers' joint frequencies differ from it by a factor that does not depend on v. Where no
completion is possible (all scores are zero) the paper gives up; here the posterior is then the prior. The "confidence"
weighting is not in these papers, and the white-box attacks on trees of CCS 2015 (with the counts of each
path) are not here. The papers' baselines do not tell leakage from correlation: compare with imputation from
public records that have the label, as `experiments/attribute_inversion.py` does.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from jaxmia.core import Attack, Card
from jaxmia.oracle import Access, Labels, Oracle, Scores, lower
from jaxmia.recipes import score, sliced

__all__ = ["CARD", "Inference", "attribute_inversion"]

CARD = Card(
    title="Attribute inversion",
    paper="Fredrikson, Lantz, Jha, Lin, Page, Ristenpart. Privacy in Pharmacogenetics. USENIX Security 2014",
    url="https://www.usenix.org/conference/usenixsecurity14/technical-sessions/presentation/fredrikson_matthew",
    year=2014,
    modality="tabular",
    access=Access.LABELS,
    recovers="the sensitive attribute of a record",
    knows="the marginal of the sensitive attribute, the target's confusion matrix",
    observes="record",
)


class Inference(NamedTuple):
    """What is concluded about one record.

    Attributes:
      posterior: probability of every value of the sensitive attribute; its argmax is the paper's guess.
      queries: target queries spent, one per completion of the record.
    """

    posterior: Float[Array, " values"]
    queries: Int[Array, ""]


def attribute_inversion(
    oracle: Oracle,
    columns: Sequence[int],
    sensitive: int,
    marginals: Real[np.ndarray, "..."],
    confusion: Real[np.ndarray, "..."] | None,
    *,
    weighting: str = "confusion",
    unknown: Mapping[int, Sequence[float]] | None = None,
    encoding: str = "one_hot",
    budget: int = 10_000,
) -> Attack:
    """The attack; a case is `{"record": int [d], "label": int}`, the output an `Inference`.

    What a record holds at the hidden attributes is not looked at. A case ends as non-finite where a known value or the
    label is out of range or the target serves a negative confidence; `run` refuses such labels beforehand.

    Args:
      oracle: label access; score access for `weighting="confidence"`.
      columns: how many values each of the d attributes has that the target reads; attribute j is a code in
        [0, columns[j]).
      sensitive: index of the wanted attribute.
      marginals: `[columns[sensitive]]`, probability of each of its values; sums to 1.
      confusion: `[classes, classes]`, row y holds counts or shares of the target's answers on records of class y.
        None is legal for the other weightings.
      weighting: "confusion", "none" or "confidence", what stands for pi.
      unknown: further attributes the adversary does not know, by index, with their marginals; they are summed over.
      encoding: what the target reads: "one_hot", float `[sum(columns)]`, attributes side by side, or "codes",
        float `[d]`.
      budget: most target queries per case; the attack spends the product of `columns` over all hidden attributes.

    Raises:
      ThreatModelError: with less access than the weighting needs.
      ValueError: for a weighting, encoding, index, marginal or confusion matrix that is not as above, or a budget that
        the enumeration exceeds.
    """
    access = Access.SCORES if weighting == "confidence" else Access.LABELS
    view: Labels | Scores = lower(oracle, access, "tabular/attribute_inversion")
    if weighting not in ("confusion", "none", "confidence"):
        raise ValueError(f"weighting: {weighting!r}; legal is confusion, none or confidence")
    if encoding not in ("one_hot", "codes"):
        raise ValueError(f"encoding: {encoding!r}; legal is one_hot or codes")
    if len(columns) == 0 or min(columns) < 1:
        raise ValueError(f"columns: {tuple(columns)}; legal is at least one attribute, each of 1 or more values")
    if sensitive in (unknown or {}):
        raise ValueError(f"unknown: holds {sensitive}, the sensitive attribute, whose marginal is `marginals`")
    hidden = {sensitive: _marginal("marginals", "sensitive", sensitive, marginals, columns)}
    for index, marginal in (unknown or {}).items():
        hidden[index] = _marginal(f"unknown[{index}]", "unknown", index, marginal, columns)
    queries = math.prod(columns[index] for index in hidden)
    if queries > budget:
        raise ValueError(f"budget: {budget} queries per case, but the hidden attributes have {queries} completions")
    shares = _shares(confusion) if weighting == "confusion" else None

    # The sensitive attribute comes first and so varies slowest.
    places = np.array(list(hidden))
    values = np.indices([columns[index] for index in hidden]).reshape(len(hidden), -1).T
    prior = jnp.asarray(functools.reduce(np.multiply.outer, hidden.values()).ravel(), jnp.float32)
    sizes = np.asarray(columns)
    known = ~np.isin(np.arange(len(columns)), places)

    def likelihood(answer: Any, label: Any) -> Any:
        if weighting == "none":
            return (answer == label).astype(jnp.float32)
        if shares is not None:
            return shares.at[label, answer].get(mode="fill", fill_value=jnp.nan)
        served = answer.at[label].get(mode="fill", fill_value=jnp.nan)
        return jnp.where(served < 0, jnp.nan, served)

    def infer(key: Any, case: Any) -> Inference:
        record, label = case["record"], case["label"]
        completed = jnp.tile(record, (queries, 1)).at[:, places].set(values)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(queries))
        answers = sliced(lambda k, codes: view.answer(k, _encode(codes, sizes, encoding)), keys, completed)
        fit = jax.vmap(likelihood, in_axes=(0, None))(answers, label)
        # Equal fits must leave the prior to the last bit: else rounding, which differs by label, ranks the records.
        largest = jnp.max(fit)
        scores = prior * jnp.where(fit == largest, 1.0, fit / largest)
        scores = jnp.where(jnp.sum(scores) == 0, prior, scores)
        scores = jnp.sum(scores.reshape(columns[sensitive], -1), axis=1)
        posterior = scores / jnp.sum(scores)
        legal = jnp.all(~known | ((record >= 0) & (record < sizes))) & (label >= 0)
        return Inference(jnp.where(legal, posterior, jnp.nan), jnp.asarray(queries, jnp.int32))

    def check(cases: Any, classes: int | None) -> None:
        _check_cases(cases, len(columns), classes if shares is None else shares.shape[0])

    return Attack(lambda fitted: score(infer), observes=CARD.observes, check=check)


def _check_cases(cases: Any, attributes: int, classes: int | None) -> None:
    if not isinstance(cases, dict) or cases.keys() != {"record", "label"}:
        held = ", ".join(sorted(cases)) if isinstance(cases, dict) else type(cases).__name__
        raise ValueError(f"cases: {held}; legal is a dict of record and label")
    record, label = cases["record"], cases["label"]
    if record.ndim != 2 or record.shape[1] != attributes:
        raise ValueError(f"cases: record of shape {record.shape}; legal is a row of {attributes} codes a case")
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(f"cases: label {label.ravel()[0]}, {label.dtype} {label.shape}; legal is an integer a case")
    wrong = label[(label < 0) | (label >= (classes or np.inf))]
    if wrong.size:
        raise ValueError(f"cases: label {wrong[0]}; legal is 0 to {'' if classes is None else classes - 1}")


def _encode(codes: Int[Array, " d"], sizes: np.ndarray, encoding: str) -> Float[Array, " features"]:
    if encoding == "codes":
        return codes.astype(jnp.float32)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    value = np.concatenate([np.arange(size) for size in sizes])
    return (codes[owner] == value).astype(jnp.float32)


def _marginal(name: str, field: str, index: int, given: Any, columns: Sequence[int]) -> Float[np.ndarray, " values"]:
    if not 0 <= index < len(columns):
        raise ValueError(f"{field}: attribute {index}; legal is 0 to {len(columns) - 1}")
    p = np.asarray(given, np.float64)
    if p.shape != (columns[index],):
        raise ValueError(f"{name}: shape {p.shape}; legal is ({columns[index]},), one probability per value")
    if not (np.all(p >= 0) and abs(p.sum() - 1) <= 1e-4):
        raise ValueError(f"{name}: {p.tolist()} sums to {p.sum():g}; legal is probabilities that sum to 1")
    return p


def _shares(confusion: Any) -> Float[Array, "classes classes"]:
    if confusion is None:
        raise ValueError("confusion: None; legal is a matrix [classes, classes], or another weighting")
    counts = np.asarray(confusion, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"confusion: shape {counts.shape}; legal is [classes, classes]")
    if not (np.all(np.isfinite(counts)) and np.all(counts >= 0)):
        raise ValueError(f"confusion: {counts.tolist()} has negative or non-finite entries; legal is counts or shares")
    empty = np.flatnonzero(counts.sum(1) == 0)
    if len(empty):
        raise ValueError(f"confusion: row {empty[0]} sums to 0; legal is answers seen for every class")
    return jnp.asarray(counts / counts.sum(1, keepdims=True), jnp.float32)
