"""Targets and data of audits of graphs: what each network shows, what the control without edges knows, missing labels."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia.audit.modality import Training
from jaxmia.modalities.graph import data, targets
from jaxmia.oracle import Access


def _fitted(name, nodes):
    how = Training(lambda *_, **__: pytest.fail("nothing is trained"), None, 0, name, control="untrained")
    return targets.fit(targets.TARGETS[name](), nodes, how)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_each_network_shows_its_hidden_features_under_its_own_name(name):
    nodes = data.DATA["blocks"](0, nodes=24, per_class=4, test=10)
    fitted = _fitted(name, nodes)
    assert targets.layer(fitted) == f"{name}/embedding"
    hidden = fitted.target.apply(fitted.target.params, jnp.asarray(nodes.adjacency)).features[f"{name}/embedding"]
    assert hidden.shape == (24, 64 if name == "gat" else 16)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_only_the_control_without_edges_answers_the_same_without_them(name):
    nodes = data.DATA["blocks"](0, nodes=24, per_class=4, test=10)
    view = _fitted(name, nodes).target.view(Access.SCORES)
    first, second = (view.answer(jax.random.key(0), jnp.asarray(a)) for a in (nodes.adjacency, 0 * nodes.adjacency))
    assert np.allclose(first, second, atol=1e-6) == (name == "mlp")


def test_the_karate_club_is_divided():
    nodes = data.DATA["karate"](0)
    assert nodes.graph.labels[nodes.labeled].tolist() == [0] * 4 + [1] * 4
    assert len(nodes.test) == 20 and not set(nodes.test) & set(nodes.labeled)
    assert nodes.adjacency.sum() == 2 * 78


def test_nodes_without_a_label_neither_train_nor_measure_nor_get_one():
    graph = data.DATA["karate"](0).graph
    graph.labels[:5] = -1
    nodes = data._divided("some", graph, 4, 21, 0)
    assert not set(range(5)) & {*nodes.test, *nodes.labeled} and len(nodes.order) == 34
    with pytest.raises(ValueError, match="data.per_class, data.test: 4, 22"):
        data._divided("some", graph, 4, 22, 0)

    def first_weights(process, key, batches, **_):
        return process.read(process.init(key, jax.tree.map(jnp.asarray, batches(0)))), None

    how = Training(first_weights, Path(), 0, "shuffled", control="shuffled")
    shuffled = targets.fit(targets.TARGETS["gcn"](), nodes, how).labels
    assert np.array_equal(shuffled < 0, graph.labels < 0) and not np.array_equal(shuffled, graph.labels)
    assert np.array_equal(np.bincount(shuffled + 1), np.bincount(graph.labels + 1))


@pytest.mark.needs_data
def test_citeseer_says_that_some_papers_have_no_label():
    nodes = data.DATA["citeseer"](0)
    assert len(nodes.labeled) == 120 and len(nodes.test) == 1000
    assert (nodes.graph.labels[nodes.test] >= 0).all() and "15 papers" in nodes.notes[0]
