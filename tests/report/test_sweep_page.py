"""The page of a sweep: what is on it, how its numbers are pooled, and what refuses to be put on it."""

import re
import shutil
import sys
from typing import get_args

import numpy as np
import pytest
from scipy.special import stdtrit

from jaxmia import report
from jaxmia.report import sweep_numbers as numbers
from jaxmia.report import sweep_panels as panels
from jaxmia.report.folder import Measured
from jaxmia.report.parquet import typed, write_parquet
from jaxmia.report.sweep_folder import ROLES, number_in, read_sweep
from jaxmia.sections import Section

from .conftest import edit_json
from .sweeps import DEFENDED, defended, part, run_of, write_cell, write_sweep, write_targets
from .test_page import Page

FEW = {"defenses.weight": [0, 1], "attacks.0.steps": [100, 1000], "seed": [0, 1]}


def built(folder):
    path = report.build_sweep(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8").replace("&nbsp;", " "))


def share(value, low, high, **more):
    return Measured(value, low, high, 60, None, 0.95, "bootstrap", "share", "higher")._replace(**more)


@pytest.fixture(scope="module")
def pristine_sweep(tmp_path_factory):
    """24 cells that no test changes."""
    return write_sweep(tmp_path_factory.mktemp("report") / "sweep", DEFENDED, defended)


@pytest.fixture(scope="module")
def _few(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("report") / "sweep", FEW, defended)


@pytest.fixture
def sweep(_few, tmp_path):
    """Eight cells to change and damage."""
    return shutil.copytree(_few, tmp_path / "sweep")


@pytest.fixture(scope="module")
def page(pristine_sweep):
    return built(pristine_sweep)


def one_run(sweep):
    return sorted(path for path in sweep.iterdir() if path.is_dir())[0]


def edit_table(sweep, change):
    path = sweep / "results.csv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.nightly
def test_the_page_is_self_contained_and_leads_to_its_cells(pristine_sweep, page):
    text = (pristine_sweep / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    papers = {"https://example.org/image/gmi", "https://example.org/image/brep_mi"}
    cells = {f"{path.name}/report.html" for path in pristine_sweep.iterdir() if path.is_dir()}
    assert len(cells) == 24 and set(page.values("a", "href")) == papers | cells
    assert text.count("http") == text.count('href="https://example.org/') + text.count("http-equiv")
    sources = page.values("img", "src") + page.values("source", "srcset")
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in text and "@import" not in text and all(page.values("img", "alt"))


@pytest.mark.nightly
def test_sections_and_settings_show(page):
    heads = ["Threat model", "Privacy and utility", "By setting", "By two settings", "All cells", "Reproduce"]
    places = [page.text.index(f" {head} ") for head in heads]
    assert places == sorted(places)
    for words in ("24 cells", "2 attacks", "1 control", "convnet (bido)", "Over defenses.weight", "GMI, shuffled labels",
                  "Over attacks.0.steps", "attacks.0.steps by defenses.weight", "jaxmia sweep faces.yaml"):  # fmt: skip
        assert words in page.text, words
    assert "Over seed" not in page.text and "Rungs" not in page.text and "unfinished" not in page.text


@pytest.mark.nightly
def test_the_same_folder_gives_the_same_bytes(sweep):
    first = report.build_sweep(sweep).read_bytes()
    assert report.build_sweep(sweep).read_bytes() == first and not list(sweep.glob("*.partial"))


def test_several_seeds_get_the_interval_of_their_means():
    parts = [(0, share(0.3, 0, 1)), (0, share(0.5, 0, 1)), (1, share(0.5, 0, 1)), (2, share(0.6, 0, 1))]
    pool = numbers.pooled(parts)
    half = stdtrit(2, 0.975) * np.std([0.4, 0.5, 0.6], ddof=1) / np.sqrt(3)
    assert (pool.cells, pool.seeds, pool.measured.method) == (4, 3, "Student's t over 3 seeds")
    np.testing.assert_allclose(
        [pool.measured.value, pool.measured.low, pool.measured.high], [0.5, 0.5 - half, 0.5 + half]
    )
    near = numbers.pooled([(0, share(0.9, 0, 1)), (1, share(1.0, 0, 1))]).measured
    assert near.high == 1.0  # a share
    wide = [m._replace(unit="bits") for m in (share(0.9, 0, 1), share(1.0, 0, 1))]
    assert numbers.pooled(list(enumerate(wide))).measured.high > 1.0
    assert numbers.shown(pool)["n"] == "4 cells, 3 seeds"


def test_one_seed_gets_the_own_interval():
    alone = share(0.3, 0.2, 0.5)
    assert (
        numbers.pooled([(7, alone)]).measured is alone
        and numbers.shown(numbers.pooled([(7, alone)]))["n"] == "n\u00a0=\u00a060"
    )
    both = numbers.pooled([(7, alone), (7, share(0.5, 0.1, 0.9))]).measured
    np.testing.assert_allclose([both.value, both.low, both.high], [0.4, 0.15, 0.7])
    assert both.method == "mean of the own intervals of 2 cells"


def test_seeds_that_agree_claim_no_certainty():
    pool = numbers.pooled([(0, share(1.0, 0.8, 1.0)), (1, share(1.0, 0.6, 1.0))])
    assert (pool.measured.low, pool.measured.high) == (0.7, 1.0) and "2 seeds without spread" in pool.measured.method


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["10", "9", "10"], [9.0, 10.0]),
        (["1e-3", "0", "-2.5"], [-2.5, 0.0, 0.001]),
        (["b", "1", "a"], None),
        (["true", "false"], None),
        (["NaN", "1"], None),
        (["[1]", "[2]"], None),
    ],
)
def test_what_is_a_number(texts, values):
    assert numbers.ordered(texts)[1] == values
    assert numbers.ordered(texts)[0] == (sorted(set(texts), key=float) if values else list(dict.fromkeys(texts)))
    assert (number_in(texts[0]) is None) <= (values is None)


