"""Numbers of node pairs against all pairs, and draws of pairs against what is drawn from."""

import itertools

import jax
import numpy as np
import pytest

from jaxmia.recipes.node_pairs import drawn_outside, host_generator, pair_count, pair_numbers, pairs_of, rewritten


@pytest.mark.parametrize("nodes", [1, 2, 3, 17])
def test_numbers_are_the_order_of_the_triangle_and_pairs_their_inverse(nodes):
    pairs = np.array(list(itertools.combinations(range(nodes), 2)), np.int32).reshape(-1, 2)
    assert pair_count(nodes) == len(pairs)
    np.testing.assert_array_equal(pair_numbers(pairs, nodes), np.arange(len(pairs)))
    np.testing.assert_array_equal(pairs_of(np.arange(len(pairs)), nodes), pairs)


def test_the_last_pairs_of_a_large_graph_come_back():
    nodes = 200_000  # its numbers need 64 bits
    pairs = np.array([[0, 1], [99_999, 150_000], [nodes - 2, nodes - 1]], np.int32)
    numbers = pair_numbers(pairs, nodes)
    assert numbers[-1] == pair_count(nodes) - 1 > 2**32
    np.testing.assert_array_equal(pairs_of(numbers, nodes), pairs)


def test_an_edge_is_one_whichever_way_round_and_however_often():
    assert pair_numbers([[3, 1], [1, 3], [1, 3], [0, 1]], 4).tolist() == [0, 4]
    assert pair_numbers(np.zeros((0, 2), np.int32), 4).size == 0


@pytest.mark.parametrize(
    ("edges", "told"),
    [
        ([[0, 1], [2, 2]], r"edges: \(2, 2\); legal is two different nodes of 0 to 3"),
        ([[0, 4]], r"edges: \(0, 4\)"),
        ([[-1, 2]], r"edges: \(-1, 2\)"),
        ([[0, 1, 2]], r"edges: int64 \(1, 3\); legal is integers \[m, 2\]"),
        ([[0.5, 1.0]], "edges: float64"),
    ],
)
def test_what_is_no_graph_is_named(edges, told):
    with pytest.raises(ValueError, match=told):
        pair_numbers(edges, 4)


def test_draws_are_outside_different_and_of_every_free_number_alike():
    rng, taken = np.random.default_rng(0), np.array([0, 3, 4, 9])
    free = np.setdiff1d(np.arange(12), taken)
    counts = np.zeros(12, int)
    for _ in range(1000):
        drawn = drawn_outside(rng, taken, 12, 3)
        assert len(set(drawn.tolist())) == 3 and (np.diff(drawn) > 0).all()
        counts[drawn] += 1
    assert (counts[taken] == 0).all()
    expected = 1000 * 3 / len(free)
    assert np.abs(counts[free] - expected).max() < 4 * np.sqrt(expected * (1 - 3 / len(free)))
    np.testing.assert_array_equal(drawn_outside(rng, taken, 12, len(free)), free)
    assert drawn_outside(rng, taken[:0], 0, 0).size == 0


def test_rewriting_keeps_what_is_kept_and_adds_what_was_none():
    numbers = pair_numbers([[0, 1], [1, 2], [2, 3]], 5)
    made = rewritten(np.random.default_rng(1), numbers, [True, False, True], 2, 5)
    kept = {tuple(pair) for pair in made.tolist()}
    assert made.dtype == np.int32 and len(kept) == 4 and {(0, 1), (2, 3)} < kept and (1, 2) not in kept
    assert made.tolist() == sorted(made.tolist())


def test_a_key_seeds_one_generator():
    first, again, other = (host_generator(jax.random.key(seed)).random(4) for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).all()
