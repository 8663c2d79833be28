"""Audits of made-up graphs and texts: controls, defenses, exhibits, judging again; and what their data refuse."""

import functools
import json

import numpy as np
import pytest

from jaxmia import Access, Target, cli
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted
from jaxmia.modalities.graph import MODALITY as GRAPH
from jaxmia.modalities.graph.data import DATA as GRAPHS
from jaxmia.modalities.text.data import DATA as TEXTS

CONFIGS = {
    "graph": """
        modality: graph
        data: blocks
        targets: gcn
        controls: [gcn, gcn-constant]
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
