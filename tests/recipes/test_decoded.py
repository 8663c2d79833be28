"""The decoder of pairs, and what is known of labels, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.recipes.decoded import DECODERS, decoded
from jaxmia.recipes.labeled_nodes import entropy_of_known, labeled_nodes

ROWS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
ROWS[4] = 0


def test_scores_are_cosines_or_sigmoids_of_products():
    off = ~np.eye(6, dtype=bool)
    products = ROWS.astype(float) @ ROWS.T
    np.testing.assert_allclose(
        decoded(jnp.asarray(ROWS), "sigmoid")[off], (1 / (1 + np.exp(-products)))[off], rtol=1e-5
    )
    sizes = np.maximum(np.linalg.norm(ROWS, axis=1), 1e-12)
    cosines = np.maximum(products / sizes[:, None] / sizes, 0)
    np.testing.assert_allclose(decoded(jnp.asarray(ROWS))[off], cosines[off], atol=1e-6)


@pytest.mark.parametrize("decoder", DECODERS)
def test_scores_are_symmetric_without_a_diagonal_and_have_slopes_at_zero(decoder):
    found = decoded(jnp.asarray(ROWS), decoder)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diagonal(found), 0)
    slope = jax.grad(lambda rows: jnp.sum(decoded(rows, decoder)))(jnp.asarray(ROWS))
    assert np.all(np.isfinite(slope))


def test_another_decoder_is_refused():
    with pytest.raises(ValueError, match="decoder: 'dot'; legal is one of sigmoid, cosine"):
        decoded(jnp.asarray(ROWS), "dot")


def test_known_labels_are_those_that_are_not_negative():
    known, wanted = labeled_nodes(np.array([2, -1, 0, -1]), 4, (4, 3))
    assert known.tolist() == [0, 2] and wanted.tolist() == [2, 0]
    logits = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    told = entropy_of_known(jnp.asarray(logits), known, wanted)
    assert float(told) == pytest.approx(-(np.log(p[0, 2]) + np.log(p[2, 0])) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "answer", "message"),
    [
        (np.zeros(3, int), (4, 2), r"labels: shape \(3,\); legal is \(4,\)"),
        (np.full(4, -1), (4, 2), "labels: all are negative"),
        (np.full(4, 2), (4, 2), "labels: 2; legal is below 2"),
        (np.zeros(4, int), (2,), r"oracle: answers \(2,\)"),
        (np.zeros(4, int), (), r"oracle: answers \(\)"),
        (np.zeros(4, int), (4, 2, 1), "oracle: answers"),
    ],
)
def test_labels_and_answers_that_do_not_agree_are_refused(labels, answer, message):
    with pytest.raises(ValueError, match=message):
        labeled_nodes(labels, 4, answer)