def test_values_of_the_curves(pristine_sweep):
    sweep = read_sweep(pristine_sweep)
    (first, second) = panels.curves(sweep)
    assert first["title"] == "Over defenses.weight"
    # mlp, GMI, weight 0: (0.8 * 0.7 + 0.8) / 2 over the steps, 0, 0.02 and 0.04 over the seeds
    assert "GMI, mlp: 70\u00a0% [65,\u00a075] at 0, " in first["drawing"].text
    assert "Mean over attacks.0.steps, seeds." in first["caption"]
    assert first["caption"].endswith("Intervals: 95 %, Student's t over 3 seeds (6 cells a value).")
    assert second["title"] == "Over attacks.0.steps" and "(12 cells a value)" in second["caption"]


@pytest.mark.nightly
def test_an_unfinished_cell_moves_no_mean(pristine_sweep, tmp_path):
    folder = shutil.copytree(pristine_sweep, tmp_path / "sweep")
    whole = panels.curves(read_sweep(folder))[1]["drawing"].text
    (folder / run_of({"defenses.weight": 1, "attacks.0.steps": 1000, "seed": 2}) / "done.json").unlink()
    curve = panels.curves(read_sweep(folder))[1]
    assert "Settings that were not finished everywhere are left out." in curve["caption"]
    # seed 2 has no mean at 1000 steps: over the weights, 0.6475 at seed 0 and 0.6675 at seed 1, by hand
    value, low, high = map(
        int, re.search(r"GMI, mlp: .*? at 100, (\d+)\xa0% \[(\d+),\xa0(\d+)\] at 1000", curve["drawing"].text).groups()
    )
    means = [np.mean([0.8 - 0.6 * weight**0.5 for weight in (0, 0.01, 0.1, 1)]) + 0.02 * seed for seed in (0, 1)]
    half = stdtrit(1, 0.975) * np.std(means, ddof=1) / np.sqrt(2)
    assert abs(value - 100 * np.mean(means)) <= 0.51
    assert abs(low - 100 * (np.mean(means) - half)) <= 0.51 and abs(high - 100 * (np.mean(means) + half)) <= 0.51
    before = re.search(r"GMI, mlp: (.*?) at 100,", whole)
    assert before and before[0] in curve["drawing"].text  # the other place keeps all seeds

    for seed in (0, 1):
        (folder / run_of({"defenses.weight": 1, "attacks.0.steps": 1000, "seed": seed}) / "done.json").unlink()
    curve = panels.curves(read_sweep(folder))[1]
    few = np.mean([0.8 - 0.6 * weight**0.5 for weight in (0, 0.01, 0.1)]) + 0.02
    assert f"GMI, mlp: {70 * (few - 0.02) + 2:.0f}\xa0%" in curve["drawing"].text  # at 100 without weight 1 as well


