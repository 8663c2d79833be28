"""HeteGMI on authors, papers and venues: a network of two meta-paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, ThreatModelError
from jaxmia.attacks.graph.hete_gmi import hete_gmi
from jaxmia.metrics.graph import link_auc
from jaxmia.priors.homophily import homophily
from jaxmia.testing.benches.hete_gmi import AUTHORS, FIELDS, PATHS, graphs, make

KEY, X = jax.random.key(0), np.eye(AUTHORS, dtype=np.float32)
FEW = make().inputs["labels"]
UPPER = np.triu_indices(AUTHORS, 1)


def process(which: str = "leaks", labels=FEW, paths=PATHS, features=X, **options):
    return hete_gmi(make().target(which).view(Access.WEIGHTS), features, labels, paths, **options).solve(())


@functools.cache
def found(which: str = "leaks", **options):
    p = process(which, **options)

    def run():
        return p.read(jax.lax.fori_loop(0, p.steps, lambda t, s: p.step(KEY, s, 0)[0], p.init(KEY, 0)))

    return jax.device_get(jax.jit(run)())


def auc(scores, path: str) -> float:
    return link_auc(np.asarray(scores, float), graphs()[path])


def test_the_made_up_graph_is_of_three_types():
    apa, apvpa = (graphs()[path] for path in PATHS)
    assert np.all(apvpa >= apa), "a common paper is at a common venue"
    assert apvpa.sum() > apa.sum()


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_told_by_the_weights(path):
    leaked, control = found(), found("shuffled")
    assert auc(leaked.by_path[path], path) >= 0.85, "chance is 0.5"
    assert auc(control.by_path[path], path) <= 0.6


def test_scores_are_decoded_along_each_path():
    out, target = found(), make().target("leaks")
    hidden = target.apply(target.params, jax.tree.map(jnp.asarray, out.relaxed)).features
    for path in PATHS:
        rows = np.asarray(hidden[path], np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(out.by_path[path][UPPER], np.maximum(rows @ rows.T, 0)[UPPER], atol=1e-5)
        np.testing.assert_array_equal(out.by_path[path], out.by_path[path].T)
    np.testing.assert_array_equal(out.scores, np.maximum(*out.by_path.values()))


def test_the_loss_is_the_cross_entropy_and_the_homophily_of_every_path():
    features = np.random.default_rng(0).normal(size=(AUTHORS, 5)).astype(np.float32)
    p = process(labels=FIELDS, features=features, lambda1=0.3, lambda2=0.5)
    latents = {path: jnp.asarray(np.triu(0.4 * graph, 1)) for path, graph in graphs().items()}
    told = p.step(KEY, p.init(KEY, 0)._replace(latent=latents), 0)[1]
    prior, target = homophily(AUTHORS, features, first=0.3, second=0.5), make().target("leaks")
    relaxed = {path: jnp.asarray(0.4 * graph) for path, graph in graphs().items()}
    logits = np.asarray(target.apply(target.params, relaxed).logits, np.float64)
    entropy = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(AUTHORS), FIELDS])
    assert float(told.extra["identity"]) == pytest.approx(entropy, rel=1e-4)
    rough = sum(float(prior.penalty(a, a)) for a in relaxed.values())
    assert float(told.loss) == pytest.approx(entropy + rough, rel=1e-4)


def test_paths_have_matrices_of_their_own():
    out = found()
    apa, apvpa = out.relaxed.values()
    assert np.abs(apa - apvpa).max() > 0.1


def test_access_below_weights_is_refused():
    with pytest.raises(ThreatModelError, match="graph/hete_gmi needs access WEIGHTS"):
        hete_gmi(make().target("leaks").view(Access.SCORES), X, FEW, PATHS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"decoder": "dot"}, "decoder: 'dot'"),
        ({"paths": ()}, r"paths: \(\)"),
        ({"paths": ("APA", "APA")}, "paths: .*; legal is one name or more, each once"),
        ({"layers": ("APA",)}, "layers: .*; legal is one name for each of the paths APA, APVPA"),
        ({"layers": ("APA", "hidden")}, "layers: 'hidden'; the target shows APA, APVPA"),
        ({"labels": np.full(AUTHORS, -1)}, "labels: all are negative"),
    ],
)
def test_illegal_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        process(**options)
