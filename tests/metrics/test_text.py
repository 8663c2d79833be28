"""Edit distance, exact match and token F1 against a textbook recursion and hand-computed values."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmia.metrics import edit_distance, exact_match, token_f1


def textbook_distance(a, b):
    @cache
    def rest(i, j):
        if i == len(a) or j == len(b):
            return len(a) - i + len(b) - j
        return min(rest(i + 1, j) + 1, rest(i, j + 1) + 1, rest(i + 1, j + 1) + (a[i] != b[j]))

    return rest(0, 0)


@settings(deadline=None, max_examples=100)
@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edit_distance_matches_the_recursion(a, b):
    (value,) = edit_distance([a], [b])
    assert value == textbook_distance(a, b)
    assert value == edit_distance([b], [a])[0]
    assert (value == 0) == (a == b) == bool(exact_match([a], [b])[0])


def test_edit_distance_of_tokens():
    assert edit_distance([["the", "cat", "sat"]], [["the", "dog", "sat", "down"]]).tolist() == [2]
    assert edit_distance(np.array([[1, 2, 3], [4, 5, 6]]), [[2, 3], [4, 5, 6]]).tolist() == [1, 0]


def test_exact_match_is_literal():
    assert exact_match(["a", "A", "a "], ["a", "a", "a"]).tolist() == [1, 0, 0]
    assert exact_match(np.array([[1, 2]]), [[1, 2]]).tolist() == [1]


def test_token_f1_by_hand():
    predictions = ["a a b", "a b", "x", "", "", "b a"]
    truths = ["a b c", "a b", "y", "", "a", "a b"]
    # first: overlap {a, b} of 3 and 3 tokens
    np.testing.assert_allclose(token_f1(predictions, truths), [2 / 3, 1, 0, 1, 0, 1])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), max_size=10), st.lists(st.integers(0, 4), max_size=10))
def test_token_f1_is_symmetric_and_bounded(a, b):
    (value,) = token_f1([a], [b])
    assert 0 <= value <= 1
    assert value == token_f1([b], [a])[0]
    assert (value == 1) == (sorted(a) == sorted(b))


@pytest.mark.parametrize("metric", [edit_distance, exact_match, token_f1])
@pytest.mark.parametrize(
    ("predictions", "truths", "message"),
    [
        ("abc", ["abc"], "predictions is 'abc'"),
        ([], [], "predictions is"),
        (["a"], ["a", "b"], "1 cases but truths has 2"),
        (["a"], [["a"]], "case 0 pairs a str with a list"),
    ],
)
def test_refuses(metric, predictions, truths, message):
    with pytest.raises(ValueError, match=message):
        metric(predictions, truths)
