"""Audits of made-up graphs and texts: controls, defenses, exhibits, judging again; and what their data refuse."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, Target, ThreatModelError, cli
from jaxmia.audit.assembly import blank
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted, Training
from jaxmia.modalities.graph import MODALITY as GRAPH
from jaxmia.modalities.graph import targets as graph_targets
from jaxmia.modalities.graph.data import DATA as GRAPHS
from jaxmia.modalities.graph.observe import mask_of_known
from jaxmia.modalities.text.data import DATA as TEXTS

CONFIGS = {
    "graph": """
        modality: graph
        data: blocks
        targets: gcn
        controls: [gcn-shuffled, gcn-constant]
        attacks: {name: graph/graph_mi, norm: 2, decoder: cosine, steps: 30, smooth_after: 15}
    """,
    "text": """
        modality: text
        data: letters
        targets: {name: lstm, epochs: 60, width: 32, rate: 1.0e-2}
        controls: [lstm-untrained]
        attacks: text/secret_sharer
    """,
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """The run folder of a configuration, made once."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name)
        (folder / "run.yaml").write_text(CONFIGS[name])
        assert cli.main(["attack", str(folder / "run.yaml"), "--out", str(folder / "run")]) == 0
        return folder / "run"

    return make


def metrics(run, cell):
    return json.loads((run / "cells" / cell / "cell.json").read_text())["metrics"]


@pytest.mark.nightly
def test_a_graph_leaks_where_it_was_learned(run_of):
    run = run_of("graph")
    found = metrics(run, "gcn--graph_mi")["auc"]
    assert found["low"] > metrics(run, "gcn-shuffled--graph_mi")["auc"]["high"]
    constant = metrics(run, "gcn-constant--graph_mi")["auc"]
    assert constant["value"] == 0.5
    known = metrics(run, "baseline--features_labels")
    assert abs(known["excess_auc_over_features_and_labels"]["value"]) < 1e-3
    assert "Edges named first" in (run / "report.html").read_text()


def test_a_text_exposes_what_was_planted_often(run_of):
    run = run_of("text")
    found = metrics(run, "lstm--secret_sharer")
    assert found["exposure_planted_32_times"]["low"] > found["exposure_never_planted"]["high"]
    untrained = metrics(run, "lstm-untrained--secret_sharer")["exposure_planted_32_times"]
    assert found["exposure_planted_32_times"]["low"] > untrained["high"]
    page = (run / "report.html").read_text()
    assert "times planted" in page and "the random number is" in page


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(CONFIGS))
def test_judging_again_finds_the_same(name, run_of, capsys):
    run = run_of(name)
    before = (run / "results.csv").read_text()
    assert cli.main(["evaluate", str(run)]) == 0
    assert (run / "results.csv").read_text() == before
    capsys.readouterr()


def test_a_control_tells_the_labels_that_it_learned():
    data = GRAPHS["blocks"](0, nodes=40, per_class=8, test=20)
    shuffled = data.graph.labels[::-1]
    target = Fitted(Target(None, None, classes=2, granted=Access.SCORES), None, labels=shuffled)
    inputs = Inputs(GRAPH, {"attacked_share": 0.5}, data, lambda *_: None).of(target)
    told = inputs["labels"]
    attacked = np.sort(data.order[:20])
    assert (told[attacked] == shuffled[attacked]).all() and (np.delete(told, attacked) == -1).all()


def test_planted_numbers_stand_in_the_rows_as_often_as_said():
    corpus = TEXTS["letters"](0)
    text = ["".join(corpus.characters[i] for i in row) for row in corpus.rows]
    held_out = ["".join(corpus.characters[i] for i in row) for row in corpus.held_out]
    for number, times in zip(corpus.planted, corpus.times):
        sentence = f"{corpus.prefix}{number:0{corpus.digits}}{corpus.suffix}"
        assert sum(sentence in row for row in text) == times
        assert not any(sentence in row for row in held_out)
    for number in corpus.absent:
        assert not any(f"{corpus.prefix}{number:0{corpus.digits}}" in row for row in text + held_out)


