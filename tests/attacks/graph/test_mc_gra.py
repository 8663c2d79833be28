"""MC-GRA on a graph of two blocks and 24 nodes, whose hidden layer A' W was seen; W has a row for each node."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, ThreatModelError
from jaxmia.attacks.graph.mc_gra import CARD, RELEASED_ON_CORA, mc_gra
from jaxmia.metrics.graph import link_auc
from jaxmia.models.graph import normalize_adjacency
from jaxmia.recipes.dependence import MEASURES
from jaxmia.testing.benches.graph import BLOCKS, NODES, graph
from jaxmia.testing.benches.mc_gra import make

KEY, X = jax.random.key(0), np.eye(NODES, dtype=np.float32)
BENCH = make()
CASE = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), BENCH.cases(BENCH.target("leaks"), CARD))


def process(which: str = "leaks", **options):
    return mc_gra(BENCH.target(which).view(Access.WEIGHTS), X, BLOCKS, **options).solve(())


@functools.cache
def found(which: str = "leaks", steps: int = 200, **options):
    """The output; one program of all steps."""

    def run():
        p = process(which, rate=0.03, **options)
        start = p.init(KEY, CASE)
        end = jax.lax.fori_loop(0, steps, lambda t, s: p.step(jax.random.fold_in(KEY, t), s, CASE)[0], start)
        return p.read(end)

    return jax.device_get(jax.jit(run)())


def auc(scores) -> float:
    return link_auc(np.asarray(scores, float), graph())


def test_the_adjacency_found_tells_edges_that_the_blocks_do_not():
    leaked, control = found(), found("shuffled")
    assert auc(leaked.relaxed) >= 0.85, "chance is 0.5"
    assert auc(control.relaxed) <= 0.6, "weights of other nodes read something else from what was seen"
    within = BLOCKS[:, None] == BLOCKS
    inside = [leaked.relaxed[within & (graph() == edge) & ~np.eye(NODES, dtype=bool)] for edge in (0, 1)]
    assert inside[1].mean() >= inside[0].mean() + 0.1, "pairs of one block"


@pytest.mark.nightly
@pytest.mark.parametrize("measure", ["kl", "cka", "kde"])
def test_every_measure_with_a_scale_of_its_own_finds_edges(measure):
    assert auc(found(measure=measure).relaxed) >= 0.75


def dec(rows):
    """The released decoder of Cora, in float64."""
    return np.where(np.eye(NODES), 0, 1 / (1 + np.exp(-np.maximum(rows @ rows.T, 0))))


def test_the_released_score_is_the_sum_of_its_parts():
    out = found(steps=3, **RELEASED_ON_CORA)
    rows, reading = (np.asarray(BENCH.params["leaks"][name], np.float64) for name in ("rows", "reading"))

    def hidden(adjacency):
        return np.asarray(normalize_adjacency(jnp.asarray(adjacency)), np.float64) @ rows

    def logs(h):
        logits = h @ reading
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    at = hidden(out.relaxed)
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    first = np.where(np.eye(NODES), 0, np.maximum(at @ at.T, 0))
    again, seen = hidden(first), hidden(graph())
    same = (BLOCKS[:, None] == BLOCKS) & ~np.eye(NODES, dtype=bool)
    parts = {
        "decoded": first,
        "hidden_again": dec(again),
        "outputs_again": dec(logs(again)),
        "features": dec(X),
        "observed_hidden": dec(seen),
        "observed_scores": dec(logs(seen)),
        "labels": same,
    }
    for name, wanted in parts.items():
        np.testing.assert_allclose(getattr(out, name), wanted, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(out.scores, sum(parts.values()), atol=1e-4)


def entropy(p):
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return -(p * np.log2(p)).mean()


def at_a_relaxed_graph():
    """An adjacency, and its hidden layer, probabilities and mean cross entropy in numpy."""
    upper = np.triu(np.random.default_rng(3).uniform(0.1, 0.9, (NODES, NODES)), 1).astype(np.float32)
    adjacency = upper + upper.T
    spread = np.asarray(normalize_adjacency(jnp.asarray(adjacency)), np.float64)
    hidden = spread @ BENCH.params["leaks"]["rows"]
    logits = hidden @ BENCH.params["leaks"]["reading"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return upper, adjacency, spread, hidden, p, -np.log(p[np.arange(NODES), BLOCKS]).mean()


def loss_at(upper, **options):
    p = process(**options)
    state = p.init(KEY, CASE)._replace(latent=jnp.asarray(upper))
    return float(jax.jit(p.step)(KEY, state, CASE)[1].loss)


def test_the_loss_is_that_of_the_paper():
    upper, adjacency, _, hidden, p, told = at_a_relaxed_graph()
    wanted = (
        2 * told
        + 3 * ((CASE["hidden"] - hidden) ** 2).mean()
        + 5 * ((CASE["scores"] - p) ** 2).mean()
        + 7 * entropy(adjacency)
    )
    weights = {"supervision": 2.0, "propagation": 3.0, "outputs": 5.0, "complexity": 7.0}
    assert loss_at(upper, **weights) == pytest.approx(float(wanted), rel=1e-4)
    alone = loss_at(upper, **weights, uses=("hidden",))
    assert alone == pytest.approx(float(3 * ((CASE["hidden"] - hidden) ** 2).mean() + 7 * entropy(adjacency)), rel=1e-4)


def test_the_released_loss_is_that_of_the_code():
    upper, adjacency, spread, hidden, p, told = at_a_relaxed_graph()
    units = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    first = np.where(np.eye(NODES), 0, np.maximum(units @ units.T, 0))
    wanted = (
        2 * (told + 1e-3 * np.linalg.norm(upper))
        + 3 * ((CASE["hidden"] - hidden) ** 2).mean()
        + 5 * ((np.log(CASE["scores"]) - p) ** 2).mean()
        + 7 * entropy(spread)
        + 11 * ((dec(X) - spread) ** 2).mean()
        + 13 * ((spread - first) ** 2).mean()
        + 17 * entropy(first)
    )
    weights = {"supervision": 2.0, "propagation": 3.0, "outputs": 5.0, "complexity": 7.0, "likeness": 11.0}
    weights |= {"cycle": 13.0, "decoded_complexity": 17.0, "decoder": "sigmoid"}
    assert loss_at(upper, released=True, **weights) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("measure", MEASURES)
def test_dependence_is_sought_but_where_the_released_code_avoids_it(measure):
    """At the true graph a layer depends on itself most."""
    alone = {"uses": ("hidden",), "complexity": 0.0, "measure": measure}
    upper = np.triu(graph(), 1)
    other = np.triu(np.roll(graph(), 5, (0, 1)), 1)
    sought = loss_at(upper, **alone) < loss_at(other, **alone)
    assert sought or measure == "dp"  # which has no scale
    released = loss_at(upper, **alone, released=True) < loss_at(other, **alone, released=True)
    if measure not in ("kde", "dp"):  # the released kde is of columns
        assert released == (measure != "cka")
    if measure in ("cka", "dp"):
        assert loss_at(upper, **alone, released=True) == pytest.approx(-loss_at(upper, **alone), rel=1e-5)


def test_what_is_not_used_changes_nothing_and_is_not_in_the_output():
    mc_gra(BENCH.target("leaks").view(Access.WEIGHTS), X, np.full(NODES, -1), uses=("hidden",))
    p = process(uses=("labels",))
    other = jax.tree.map(lambda leaf: leaf + 1, CASE)
    for _ in range(2):
        state, again = (p.step(KEY, p.init(KEY, case), case)[0] for case in (CASE, other))
    np.testing.assert_array_equal(state.latent, again.latent)
    out = p.read(state)
    assert out.observed_hidden is None and out.observed_scores is None and out.labels is not None


def test_noise_is_drawn_at_every_step():
    quiet, loud = process(), process(noise=0.1)
    start = quiet.init(KEY, CASE)
    one, two = (loud.step(jax.random.key(k), start, CASE)[1].loss for k in (1, 2))
    assert one != two
    assert quiet.step(jax.random.key(1), start, CASE)[1].loss == quiet.step(jax.random.key(2), start, CASE)[1].loss


def test_access_below_weights_is_refused():
    with pytest.raises(ThreatModelError, match="graph/mc_gra needs access WEIGHTS"):
        mc_gra(BENCH.target("leaks").view(Access.SCORES), X, BLOCKS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uses": ()}, "uses: ()"),
        ({"uses": ("hidden", "edges")}, "uses: "),
        ({"measure": "mi"}, "measure: 'mi'"),
        ({"decoder": "dot"}, "decoder: 'dot'"),
        ({"score": "all"}, "score: 'all'"),
        ({"steps": 0}, "steps: 0"),
        ({"layer": "hidden"}, "layer: 'hidden'; the target shows embedding"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        process(**options)


def test_cases_of_another_layer_are_refused():
    attack = mc_gra(BENCH.target("leaks").view(Access.WEIGHTS), X, BLOCKS)
    assert attack.check is not None
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[None], CASE)
    attack.check(seen, 2)
    with pytest.raises(ValueError, match=rf"hidden: \[{NODES}, 4\] a case; legal is \[{NODES}, 16\]"):
        attack.check({**seen, "hidden": np.zeros((1, NODES, 4))}, 2)
