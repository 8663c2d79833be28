"""What double-edge swaps keep, what they lose, and that every graph of the same degrees comes up."""

import collections

import numpy as np
import pytest

from jaxmia.data.rewire import rewired


def random_edges(seed=0, nodes=60, density=0.1):
    rng = np.random.default_rng(seed)
    return np.argwhere(np.triu(rng.random((nodes, nodes)) < density, 1)).astype(np.int32)


def communities(seed=0, nodes=200):
    """Edges of two halves that keep to themselves."""
    rng = np.random.default_rng(seed)
    side = np.arange(nodes) % 2
    share = np.where(side[:, None] == side, 0.08, 0.004)
    return np.argwhere(np.triu(rng.random((nodes, nodes)) < share, 1)), side


def key(edges):
    return set(map(tuple, edges.tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_degrees_stay_and_the_graph_is_simple(seed):
    edges = random_edges(seed)
    swapped = rewired(edges, 60, seed=seed)
    np.testing.assert_array_equal(np.bincount(swapped.ravel(), minlength=60), np.bincount(edges.ravel(), minlength=60))
    assert (swapped[:, 0] < swapped[:, 1]).all()
    np.testing.assert_array_equal(swapped, np.unique(swapped, axis=0))
    assert swapped.shape == edges.shape and swapped.dtype == edges.dtype


def test_no_more_edges_stay_than_the_degrees_give_by_chance():
    edges, _ = communities()
    degrees = np.bincount(edges.ravel())
    expected = degrees[edges].prod(axis=1).sum() / (2 * len(edges))
    stay = np.mean([len(key(edges) & key(rewired(edges, 200, seed=seed))) for seed in range(5)])
    assert stay == pytest.approx(expected, rel=0.2) and expected < len(edges) / 8


def test_communities_are_lost():
    edges, side = communities()
    swapped = rewired(edges, 200)
    assert np.mean(side[edges[:, 0]] == side[edges[:, 1]]) > 0.9
    assert np.mean(side[swapped[:, 0]] == side[swapped[:, 1]]) == pytest.approx(0.5, abs=0.07)


def test_one_swap_moves_two_edges():
    edges = random_edges()
    assert len(key(edges) - key(rewired(edges, 60, swaps=1))) == 2
    np.testing.assert_array_equal(rewired(edges[::-1, ::-1], 60, swaps=0), edges)


def test_the_seed_decides():
    edges = random_edges()
    np.testing.assert_array_equal(rewired(edges, 60, seed=3), rewired(edges, 60, seed=3))
    assert key(rewired(edges, 60, seed=3)) != key(rewired(edges, 60, seed=4))


def test_every_graph_of_the_degrees_is_reached():
    """Four nodes of degree 1 have three graphs, five of degree 2 the twelve rings."""
    ring = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]])
    for edges, nodes, graphs in [(np.array([[0, 1], [2, 3]]), 4, 3), (ring, 5, 12)]:
        # a swap changes the parity of a ring of five, so the count is even and odd in turn
        found = [rewired(edges, nodes, swaps=30 + seed % 2, seed=seed) for seed in range(600)]
        counts = collections.Counter(frozenset(key(one)) for one in found)
        assert len(counts) == graphs
        assert abs(np.array(list(counts.values())) - 600 / graphs).max() < 5 * np.sqrt(600 / graphs)


@pytest.mark.parametrize(
    ("edges", "options", "message"),
    [
        ([[0, 1], [1, 0]], {}, "a pair twice"),
        ([[0, 1], [2, 2]], {}, "a loop"),
        ([[0, 9]], {}, "nodes 0 to 9; legal is 0 to 8"),
        ([[0, 1], [2, 3]], {"swaps": -1}, "swaps: -1"),
        ([[0, 1], [2, 3]], {"seed": -1}, "seed: -1"),
        ([[0, 1]], {}, "swaps: 10, but 0 of 0"),
        ([[0, 1], [0, 2], [0, 3], [0, 4]], {"swaps": 1}, "swaps: 1, but 0 of"),
    ],
)
def test_refuses(edges, options, message):
    with pytest.raises(ValueError, match=message):
        rewired(np.array(edges), 9, **options)


def test_a_graph_without_edges_stays():
    assert rewired(np.zeros((0, 2), np.int32), 5).shape == (0, 2)