def test_means_over_different_settings_are_said_to_be(tmp_path):
    swept = {"defenses.weight": [0, 0.1, 1], "attacks.0.steps": [100, 1000, 1000], "seed": [0, 0, 0]}
    (one, two) = panels.curves(read_sweep(write_sweep(tmp_path / "sweep", swept, defended, zipped=True)))
    assert "so the means are over different ones" in one["caption"] and "over different ones" in two["caption"]


@pytest.mark.nightly
def test_heat_maps_are_drawn_of_independent_pairs_alone(pristine_sweep, tmp_path):
    (heat,) = panels.heat_maps(read_sweep(pristine_sweep))
    assert "BREP-MI, convnet: highest" in heat["drawing"].text
    assert "GMI, mlp: highest 82\u00a0% at 1000 and 0" in heat["drawing"].text
    assert heat["caption"].endswith("Mean over seeds.")

    swept = {"defenses.weight": [0, 1], "attacks.0.steps": [100, 1000], "seed": [0, 0]}
    assert panels.heat_maps(read_sweep(write_sweep(tmp_path / "zip", swept, defended, zipped=True))) == []


def test_a_path_without_numbers_has_no_curve(tmp_path):
    def fill(run, values):
        write_targets(run, {"mlp": (0.9, "")})
        write_cell(run, "image/gmi", "mlp", {"accuracy": part(0.5)})

    sweep = read_sweep(write_sweep(tmp_path / "sweep", {"prior.name": ["gan", "eigenfaces"]}, fill))
    assert panels.curves(sweep) == [] and panels.heat_maps(sweep) == []
    assert "Over" not in built(tmp_path / "sweep").text.split("Privacy")[1]


def test_the_front_is_against_the_strongest_attack(pristine_sweep):
    sweep = read_sweep(pristine_sweep)
    points = numbers.points(sweep.paths, sweep.settings)
    assert len(points) == 2 * 4  # an attack of fewer steps makes no safer target
    assert {point.attack for point in points} == {"GMI"}
    assert {point.attack_values["attacks.0.steps"] for point in points} == {"1000"}
    assert {(point.risk.cells, point.risk.seeds) for point in points} == {(3, 3)}
    assert {(point.accuracy.cells, point.accuracy.seeds) for point in points} == {(6, 3)}
    front = [point for point, on in zip(points, numbers.on_front(points)) if on]
    # by the formulas of `defended`: below weight 1 convnet is more accurate and safer, at 1 only safer
    named = {(point.target, point.values["defenses.weight"]) for point in front}
    assert named == {("mlp", "1"), *(("convnet (bido)", weight) for weight in ("0", "0.01", "0.1", "1"))}
    merits = [(p.accuracy.measured.value, p.risk.measured.value) for p in points]
    for (x, y), on in zip(merits, numbers.on_front(points)):
        assert on == (not any(a >= x and b <= y and (a > x or b < y) for a, b in merits))


def test_what_the_adversary_sets_makes_no_other_defender(tmp_path):
    """Of networks that an attack trains, whatever they are called: one target at the higher
    risk."""

    def fill(run, values):
        write_targets(run, {"mlp": (0.9, "")})
        write_cell(run, "image/gmi", "mlp", {"accuracy": part(0.2 if values["networks.width"] == 16 else 0.8)})

    sweep = read_sweep(write_sweep(tmp_path / "sweep", {"networks.width": [16, 64]}, fill))
    (point,) = numbers.points(sweep.paths, sweep.settings)
    assert point.risk.measured.value == 0.8 and point.values == {}
    assert point.attack_values == {"networks.width": "64"}

    edit_json(tmp_path / "sweep" / "sweep.json", lambda table: table["roles"].update({"networks.width": "target"}))
    sweep = read_sweep(tmp_path / "sweep")
    assert [point.risk.measured.value for point in numbers.points(sweep.paths, sweep.settings)] == [0.2, 0.8]


