"""MC-GPB's dependence against loops, the terms of its loss, its draws of edges, and what a training with it does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmia import engine, train
from jaxmia.composing import compose
from jaxmia.core import Defense
from jaxmia.defenses.dp_sgd import dp_sgd
from jaxmia.defenses.mc_gpb import dependence, mc_gpb
from jaxmia.models import normalize_adjacency
from jaxmia.models.features import expose
from jaxmia.oracle import Outputs

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NODES = 9
EDGES = np.array([[0, 1], [0, 2], [1, 2], [3, 4], [4, 5], [6, 7], [7, 8]], np.int32)


def loops(one, other, released=False):
    n = len(one)
    centers = [j * n / (n - 1) if released else 0.0 for j in range(n)]
    first, second = (
        np.array([[np.exp(-0.5 * ((g[i, j] - centers[j]) / 0.32) ** 2) for j in range(n)] for i in range(n)])
        for g in (one, other)
    )
    joint = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for k in range(n):
                joint[i, j] += first[k, i] * second[k, j]

    def entropy(mass):
        p = mass / mass.sum()
        return -np.sum(p * np.log(p + 1e-10))

    of_first, of_second = entropy(first.mean(0)), entropy(second.mean(0))
    return 2 * (of_first + of_second - entropy(joint)) / (of_first + of_second)


@pytest.mark.parametrize("released", [False, True])
def test_the_dependence_is_that_of_the_loops_and_symmetric(released):
    one, other = (0.4 * z @ z.T for z in RNG.normal(size=(2, 6, 2)))
    measure = jax.jit(lambda one, other: dependence(one, other, released=released))
    got, swapped = (measure(jnp.asarray(a), jnp.asarray(b)) for a, b in ((one, other), (other, one)))
    assert float(got) == pytest.approx(loops(one, other, released), abs=1e-5)
    assert float(swapped) == pytest.approx(float(got), abs=1e-5)


def test_it_is_one_for_equal_permutations_and_nothing_for_constants():
    permutation = np.eye(5)[[2, 0, 3, 1, 4]].astype(np.float32)
    far = jnp.asarray(100 * (1 - permutation))  # whose kernel is the permutation
    assert float(dependence(far, far)) == pytest.approx(1, abs=1e-5)
    assert float(dependence(far, jnp.full((5, 5), 0.2))) == pytest.approx(0, abs=1e-5)
    vanishing = jnp.full((5, 5), 1e4)  # a kernel of zeros
    value, gradient = jax.jit(jax.value_and_grad(lambda g: dependence(g, far)))(vanishing)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def _outputs(axis=False):
    hidden, logits = RNG.normal(size=(NODES, 4)) * 0.5, RNG.normal(size=(NODES, 2))
    batch = {"y": np.zeros(NODES, np.int32), "x": np.zeros((NODES, 3)), "edges": EDGES}
    outputs = Outputs(jnp.asarray(logits), {"gcn/embedding": jnp.asarray(hidden)})
    if axis:
        batch = jax.tree.map(lambda a: a[None], batch)
        outputs = jax.tree.map(lambda a: a[None], outputs)
    return outputs, batch, hidden, logits


@pytest.mark.parametrize("axis", [False, True])
def test_the_loss_adds_both_terms(axis):
    outputs, batch, hidden, logits = _outputs(axis)
    defense = mc_gpb(beta=0.7, gamma=0.3)
    batch = defense.data(KEY, batch)
    left, right = np.asarray(batch["_ends"]).T
    joined = sum(loops(z[right] @ z[right].T, z[left] @ z[left].T) for z in (hidden, logits))
    passed = loops(logits @ logits.T, hidden @ hidden.T)  # the order of the nodes does not matter
    got = jax.jit(defense.loss(lambda outputs, batch: 2.0))(outputs, batch)
    assert float(got) == pytest.approx(2 + 0.7 * joined + 0.3 * passed, abs=1e-4)
    nothing = mc_gpb(beta=0.0, gamma=0.0)
    assert float(jax.jit(nothing.loss(lambda outputs, batch: 2.0))(outputs, batch)) == 2


def test_edges_are_drawn_with_replacement_and_both_ways_round_and_nodes_without():
    batch, defense = _outputs()[1], mc_gpb(sample=6)
    keys = jax.random.split(KEY, 60)
    ends = np.asarray(jax.jit(jax.vmap(lambda key: defense.data(key, batch)["_ends"]))(keys)).reshape(-1, 2)
    ways = {tuple(e) for e in EDGES.tolist()} | {tuple(e) for e in EDGES[:, ::-1].tolist()}
    assert {tuple(e) for e in ends.tolist()} == ways and len(ends) == 360
    nodes = np.asarray(defense.data(KEY, batch)["_nodes"])
    assert len(set(nodes.tolist())) == 6 and nodes.max() < NODES
    different = [len({tuple(e) for e in part.tolist()}) for part in np.sort(ends, 1).reshape(60, 6, 2)]
    assert min(different) < 6  # some edge came twice


def test_the_share_of_edges_is_removed_once():
    edges = np.stack([np.arange(3000), np.arange(3000) + 1], 1).astype(np.int32)
    made = mc_gpb(removed=0.3).graph(KEY, edges, 3001)
    assert abs(len(made) / 3000 - 0.7) < 4 * np.sqrt(0.21 / 3000)
    assert {tuple(e) for e in made.tolist()} < {tuple(e) for e in edges.tolist()}
    np.testing.assert_array_equal(mc_gpb(removed=0.0).graph(KEY, edges, 3001), edges)
    assert len(mc_gpb(removed=1.0).graph(KEY, edges, 3001)) == 0


def test_a_batch_without_a_graph_and_a_network_without_layers_are_refused():
    outputs, batch, _, _ = _outputs()
    for wrong in ({}, {"edges": EDGES[:0]}, {"edges": np.stack([EDGES, EDGES])}):
        with pytest.raises(ValueError, match=r"batch: edges of shape .*; legal is those of one graph"):
            mc_gpb().data(KEY, {"x": batch["x"], "y": batch["y"], **wrong})
    given = mc_gpb().data(KEY, batch)
    with pytest.raises(ValueError, match="layers: .*; legal is one or more of what the model sows: gcn/embedding"):
        mc_gpb(layers=("layer9",)).loss(lambda outputs, batch: 0.0)(outputs, given)


def test_it_is_no_partner_of_gradients_example_by_example():
    pytest.importorskip("jax_privacy")
    with pytest.raises(ValueError, match="dp_sgd takes gradients example by example, and mc_gpb ties"):
        compose({"mc_gpb": mc_gpb(), "dp_sgd": dp_sgd(8.0)})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"removed": 1.5}, "removed: 1.5; legal is 0 to 1"),
        ({"beta": -1.0}, "beta: -1.0; legal is finite and 0 or more"),
        ({"gamma": float("inf")}, "gamma: inf"),
        ({"sample": 1}, "sample: 1; legal is 2 or more"),
    ],
)
def test_illegal_arguments_are_named(arguments, told):
    with pytest.raises(ValueError, match=told):
        mc_gpb(**arguments)


# ---- a training on a graph of two classes

SIZE = 60
LABELS = np.arange(SIZE) % 2
LINKED = np.triu(RNG.random((SIZE, SIZE)) < np.where(LABELS[:, None] == LABELS, 0.2, 0.02), 1)
ADJACENCY = (LINKED | LINKED.T).astype(np.float32)
FEATURES = (RNG.normal(size=(SIZE, 8)) + 0.5 * LABELS[:, None]).astype(np.float32)


class OverNodes(nn.Module):
    """Two graph convolutions of adjacencies with a leading axis, as an audit's targets have it."""

    @nn.compact
    def __call__(self, adjacencies, train=False):
        passed = jax.vmap(normalize_adjacency)(adjacencies)
        hidden = nn.relu(passed @ nn.Dense(8)(jnp.asarray(FEATURES)))
        expose(self, "embedding", hidden)
        return passed @ nn.Dense(2)(hidden)


