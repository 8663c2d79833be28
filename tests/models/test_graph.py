"""Networks of graphs against their definitions, node by node, and their gradients with respect to the edges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.data import karate
from jaxmia.models import (
    GAT,
    GCN,
    SAGE,
    GraphClassifier,
    NodeMLP,
    SparseGAT,
    SparseGCN,
    SparseSAGE,
    normalize_adjacency,
)
from tests.models.compiled import compiled

NETWORKS = {
    "gcn": (GCN(4, 3), SparseGCN(4, 3)),
    "sage": (SAGE(4, 3), SparseSAGE(4, 3)),
    "gat": (GAT(4, 3, heads=2), SparseGAT(4, 3, heads=2)),
    "gat, 3 last heads": (GAT(4, 3, heads=2, last_heads=3), SparseGAT(4, 3, heads=2, last_heads=3)),
}


def _graph(n=6, d=4):
    upper = jnp.triu(jax.random.bernoulli(jax.random.key(0), 0.4, (n, n)).astype(jnp.float32), 1)
    return upper + upper.T, jax.random.normal(jax.random.key(1), (n, d))


def test_normalization_is_the_textbook_one():
    adjacency, _ = _graph()
    looped = np.asarray(adjacency, np.float64) + np.eye(6)
    inverse_root = np.diag(looped.sum(1) ** -0.5)
    normalized = normalize_adjacency(adjacency)
    np.testing.assert_allclose(normalized, inverse_root @ looped @ inverse_root, atol=1e-6)
    # The leading eigenvalue of the normalized adjacency is 1, so layers neither blow up nor fade.
    np.testing.assert_allclose(np.linalg.eigvalsh(np.asarray(normalized)).max(), 1.0, atol=1e-6)


def test_isolated_node_keeps_its_own_features():
    adjacency = jnp.zeros((3, 3)).at[0, 1].set(1.0).at[1, 0].set(1.0)
    np.testing.assert_allclose(normalize_adjacency(adjacency)[2], [0.0, 0.0, 1.0])


def test_logits_embedding_and_parameters():
    adjacency, features = _graph()
    module = GCN(hidden=5, classes=3)
    variables = module.init(jax.random.key(2), adjacency, features)
    assert set(variables) == {"params"}
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables)) == 4 * 5 + 5 + 5 * 3 + 3
    logits, sown = module.apply(variables, adjacency, features, train=True, mutable=["features"])
    p = variables["params"]
    normalized = np.asarray(normalize_adjacency(adjacency))
    hidden = np.maximum(normalized @ features @ p["Dense_0"]["kernel"] + p["bias1"], 0)
    np.testing.assert_allclose(sown["features"]["embedding"][0], hidden, atol=1e-5)
    np.testing.assert_allclose(logits, normalized @ hidden @ p["Dense_1"]["kernel"] + p["bias2"], atol=1e-5)


def test_relabeling_the_nodes_relabels_the_logits():
    adjacency, features = _graph()
    module = GCN(hidden=5, classes=3)
    variables = module.init(jax.random.key(2), adjacency, features)
    order = jnp.array([3, 1, 5, 0, 2, 4])
    moved = module.apply(variables, adjacency[order][:, order], features[order])
    np.testing.assert_allclose(moved, module.apply(variables, adjacency, features)[order], atol=1e-5)


@pytest.mark.nightly
def test_gradient_with_respect_to_every_edge():
    with jax.enable_x64(True):
        adjacency, features = (array.astype(jnp.float64) for array in _graph())
        adjacency = 0.1 + 0.8 * adjacency * (1 - jnp.eye(6))  # inside the box, where attacks move
        module = GCN(hidden=5, classes=3)
        variables = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64), module.init(jax.random.key(2), adjacency, features)
        )
        labels = jnp.array([0, 1, 2, 0, 1, 2])

        @jax.jit
        def loss(adjacency):
            logits = module.apply(variables, adjacency, features)
            return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(6), labels])

        gradient = jax.grad(loss)(adjacency)
        step = 1e-6 * jnp.eye(36).reshape(36, 6, 6)
        numeric = jax.vmap(lambda d: (loss(adjacency + d) - loss(adjacency - d)) / 2e-6)(step).reshape(6, 6)
        np.testing.assert_allclose(gradient, numeric, atol=1e-7)
        assert float(jnp.abs(gradient).min()) > 0


def _karate(d=5):
    graph = karate.load()
    adjacency = np.zeros((34, 34), np.float32)
    adjacency[graph.edges[:, 0], graph.edges[:, 1]] = 1
    features = np.random.default_rng(0).normal(size=(34, d))
    return graph.edges, jnp.asarray(adjacency + adjacency.T), jnp.asarray(features, jnp.float32)


def _drawn(module, *inputs):
    """Variables of which none is zero."""
    shapes, rng = jax.eval_shape(module.init, jax.random.key(0), *inputs), np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape) + 0.1, leaf.dtype), shapes)


def _answered(module, variables, *inputs, **options):
    """Logits and what was sown, compiled as one program."""
    apply = compiled(lambda v, i: module.apply(v, *i, mutable=["features", "batch_stats"], **options))
    answer, changed = apply(variables, inputs)
    return answer, {name: sown[0] for name, sown in changed.pop("features").items()}, changed


def _node_by_node(name, params, adjacency, x):
    """Hidden layer and logits, by loops over nodes and their neighbors, in float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    n = len(adjacency)

    adjacency = np.asarray(adjacency, np.float64)

    def neighbors(i):
        return [(j, float(adjacency[i, j])) for j in range(n) if adjacency[i, j] != 0]

    def gcn(x, kernel, bias):
        size = [1 + sum(weight for _, weight in neighbors(i)) for i in range(n)]
        rows = []
        for i in range(n):
            total = x[i] / size[i]
            for j, weight in neighbors(i):
                total = total + weight * x[j] / math.sqrt(size[i] * size[j])
            rows.append(total @ kernel + bias)
        return np.array(rows)

    def sage(x, part):
        rows = []
        for i in range(n):
            mean, size = np.zeros(x.shape[1]), sum(weight for _, weight in neighbors(i))
            for j, weight in neighbors(i):
                mean = mean + weight * x[j] / max(size, 1)
            rows.append(x[i] @ part["own"]["kernel"] + part["own"]["bias"] + mean @ part["neighbors"]["kernel"])
        return np.array(rows)

    def gat(x, layer):
        receive, send = p[f"receive{layer}"], p[f"send{layer}"]
        heads, width = receive.shape
        rows = np.zeros((n, heads, width))
        for h in range(heads):
            z = x @ p[f"dense{layer}"]["kernel"][:, h * width : (h + 1) * width]
            for i in range(n):
                total = np.zeros(width)
                weights = 0.0
                for j, weight in [(i, 1.0), *neighbors(i)]:
                    e = receive[h] @ z[i] + send[h] @ z[j]
                    weight = weight * math.exp(e if e > 0 else 0.2 * e)
                    total, weights = total + weight * z[j], weights + weight
                rows[i, h] = total / weights
        return rows

    if name == "gcn":
        hidden = np.maximum(gcn(x, p["Dense_0"]["kernel"], p["bias1"]), 0)
        return hidden, gcn(hidden, p["Dense_1"]["kernel"], p["bias2"])
    if name == "sage":
        hidden = np.maximum(sage(x, p["convolution1"]), 0)
        return hidden, sage(hidden, p["convolution2"])
    hidden = gat(x, 1).reshape(n, -1) + p["bias1"]
    hidden = np.where(hidden > 0, hidden, np.expm1(np.minimum(hidden, 0)))
    return hidden, gat(hidden, 2).mean(1) + p["bias2"]