def test_a_sweep_that_does_not_say_whose_its_paths_are_is_refused(sweep):
    edit_json(sweep / "sweep.json", lambda table: table["roles"].update(seed="nobody"))
    with pytest.raises(
        ValueError, match=r"sweep\.json: roles: seed is 'nobody'; legal is one of target, adversary, judge"
    ):
        read_sweep(sweep)
    edit_json(sweep / "sweep.json", lambda table: table["roles"].pop("seed"))
    with pytest.raises(ValueError, match=r"sweep\.json: roles: seed is missing"):
        read_sweep(sweep)
    (sweep / "sweep.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"sweep\.json: missing; sweep again"):
        read_sweep(sweep)


def test_the_page_knows_the_roles_of_sections():
    assert ROLES == get_args(Section.__annotations__["role"])


def test_a_distance_is_safer_where_it_is_higher(tmp_path):
    def fill(run, values):
        near = values["defenses.weight"] == 0
        write_targets(run, {"mlp": (0.9, "")})
        write_cell(run, "image/gmi", "mlp", {"distance": {**part(0.2 if near else 0.8), "stronger": "lower"}})
        write_cell(run, "image/brep_mi", "mlp", {"distance": {**part(0.5 if near else 0.9), "stronger": "lower"}})

    sweep = read_sweep(write_sweep(tmp_path / "sweep", {"defenses.weight": [0, 1]}, fill))
    points = numbers.points(sweep.paths, sweep.settings)
    assert [(point.attack, point.risk.measured.value) for point in points] == [("GMI", 0.2), ("GMI", 0.8)]
    assert numbers.on_front(points) == [False, True]
    assert panels.tradeoffs(sweep)[0]["caption"].startswith("What the strongest attack reaches. Higher is safer")


@pytest.mark.nightly
def test_the_strongest_stands_beside_the_strongest_control(sweep):
    text = built(sweep).text.replace("\u00a0", " ")
    many = "The strongest of 16 attacks on targets in settings"  # two attacks, two targets, four settings
    told = f"{many}, GMI on mlp at defenses.weight = 0, attacks.0.steps = 1000, reaches accuracy 81 %"
    assert told in text and "by the strongest of 8 controls, GMI, shuffled labels on" in text
    for path in sweep.glob("*/cells/*-control/done.json"):
        path.unlink()
    edit_table(sweep, lambda text: "".join(line for line in text.splitlines(True) if "shuffled" not in line))
    assert "No control was run, so chance is not excluded." in built(sweep).text


@pytest.mark.nightly
def test_unfinished_cells_are_listed(sweep):
    values = {"defenses.weight": 1, "attacks.0.steps": 100, "seed": 1}
    (sweep / run_of(values) / "done.json").unlink()
    (sweep / "0123456789ab").mkdir()
    (sweep / "training" / "fedcba987654").mkdir(parents=True)  # no run folder
    text = built(sweep).text
    assert "2 of 9 cells are unfinished" in text
    assert f"{run_of(values)} (defenses.weight = 1, attacks.0.steps = 100, seed = 1)" in text
    assert text.count("0123456789ab") == 2 and "fedcba987654" not in text
    (row,) = [point for point in numbers.points(*read_sweep(sweep)[1:3])
              if point.target == "mlp" and point.values["defenses.weight"] == "1"]  # fmt: skip
    assert row.accuracy.cells == 3


@pytest.mark.nightly
def test_finished_cells_of_other_values_are_left_out_and_said_so(sweep):
    run = one_run(sweep)
    edit_table(sweep, lambda text: "".join(line for line in text.splitlines(True) if not line.startswith(run.name)))
    text = built(sweep).text
    assert (
        f"Left out: finished cells that results.csv does not have, as of a sweep over other values: {run.name}" in text
    )
    assert "7 cells" in text


def test_a_sweep_with_nothing_finished_is_a_page_too(sweep):
    for path in sweep.glob("*/done.json"):
        path.unlink()
    assert "8 of 8 cells are unfinished" in built(sweep).text
    (sweep / "results.csv").write_text("")
    assert "nothing can be said yet" in built(sweep).text


RATES = {0: (1, 2, 3, 4), 1: (3, 4), 2: (4,)}


def halved(folder, accuracy, budget=()):
    """Three rungs; `accuracy` is the target's by rung."""

    def fill(run, values):
        write_targets(run, {"mlp": (accuracy(values["rung"]), "")})
        write_cell(run, "image/gmi", "mlp", {"accuracy": part(0.1 * values["attacks.0.rate"] + 0.2 * values["rung"])})

    cells = [(rung, rate, 10**rung) for rung, rates in RATES.items() for rate in rates]
    rungs, rates, budgets = map(list, zip(*cells))
    swept = {"rung": rungs, "attacks.0.rate": rates, **{path: budgets for path in budget}}
    return write_sweep(folder, swept, fill, zipped=True)


def test_rungs_tell_who_survived(tmp_path):
    text = built(halved(tmp_path / "sweep", lambda rung: 0.9)).text.replace("\u00a0", " ")
    table = text[text.index(" Rungs ") : text.index(" All cells ")]
    assert "In the table: 4 at rung 0, 2 at rung 1, 1 at rung 2." in table
    rows = re.findall(r"attacks.0.rate = (\d) .*?n = 60 in 12 groups (the last rung|rung \d)\b", table)
    assert rows == [("4", "the last rung"), ("3", "rung 1"), ("2", "rung 0"), ("1", "rung 0")]
    # unequal budgets are not compared
    (curve,) = panels.curves(read_sweep(tmp_path / "sweep"))
    assert "at 4" in curve["drawing"].text and "80" not in curve["drawing"].text and "rung 0 alone" in curve["caption"]


@pytest.mark.nightly
def test_a_budget_that_is_swept_heads_its_rung(tmp_path):
    sweep = read_sweep(halved(tmp_path / "sweep", lambda rung: 0.9, budget=["attacks.0.steps"]))
    assert "rung 2: attacks.0.steps = 100" in built(sweep.folder).text
    (point,) = numbers.points(sweep.paths, sweep.settings)
    assert point.rung is None and point.attack_values == {"attacks.0.rate": "4", "attacks.0.steps": "100"}
    assert len(panels.curves(sweep)) == 1  # not over the budget


def test_rungs_are_other_targets_where_the_budget_is_theirs(tmp_path):
    sweep = read_sweep(halved(tmp_path / "sweep", lambda rung: 0.7 + 0.1 * rung))
    points = numbers.points(sweep.paths, sweep.settings)
    assert [(point.rung, point.attack_values["attacks.0.rate"]) for point in points] == [(0, "4"), (1, "4"), (2, "4")]


@pytest.mark.nightly
def test_hostile_names_stay_text(tmp_path):
    evil = "<script>alert('$x$')</script>"

    def fill(run, values):
        write_targets(run, {"<img src=x onerror=alert(1)>": (0.9, evil)})
        for control in (False, True):
            write_cell(run, "image/gmi", "<img src=x onerror=alert(1)>", {evil: part(0.5)}, control=control, label=evil)
        edit_json(run / "environment.json", lambda e: e.update(command=evil, device=evil))

    def plain(run, values):
        fill(run, values)
        for cell in list((run / "cells").iterdir()):
            cell.rename(cell.with_name("control" if "control" in cell.name else "attack"))

    swept = {"defenses.$\\frac{": [1, 2], evil: [evil, "b"], "prior.n": [100, 1]}
    page = built(write_sweep(tmp_path / "sweep", swept, plain))
    assert "script" not in page.tags and evil in page.text
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(source.startswith("data:image/png") for source in page.values("img", "src"))


def cut(text):
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "row .* has .* fields; the header has|lacks .* in"),
        (lambda text: "".join(text.splitlines(True)[:-1]), "lacks accuracy of"),
        (lambda text: text.replace("run,", "cell of,", 1), "damaged: lacks column run"),
        (lambda text: text.replace("metric,value", "value,value", 1), "damaged: lacks column metric"),
        (lambda text: text.replace("n,groups", "n,n", 1), "a column is there twice"),
        (lambda text: text.replace(",0.8,", ",0.9,"), "row .*: accuracy of mlp--gmi is not what"),
        (lambda text: text.replace(",0.8,", ",many,"), "row .*: accuracy of mlp--gmi is not what"),
        (lambda text: re.sub("\n[0-9a-f]{12}", "\n../evil", text, count=1), "row 2: run is '../evil'"),
        (
            lambda text: re.sub("(\n[0-9a-f]{12}),0", "\\1,5", text, count=1),
            "row 3: sweep.defenses.weight of run .* is '0'",
        ),
        (lambda text: text.replace("\n", '\n"', 1), "damaged, not CSV"),
        (lambda text: "", "holds no rows, but .* is finished"),
    ],
)
def test_a_table_that_is_damaged_or_older_is_named(sweep, change, message):
    edit_table(sweep, change)
    with pytest.raises(ValueError, match=f"results.csv: .*({message})"):
        report.build_sweep(sweep)
    assert not (sweep / "report.html").exists()


