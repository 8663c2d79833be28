"""GraphLeaks on random graphs whose embeddings hold the mean of the neighbors and, larger, the node itself."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.attacks.graph.graph_leaks import graph_leaks
from jaxmia.metrics.graph import link_auc
from jaxmia.oracle import Nothing

NODES, PUBLIC, FEATURES, HIDDEN = 60, 2000, 64, 16
KEY = jax.random.key(0)


def graph(nodes, seed):
    upper = np.triu(np.random.default_rng(seed).random((nodes, nodes)) < 3 / (nodes - 1), 1)
    return (upper | upper.T).astype(float)


def features(nodes):
    return np.random.default_rng(nodes).normal(size=(nodes, FEATURES))


def embedding(adjacency):
    """[A' X W, 2 X V], of one network whatever the graph."""
    rng, x = np.random.default_rng(1), features(len(adjacency))
    looped = adjacency + np.eye(len(adjacency))
    around, own = rng.normal(size=(2, FEATURES, HIDDEN))
    spread = looped / np.sqrt(np.outer(looped.sum(1), looped.sum(1)))
    return np.concatenate([spread @ x @ around, 2 * x @ own], 1).astype(np.float32)


def shadow(seed=100):
    adjacency = graph(PUBLIC, seed)
    edges = np.argwhere(np.triu(adjacency) > 0).astype(np.int32)
    return {"embedding": embedding(adjacency), "edges": edges, "labels": np.zeros(PUBLIC, np.int32)}


def trained(public, **options):
    attack = graph_leaks(Nothing(), public, **({"steps": 600} | options))
    process: Any = attack.train[0](())

    @jax.jit
    def run():
        def step(state, t):
            state, told = process.step(jax.random.fold_in(KEY, t), state, None)
            return state, told.loss

        state, losses = jax.lax.scan(step, process.init(KEY, None), jnp.arange(process.steps))
        return process.read(state), losses

    return attack, *jax.device_get(run())


@functools.cache
def fitted():
    return trained(shadow())


def scores(rows):
    attack, variables, _ = fitted()
    process = attack.solve((variables,))
    return np.asarray(process.read(process.init(KEY, {"embedding": jnp.asarray(rows)})).scores)


def cosine(rows):
    rows = np.asarray(rows, float)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    product = rows @ rows.T
    return (product + product.T) / 2


def test_edges_are_read_better_than_by_likeness_and_not_from_another_graph():
    private = graph(NODES, 0)
    found = link_auc(scores(embedding(private)), private)
    assert found >= 0.8
    assert found >= link_auc(cosine(embedding(private)), private) + 0.1
    assert found >= link_auc(cosine(features(NODES)), private) + 0.2
    assert link_auc(scores(embedding(graph(NODES, 7))), private) <= 0.6


def test_units_in_another_order_are_not_understood():
    """So are those of a network that was trained apart."""
    private = graph(NODES, 0)
    order = np.random.default_rng(3).permutation(2 * HIDDEN)
    mixed = link_auc(scores(embedding(private)[:, order]), private)
    assert mixed <= link_auc(scores(embedding(private)), private) - 0.1


def test_the_decoder_is_an_encoder_of_standardized_rows_and_products():
    _, variables, _ = fitted()
    rows, public = embedding(graph(NODES, 0)).astype(float), shadow()["embedding"].astype(float)
    layers = variables["params"]
    hidden = (rows - public.mean(0)) / public.std(0) @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    z = np.maximum(hidden, 0) @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]
    found, others = scores(embedding(graph(NODES, 0))), ~np.eye(NODES, dtype=bool)
    np.testing.assert_allclose(found[others], (z @ z.T)[others], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diagonal(found), 0)


@pytest.mark.nightly
def test_the_first_loss_is_the_cross_entropy_of_drawn_pairs():
    """At the start codes are near zero times rows, so the loss is near that of all pairs of the shadow, weighed alike."""
    public = shadow()
    attack = graph_leaks(Nothing(), public, batch=20_000)
    process: Any = attack.train[0](())
    state = process.init(KEY, None)
    _, told = jax.jit(process.step)(KEY, state, None)
    solved = attack.solve((state[0],))
    logits = np.asarray(solved.read(solved.init(KEY, {"embedding": jnp.asarray(public["embedding"])})).scores, float)
    linked, (i, j) = graph(PUBLIC, 100) > 0, np.triu_indices(PUBLIC, 1)
    near = np.logaddexp(0, -logits[i, j][linked[i, j]]).mean()
    far = np.logaddexp(0, logits[i, j][~linked[i, j]]).mean()
    assert float(told.loss) == pytest.approx((near + far) / 2, rel=0.03)


def test_an_edge_is_never_drawn_as_a_pair_without_one():
    """In a complete graph there is no other pair: nothing holds the products down. Edges count in either order."""
    i, j = np.triu_indices(8, 1)
    edges = np.where((np.arange(len(i)) % 2 == 0)[:, None], np.stack([i, j], 1), np.stack([j, i], 1)).astype(np.int32)
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    _, _, losses = trained({"embedding": rows, "edges": edges}, steps=600, batch=64)
    assert losses[-1] <= 0.02


def test_a_unit_that_is_always_off_does_no_harm():
    rows = np.concatenate([shadow()["embedding"][:50], np.zeros((50, 1), np.float32)], 1)
    _, variables, losses = trained({"embedding": rows, "edges": np.array([[0, 1], [2, 3]])}, steps=3)
    assert np.isfinite(losses).all() and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


ROWS, EDGE = np.ones((4, 2), np.float32), np.array([[0, 1]])


@pytest.mark.parametrize(
    ("public", "message"),
    [
        (None, "shadow: none; legal is"),
        ({"embedding": ROWS}, "shadow: embedding; legal is"),
        ({"embedding": ROWS[0], "edges": EDGE}, r"shadow: embedding \(2,\), edges \(1, 2\)"),
        ({"embedding": ROWS, "edges": EDGE[:0]}, "shadow: 0 edges"),
        (
            {"embedding": ROWS, "edges": EDGE + 3},
            "shadow: 1 edges; legal is one or more, of two different nodes below 4",
        ),
        (
            {"embedding": ROWS, "edges": EDGE * 0},
            "shadow: 1 edges; legal is one or more, of two different nodes below 4",
        ),
    ],
)
def test_a_shadow_that_is_none_is_named(public, message):
    with pytest.raises(ValueError, match=message):
        graph_leaks(Nothing(), public)


@pytest.mark.parametrize("name", ["steps", "batch", "width", "code"])
def test_counts_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"{name}: 0; legal is 1 or more"):
        graph_leaks(Nothing(), {"embedding": ROWS, "edges": EDGE}, **{name: 0})


def test_an_embedding_of_another_width_is_refused():
    attack = graph_leaks(Nothing(), {"embedding": ROWS, "edges": EDGE})
    process: Any = attack.train[0](())
    variables = process.init(KEY, None)[0]
    with pytest.raises(ValueError, match="shadow: embeddings of 2; legal is 3, as those observed"):
        attack.solve((variables,)).init(KEY, {"embedding": jnp.ones((5, 3))})
