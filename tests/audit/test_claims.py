"""Claims of papers: paired where a metric is of single things, with the seeds of a group kept together."""

import json

import numpy as np
import pytest

from jaxmia.audit import claims, folder
from jaxmia.metrics.estimate import bootstrap, difference

CONFIG = {
    "modality": "image",
    "targets": {"name": "softmax"},
    "defenses": None,
    "attacks": [{"name": "image/gmi"}, {"name": "image/mi_face"}],
    "claims": {"stronger": "gmi", "weaker": "mi_face", "metric": "accuracy", "of": "GMI"},
    "controls": (),
}
GROUPS = np.repeat(np.arange(10), 4)


def cell(run, name, values, *, per_thing=True, judges=None, **metric):
    """A finished cell with one metric."""
    where = run / "cells" / name
    where.mkdir(parents=True)
    arrays = {"targets": GROUPS, "case_ids": np.arange(len(GROUPS))}
    folder.write_npz(where / "candidates.npz", **arrays, **({"metric:accuracy": values} if per_thing else {}))
    names = [f"accuracy [{judge}]" for judge in judges] if judges else ["accuracy"]
    measured = {**bootstrap(values)._asdict(), **metric}
    folder.write_json(where / "cell.json", {"metrics": dict.fromkeys(names, measured)})
    folder.write_json(where / "done.json", {})


def runs_of(tmp_path, gap, seeds=2, **how):
    made = []
    for seed in range(seeds):
        weaker = np.random.default_rng(seed).random(len(GROUPS))
        made.append(tmp_path / str(seed))
        cell(made[-1], "softmax--gmi", weaker + gap + 0.01 * seed + 0.02 * (GROUPS % 2), **how)
        cell(made[-1], "softmax--mi_face", weaker, **how)
    return made


@pytest.mark.parametrize(("gap", "verdict"), [(0.3, "confirmed"), (-0.3, "refuted"), (-0.015, "undecided")])
def test_a_paired_claim_is_decided_by_its_interval(gap, verdict, tmp_path):
    runs = runs_of(tmp_path, gap)
    ((said, of, target, metric, found, told),) = claims.table(CONFIG, runs)["rows"]
    assert (said, of, target, metric, told) == ("gmi over mi_face", "GMI", "softmax", "accuracy", verdict)
    gaps = np.concatenate([gap + 0.01 * seed + 0.02 * (GROUPS % 2) for seed in range(2)])
    expected = difference(gaps, 0 * gaps, np.tile(GROUPS, 2))
    assert found["groups"] == 10
    assert [found[k] for k in ("value", "low", "high")] == pytest.approx(list(expected[:3]))


def test_a_metric_where_less_is_stronger_is_turned(tmp_path):
    (row,) = claims.table(CONFIG, runs_of(tmp_path, -0.3, stronger="lower"))["rows"]
    assert row[-1] == "confirmed" and row[-2]["value"] > 0


def test_a_metric_of_the_whole_is_decided_by_seeds_or_by_both_intervals(tmp_path):
    runs = runs_of(tmp_path, 0.3, per_thing=False)
    (row,) = claims.table(CONFIG, runs)["rows"]
    assert row[-2]["method"] == "bootstrap over seeds" and row[-2]["n"] == 2
    (row,) = claims.table(CONFIG, runs[:1])["rows"]
    metrics = [json.loads((runs[0] / "cells" / f"softmax--{n}" / "cell.json").read_text()) for n in ("gmi", "mi_face")]
    a, b = (m["metrics"]["accuracy"] for m in metrics)
    assert row[-2]["low"] == pytest.approx(
        a["value"] - b["value"] - np.hypot(a["value"] - a["low"], b["high"] - b["value"])
    )
    assert row[-2]["high"] - row[-2]["low"] > max(a["high"] - a["low"], b["high"] - b["low"])


def test_every_evaluator_judges_a_claim(tmp_path):
    rows = claims.table(CONFIG, runs_of(tmp_path, 0.3, per_thing=False, judges=["a", "b"]))["rows"]
    assert [row[3] for row in rows] == ["accuracy [a]", "accuracy [b]"]


def test_what_is_not_there_is_refused_or_left_out(tmp_path):
    with pytest.raises(
        ValueError, match="claims.0.weaker: 'ppa'; legal is one of gmi, mi_face, baseline/nearest_public"
    ):
        claims.check({**CONFIG, "claims": {**CONFIG["claims"], "weaker": "ppa"}})
    with pytest.raises(ValueError, match="claims.0.metric: missing"):
        claims.check({**CONFIG, "claims": {**CONFIG["claims"], "metric": ""}})
    runs = runs_of(tmp_path, 0.3)
    with pytest.raises(ValueError, match="'auc' is no metric of .*; legal is one of accuracy"):
        claims.table({**CONFIG, "claims": {**CONFIG["claims"], "metric": "auc"}}, runs)
    (runs[0] / "cells" / "softmax--gmi" / "done.json").unlink()
    assert claims.table(CONFIG, runs)["rows"] == []