def test_other_files_that_are_missing_or_damaged_are_named(sweep):
    run = one_run(sweep)
    for name in ("targets.json", "environment.json", "cells/mlp--gmi/cell.json"):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(kept[:-5])
        with pytest.raises(ValueError, match=f"{run.name}/{name}"):
            report.build_sweep(sweep)
        (run / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{run.name}/{name}"):
            report.build_sweep(sweep)
        (run / name).write_bytes(kept)
    (sweep / "results.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="results.csv: damaged, not CSV"):
        report.build_sweep(sweep)
    (sweep / "results.csv").unlink()
    with pytest.raises(FileNotFoundError, match="results.csv: missing"):
        report.build_sweep(sweep)
    with pytest.raises(FileNotFoundError, match="no such sweep folder"):
        report.build_sweep(sweep / "nowhere")


def test_a_run_folder_or_its_page_that_is_gone_is_named(sweep):
    run = one_run(sweep)
    (run / "report.html").unlink()
    with pytest.raises(FileNotFoundError, match=f"{run.name}/report.html: missing"):
        report.build_sweep(sweep)
    shutil.rmtree(run)
    with pytest.raises(FileNotFoundError, match=f"{run.name}: no such run folder; .*results.csv has its results"):
        report.build_sweep(sweep)


@pytest.mark.parametrize(
    ("name", "texts", "values"),
    [
        ("run", ["123456789012", "12e456789012"], ["123456789012", "12e456789012"]),
        ("sweep.seed", ["0", "1"], [0, 1]),
        ("sweep.rate", ["1", "0.5", ""], [1.0, 0.5, None]),
        ("sweep.huge", ["1", str(2**63)], [1.0, 2.0**63]),
        ("sweep.text", ["1_0", "2"], ["1_0", "2"]),
        ("sweep.digits", ["007", "1"], ["007", "1"]),
        ("sweep.name", ["gan", "1", ""], ["gan", "1", ""]),
        ("control", ["true", "", "false"], [True, None, False]),
        ("defense", ["", ""], ["", ""]),
        ("queries_mean", ["", ""], [None, None]),
    ],
)
def test_columns_have_one_type(name, texts, values):
    found = typed(name, texts)
    assert found == values and [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.nightly
def test_the_parquet_table_is_the_csv_table_with_types(sweep):
    parquet = pytest.importorskip("pyarrow.parquet")
    report.build_sweep(sweep)
    table = parquet.read_table(sweep / "results.parquet")
    folder = read_sweep(sweep)
    assert table.column_names == folder.header and table.num_rows == len(folder.rows) > 0
    kinds = {name: str(table.schema.field(name).type) for name in folder.header}
    expected = {"run": "string", "sweep.seed": "int64", "value": "double", "n": "int64", "control": "bool"}
    assert expected.items() <= kinds.items()
    values = [float(row[folder.header.index("value")]) for row in folder.rows]
    assert table.column("value").to_pylist() == values
    first = (sweep / "results.parquet").read_bytes()
    report.build_sweep(sweep)
    assert (sweep / "results.parquet").read_bytes() == first and not list(sweep.glob("*.partial"))


@pytest.mark.nightly
def test_without_pyarrow_there_is_no_parquet_table(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    report.build_sweep(sweep)
    assert not (sweep / "results.parquet").exists() and (sweep / "report.html").exists()
    assert write_parquet(sweep / "results.parquet", ["a"], [["1"]]) is False