@pytest.mark.parametrize("name", NETWORKS)
def test_dense_and_sparse_are_the_network_node_by_node(name):
    edges, adjacency, features = _karate()
    dense, sparse = NETWORKS[name]
    variables = _drawn(dense, adjacency, features)
    hidden, logits = _node_by_node(name, variables["params"], adjacency, np.asarray(features, np.float64))
    assert jax.eval_shape(sparse.init, jax.random.key(0), edges, features) == jax.eval_shape(lambda: variables)
    for module, graph in ((dense, adjacency), (sparse, edges)):
        answered, sown, _ = _answered(module, variables, graph, features)
        np.testing.assert_allclose(answered, logits, atol=1e-5)
        np.testing.assert_allclose(sown["embedding"], hidden, atol=1e-5)
        assert set(sown) == ({"embedding"} if name == "gcn" else {"embedding", "layer1"})
    assert np.abs(logits - logits[0]).max() > 0.1


@pytest.mark.parametrize("name", ["gcn", "sage", "gat"])
def test_without_edges_nobody_hears_of_others(name):
    _, adjacency, features = _karate()
    dense, sparse = NETWORKS[name]
    variables = _drawn(dense, adjacency, features)
    alone, *_ = _answered(sparse, variables, np.zeros((0, 2), np.int32), features)
    np.testing.assert_allclose(alone, _answered(dense, variables, 0 * adjacency, features)[0], atol=1e-5)
    one, *_ = _answered(dense, variables, jnp.zeros((1, 1)), features[:1])
    np.testing.assert_allclose(alone[:1], one, atol=1e-5)