@pytest.mark.parametrize(
    ("modality", "change", "complaint"),
    [
        ("graph", "attacked_share=0.01", "attacked_share: 0.01, 0 nodes with 0 edges; legal is above 0"),
        ("graph", "data.test=80", "data.per_class, data.test: 10, 80; legal is 1 or more, with 80 nodes in all"),
        (
            "text",
            "data.absent=100",
            "4 numbers planted and 100 absent; legal is 1 or more of each, and together at most",
        ),
        ("text", "data.length=20", "sentences do not fit"),
        ("text", "controls=[lstm-shuffled]", "controls: lstm-shuffled: not among the targets; legal is lstm"),
    ],
)
def test_what_does_not_fit_is_refused(modality, change, complaint, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(CONFIGS[modality])
    command = ["attack", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run"), "--set", change]
    assert cli.main(command) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# What a network answers of the graph that it learned


ANSWERS = """
    modality: graph
    data: {name: blocks, nodes: 40, per_class: 8, test: 20}
    targets: gcn
    controls: [gcn]
    known_share: 0.3
    attacks: [graph/link_teller, graph/explain_sim, {name: graph/stealing_links, log: true}]
"""


def graph_target(**training):
    data = GRAPHS["blocks"](0, nodes=40, per_class=8, test=20)
    how = Training(blank, pathlib.Path(), 0, "", real=False, **training)
    return data, graph_targets.fit(graph_targets.gcn(steps=1), data, how)


def test_a_view_that_holds_the_edges_never_grants_weights():
    data, fitted = graph_target()
    view = fitted.views["features"]
    assert fitted.target.granted == Access.WEIGHTS and view.granted == Access.SCORES
    with pytest.raises(ThreatModelError, match="needs access WEIGHTS"):
        view.view(Access.WEIGHTS)
    _, other = graph_target(control="rewired")
    assert other.views["features"].digest != view.digest  # of equal weights, and another graph
    answer = view.view(Access.SCORES).answer(jax.random.key(0), jnp.asarray(data.graph.features))
    assert answer.shape == (40, 2)


def test_a_defense_of_the_graph_and_rewiring_change_what_is_learned_and_not_what_is_true():
    data, fitted = graph_target()
    np.testing.assert_array_equal(fitted.views["adjacency"], data.adjacency)
    _, flipped = graph_target(defense=[{"name": "edge_rand", "epsilon": 1.0}])
    assert abs(flipped.views["adjacency"] - data.adjacency).sum() > 100
    _, rewired = graph_target(control="rewired")
    changed = rewired.views["adjacency"]
    np.testing.assert_array_equal(changed.sum(0), data.adjacency.sum(0))
    assert abs(changed - data.adjacency).sum() > 20


def test_known_pairs_do_not_count():
    data = GRAPHS["blocks"](0, nodes=40, per_class=8, test=20)
    config = {"attacked_share": 1.0, "known_share": 0.5, "seed": 0}
    given = Inputs(GRAPH, config, data, lambda *_: None)
    known = given["known"]
    edges = len(data.graph.edges)
    assert known["linked"].sum() == (~known["linked"]).sum() == round(edges / 2)
    nodes, scores = np.arange(40, dtype=np.int32), np.zeros((40, 40), np.float32)
    i, j = known["pairs"].T
    scores[i, j] = scores[j, i] = np.where(known["linked"], 1, -1)  # right about all that is known, and nothing else
    arrays = {"targets": nodes, "scores": scores, **mask_of_known(given)}
    metrics = GRAPH.judge([], data, arrays).metrics
    assert metrics["auc"]["value"] == 0.5 and metrics["auc"]["n"] == 40 * 39 // 2 - len(known["pairs"])
    del arrays["known"]
    assert GRAPH.judge([], data, arrays).metrics["auc"]["value"] > 0.6


def test_a_control_that_holds_the_true_edges_is_refused(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(ANSWERS.replace("[gcn]", "[gcn-shuffled]"))
    assert cli.main(["attack", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "gcn-shuffled still answers from the true edges, so graph/link_teller" in capsys.readouterr().err


@pytest.mark.nightly
def test_answers_tell_of_the_edges_that_were_learned_and_a_rewired_control_of_its_own(tmp_path):
    (tmp_path / "run.yaml").write_text(ANSWERS)
    assert cli.main(["attack", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 0
    for attack in ("link_teller", "explain_sim"):
        found = metrics(tmp_path / "run", f"gcn--{attack}")["auc"]
        control = metrics(tmp_path / "run", f"gcn-rewired--{attack}")
        assert found["low"] > control["auc"]["high"]
        own = control["auc_on_the_edges_that_the_target_learned"]
        assert own["low"] > 0.6, "the attack works; what it finds is what was served"