def _trained(defense):
    """What the ends of edges tell of one another in its layers, and the accuracy."""
    edges = np.asarray(defense.graph(KEY, np.argwhere(LINKED).astype(np.int32), SIZE))
    served = np.zeros((SIZE, SIZE), np.float32)
    served[edges[:, 0], edges[:, 1]] = served[edges[:, 1], edges[:, 0]] = 1
    batch = {"x": served[None], "y": LABELS[None].astype(np.int32), "edges": edges[None]}
    process = train.supervised(OverNodes(), optax.adam(0.02), steps=60, defense=defense)
    variables, _ = engine.fit(process, KEY, lambda step: batch, plan=engine.Plan(progress=False))
    logits, sown = OverNodes().apply(variables, jnp.asarray(served[None]), mutable=["features"])
    layers, (left, right) = (sown["features"]["embedding"][0][0], logits[0]), np.argwhere(LINKED).T
    told = sum(dependence(z[right] @ z[right].T, z[left] @ z[left].T) for z in layers)
    return float(told), float(np.mean(np.argmax(logits[0], 1) == LABELS))


def test_a_training_with_it_lowers_what_it_measures_and_still_learns():
    plain, accuracy = _trained(Defense())
    defended, kept = _trained(mc_gpb(removed=0.0, beta=3.0, gamma=0.0))
    assert accuracy >= 0.9 and kept >= 0.8
    assert defended < 0.7 * plain