@pytest.mark.parametrize("name", ["sage", "gat"])
def test_an_edge_between_none_and_whole_counts_by_its_weight(name):
    _, adjacency, features = _karate()
    adjacency = adjacency * np.random.default_rng(1).random((34, 34)).astype(np.float32)
    dense, _ = NETWORKS[name]
    variables = _drawn(dense, adjacency, features)
    _, logits = _node_by_node(name, variables["params"], adjacency, np.asarray(features, np.float64))
    np.testing.assert_allclose(_answered(dense, variables, adjacency, features)[0], logits, atol=1e-5)


@pytest.mark.parametrize("name", ["sage", "gat"])
def test_gradient_with_respect_to_every_edge_of_the_others(name):
    with jax.enable_x64(True):
        adjacency, features = (array.astype(jnp.float64) for array in _graph())
        module = NETWORKS[name][0]
        drawn = _drawn(module, adjacency, features)
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), drawn)

        def loss(adjacency):
            logits = module.apply(variables, adjacency, features)
            return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(6), jnp.array([0, 1, 2, 0, 1, 2])])

        step = 1e-6 * jnp.eye(36).reshape(36, 6, 6)
        gradient_of, change = (
            compiled(jax.grad(loss)),
            compiled(jax.vmap(lambda d, a: (loss(a + d) - loss(a - d)) / 2e-6, (0, None))),
        )
        others = 1 - jnp.eye(6)
        # Inside the box, and at the graph without edges, where attacks begin.
        for relaxed in (others * (0.3 + 0.6 * adjacency), 0 * adjacency):
            gradient = gradient_of(relaxed)
            np.testing.assert_allclose(gradient, change(step, relaxed).reshape(6, 6), atol=1e-7)
            assert 0 < float(jnp.abs(gradient * others).max()) < 100
            assert int((jnp.abs(gradient * others) > 0).sum()) == 30  # every pair has a slope


def test_large_attention_scores_are_neither_infinite_nor_undefined():
    edges, adjacency, features = _karate()
    dense, sparse = NETWORKS["gat"]
    variables = jax.tree.map(lambda leaf: 1e3 * leaf, _drawn(dense, adjacency, features))
    gradient_of = compiled(jax.value_and_grad(lambda a: jnp.tanh(dense.apply(variables, a, features)).sum()))
    value, gradient = gradient_of(adjacency)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert np.isfinite(_answered(sparse, variables, edges, features)[0]).all()


def test_attention_drops_features_in_training_alone():
    _, adjacency, features = _karate()
    module = GAT(4, 3, heads=2)
    variables = _drawn(module, adjacency, features)
    train = compiled(lambda key: module.apply(variables, adjacency, features, train=True, rngs={"dropout": key}))
    assert np.abs(train(jax.random.key(0)) - train(jax.random.key(1))).max() > 0.01
    kept, *_ = _answered(module.clone(dropout=0.0), variables, adjacency, features, train=True)
    np.testing.assert_array_equal(kept, _answered(module, variables, adjacency, features)[0])


