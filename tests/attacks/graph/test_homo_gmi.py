"""HomoGMI on graphs of two blocks and 24 nodes, and on noisy features that homophily is about."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, ThreatModelError
from jaxmia.attacks.graph.homo_gmi import homo_gmi
from jaxmia.metrics.graph import link_auc
from jaxmia.priors.homophily import homophily
from jaxmia.testing.benches.graph import BLOCKS, NODES, graph, make

KEY, ONE_HOT = jax.random.key(0), np.eye(NODES, dtype=np.float32)
FEW = make().inputs["labels"]
ALIKE = (np.where(BLOCKS == 0, 0.5, -0.5)[:, None] + np.random.default_rng(0).normal(size=(NODES, 6))).astype(
    np.float32
)


def process(which: str = "leaks", features=ONE_HOT, labels=FEW, **options):
    return homo_gmi(make().target(which).view(Access.WEIGHTS), features, labels, **options).solve(())


@functools.cache
def found(which: str = "leaks", alike: bool = False, **options):
    """The output and the last info; one program of all steps. The target reads no features, the prior alone does."""
    p = process(which, ALIKE if alike else ONE_HOT, **options)

    def run():
        def step(state, t):
            return p.step(jax.random.fold_in(KEY, t), state, 0)

        end, told = jax.lax.scan(step, p.init(KEY, 0), jnp.arange(p.steps))
        return p.read(end), jax.tree.map(lambda leaf: leaf[-1], told)

    return jax.device_get(jax.jit(run)())


def auc(scores) -> float:
    return link_auc(np.asarray(scores, float), graph())


def test_edges_are_ranked_by_what_the_weights_hold():
    leaked, control = found()[0], found("shuffled")[0]
    assert auc(leaked.scores) >= 0.85, "chance is 0.5"
    assert auc(control.scores) <= 0.6


def test_homophily_makes_like_nodes_neighbors():
    """With weights that outweigh the labels the graph that is found is one of like nodes; without, it is not."""
    prior = homophily(NODES, ALIKE, first=1.0, second=1.0)
    cosines = ALIKE / np.linalg.norm(ALIKE, axis=1, keepdims=True)
    rank = {}
    for weight in (0.0, 1.0):
        out, told = found(alike=True, lambda1=weight, lambda2=weight)
        assert told.extra["identity"] < np.log(2)
        relaxed, upper = jnp.asarray(out.relaxed), np.triu_indices(NODES, 1)
        cost = float(prior.penalty(relaxed, relaxed))
        rank[weight] = cost, np.corrcoef(out.relaxed[upper], (cosines @ cosines.T)[upper])[0, 1]
    assert rank[1.0][0] <= rank[0.0][0] - 0.3
    assert rank[1.0][1] >= rank[0.0][1] + 0.2


def test_scores_are_the_decoded_hidden_layer_at_the_graph_that_was_found():
    out, _ = found()
    target = make().target("leaks")
    hidden = np.asarray(target.apply(target.params, jnp.asarray(out.relaxed)).features["embedding"], np.float64)
    np.testing.assert_allclose(out.embedding, hidden, atol=1e-5)
    hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
    np.testing.assert_allclose(out.scores, np.where(np.eye(NODES), 0, np.maximum(hidden @ hidden.T, 0)), atol=1e-5)
    for matrix in (out.scores, out.relaxed):
        np.testing.assert_array_equal(matrix, matrix.T)
        assert 0 <= matrix.min() < matrix.max() <= 1


def test_the_first_step_goes_a_rate_down_the_cross_entropy_alone():
    """At no edge homophily has no slope, and Adam's first step is as long as its rate wherever there is one."""
    p = process(labels=BLOCKS, rate=0.03)
    state, told = jax.jit(p.step)(KEY, p.init(KEY, 0), 0)
    target = make().target("leaks")

    def entropy(i, j, value):
        a = jnp.zeros((NODES, NODES)).at[i, j].set(value).at[j, i].set(value)
        logits = target.apply(target.params, a).logits
        return float(-jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(NODES), BLOCKS]))

    assert float(told.loss) == pytest.approx(entropy(0, 1, 0.0), rel=1e-5)
    for i, j in ((0, 1), (0, 13), (5, 20), (14, 22)):
        slope = (entropy(i, j, 1e-2) - entropy(i, j, -1e-2)) / 2e-2
        assert float(state.latent[i, j]) == pytest.approx(0.03 if slope < 0 else 0.0, abs=1e-4), (i, j, slope)


def test_a_budget_bounds_the_edges():
    assert np.triu(found(budget=3.0)[0].relaxed).sum() == pytest.approx(3.0, rel=1e-3)


def test_access_below_weights_is_refused():
    with pytest.raises(ThreatModelError, match="graph/homo_gmi needs access WEIGHTS"):
        homo_gmi(make().target("leaks").view(Access.SCORES), ONE_HOT, FEW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"decoder": "dot"}, "decoder: 'dot'"),
        ({"layer": "hidden"}, "layer: 'hidden'; the target shows embedding"),
        ({"labels": np.full(NODES, -1)}, "labels: all are negative"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        process(**options)