def test_a_network_without_edges_tells_nothing_of_them():
    _, adjacency, features = _karate()
    module = NodeMLP(4, 3)
    variables = _drawn(module, adjacency, features)
    logits, sown, _ = _answered(module, variables, adjacency, features)
    np.testing.assert_array_equal(logits, _answered(module, variables, 1 - adjacency, features)[0])
    p = variables["params"]
    hidden = np.maximum(features @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
    np.testing.assert_allclose(sown["embedding"], hidden, atol=1e-5)
    np.testing.assert_allclose(logits, hidden @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"], atol=1e-5)
    assert not jax.grad(lambda a: module.apply(variables, a, features).sum())(adjacency).any()


def _padded(sizes, n, d=3, junk=0.0):
    """Random graphs of those sizes, padded to n nodes, whose features are `junk`."""
    rng = np.random.default_rng(2)
    graphs = {
        "adjacency": np.zeros((len(sizes), n, n), np.float32),
        "features": np.full((len(sizes), n, d), junk, np.float32),
        "mask": np.zeros((len(sizes), n), np.float32),
    }
    for g, size in enumerate(sizes):
        upper = np.triu(rng.random((size, size)) < 0.5, 1)
        graphs["adjacency"][g, :size, :size] = upper | upper.T
        graphs["features"][g, :size] = rng.normal(size=(size, d))
        graphs["mask"][g, :size] = 1
    return jax.tree.map(jnp.asarray, graphs)


def test_classifier_of_graphs_node_by_node():
    sizes = (3, 5, 4)
    graphs = _padded(sizes, 6)
    module = GraphClassifier(2, width=4)
    variables = _drawn(module, graphs)
    logits, sown, _ = _answered(module, variables, graphs, train=True)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    linked = np.asarray(graphs["adjacency"])
    nodes = [np.asarray(graphs["features"][g, :size], np.float64) for g, size in enumerate(sizes)]
    layers = []
    for layer in (1, 2, 3):
        part, norm, rows = p[f"convolution{layer}"], p[f"norm{layer}"], []
        for g, x in enumerate(nodes):
            for i in range(len(x)):
                near = [x[j] for j in range(len(x)) if linked[g, i, j]]
                mean = sum(near) / len(near) if near else np.zeros(x.shape[1])
                out = x[i] @ part["own"]["kernel"] + part["own"]["bias"] + mean @ part["neighbors"]["kernel"]
                rows.append(np.maximum(out, 0))
        rows = np.array(rows)  # of real nodes alone
        rows = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) * norm["scale"] + norm["bias"]
        nodes = np.split(rows, np.cumsum(sizes)[:-1])
        layers.append(nodes)
    embedding = np.array([np.concatenate([rows[g].mean(0) for rows in layers]) for g in range(3)])
    np.testing.assert_allclose(sown["embedding"], embedding, atol=1e-4)
    last = np.maximum(embedding @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
    np.testing.assert_allclose(logits, last @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"], atol=1e-4)


def test_padding_has_no_part_in_the_class_of_a_graph():
    module = GraphClassifier(2)
    variables = _drawn(module, _padded((3, 5), 5))
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    for train in (False, True):
        few, many = (_answered(module, variables, _padded((3, 5), n, junk=n - 5.0), train=train) for n in (5, 9))
        np.testing.assert_allclose(few[0], many[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(few[1]["embedding"], many[1]["embedding"], rtol=1e-3, atol=1e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), few[2], many[2])
        assert few[1]["embedding"].shape == (2, 192)
        learned = few[2]["batch_stats"]["norm1"]["mean"] != variables["batch_stats"]["norm1"]["mean"]
        assert learned.all() if train else not learned.any()
    # As in the released code the mean is over padding too, which tells how much of it there is.
    few, many = (_answered(module.clone(padded=True), variables, _padded((3, 5), n))[1] for n in (5, 9))
    assert np.abs(few["embedding"] - many["embedding"]).max() > 0.05
