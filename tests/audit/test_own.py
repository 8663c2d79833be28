"""Models that an audit does not train: what is asked of them, what is refused, and what the verdicts say."""

import json

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

from jaxmia import Access, Target, ThreatModelError, cli, from_callable, from_function
from jaxmia.audit import battery, own, verdicts
from jaxmia.audit.code import function_of
from jaxmia.audit.examination import FIRST, examine, unlike_chance
from jaxmia.audit.modality import Training
from jaxmia.modalities.image.folders import folders
from jaxmia.modalities.image.priors import PRIORS

CLASSES, SHAPE, KEY = 4, (6, 6, 1), jax.random.key(0)
MEANS = np.random.default_rng(0).random((CLASSES, *SHAPE), np.float32)
MODEL = """
import pathlib
import numpy as np

MEANS = np.load(pathlib.Path(__file__).parent / "means.npy")
ASKED = []


def predict(x):
    ASKED.append(len(x))
    z = -40 * ((x[:, None] - MEANS) ** 2).mean((2, 3, 4))
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def nothing():
    return 3


def broken(x):
    raise ConnectionError("the model is away")
"""


@pytest.fixture
def where(tmp_path, monkeypatch):
    """The model, pictures of its classes and public ones; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    np.save(tmp_path / "means.npy", MEANS)
    rng = np.random.default_rng(1)
    for part, n in (("private", 4), ("held_out", 4), ("public", 6)):
        for c in range(CLASSES if part != "public" else 3):
            (tmp_path / part / f"c{c}").mkdir(parents=True)
            for k in range(n):
                mean = MEANS[c] if part != "public" else rng.random(SHAPE)
                x = np.clip(mean + 0.05 * rng.normal(size=SHAPE), 0, 1)
                image = Image.fromarray((255 * x[..., 0]).astype(np.uint8))
                image.save(tmp_path / part / f"c{c}" / f"{k}.png")
    return tmp_path


def scene(where, **options):
    parts = {name: str(where / name) for name in ("private", "held_out", "public")}
    return folders(**{**parts, "size": 6, "channels": 1, **options})


def held_out(where):
    return scene(where).split.test.images.astype(np.float32) / 255


def made(where, section=None, fit=None, look=lambda target: (), **how):
    recipe = own.OWN["callable"](**{"predict": "model.py:predict", "version": "1", **(section or {})})
    how = Training(fit or (lambda *a, **k: None), where / "run" / "training" / "callable", 0, "", **how)
    return own.fitted(recipe, CLASSES, how, look)


def asked(where):
    return sum(map(int, (where / "run" / "training" / "asked.txt").read_text().split()))


# The data


def test_folders_are_of_the_model_s_classes_and_held_out_pictures_are_halved(where):
    found = scene(where)
    assert found.names == ("c0", "c1", "c2", "c3")
    assert [len(part.labels) for part in found.split] == [16, 8, 8, 18]
    assert (
        np.bincount(found.split.test.labels).tolist() == np.bincount(found.split.validation.labels).tolist() == [2] * 4
    )


def test_a_file_says_how_the_model_counts_its_classes(where):
    (where / "names.txt").write_text("c2\nc0\nc3\nc1\n")
    found = scene(where, classes=str(where / "names.txt"))
    assert found.names == ("c2", "c0", "c3", "c1")
    images = found.split.train.images.astype(np.float32) / 255
    for label, c in enumerate((2, 0, 3, 1)):
        assert np.abs(images[found.split.train.labels == label].mean(0) - MEANS[c]).mean() < 0.1
    (where / "names.txt").write_text("c2\nc0\nc3\nc5\n")
    with pytest.raises(ValueError, match="data.private: has c1 besides the classes, and lacks c5"):
        scene(where, classes=str(where / "names.txt"))


# The model


def test_the_function_of_a_file_is_found_or_missed_in_a_sentence(where):
    assert function_of("predict", "model.py:predict")(np.zeros((2, *SHAPE))).shape == (2, CLASSES)
    assert function_of("predict", "model.py:predict") is function_of("predict", str(where / "model.py:predict"))
    with pytest.raises(ValueError, match="predict: 'model.py'; legal is file.py:function"):
        function_of("predict", "model.py")
    with pytest.raises(FileNotFoundError, match="predict: there is no file other.py"):
        function_of("predict", "other.py:predict")
    with pytest.raises(ValueError, match="predict: model.py has no function guess"):
        function_of("predict", "model.py:guess")


def test_what_python_makes_must_be_a_target_of_the_classes(where):
    for make, words in (("nothing", "returned a int"), ("predict", "missing 1 required")):
        with pytest.raises((ValueError, TypeError), match=words):
            own.OWN["python"](make=f"model.py:{make}").make(CLASSES, lambda n: None)
    (where / "made.py").write_text(
        "import jax.numpy as jnp\nfrom jaxmia import from_function\n"
        "def make():\n    return from_function(lambda p, x: x.reshape(len(x), -1) @ p, jnp.ones((36, 3)), classes=3)\n"
    )
    with pytest.raises(ValueError, match="has 3 classes, and the data 4"):
        own.OWN["python"](make="made.py:make").make(CLASSES, lambda n: None)
    assert own.granted({"name": "python", "make": "made.py:make"}) == Access.WEIGHTS


def test_every_query_is_on_the_bill_and_none_beyond_the_budget_is_asked(where):
    x, images = held_out(where), {"section": {"budget": 30, "per_call": 3}}
    made(where, look=lambda target: examine(target, x), **images)
    assert asked(where) == 3 * FIRST == 24
    portions = function_of("predict", "model.py:predict").__globals__["ASKED"]
    assert sum(portions) == 24 and max(portions) == 3
    made(where, look=lambda target: pytest.fail("looked at again"), **images)  # what was seen is kept
    view = made(where, **images).target.view(Access.SCORES)
    view.answer(KEY, x[0])
    with pytest.raises(Exception, match="30 queries, of which 28 were asked; 3 more"):
        examine(made(where, **images).target, x)
    assert asked(where) == sum(portions) == 28


def test_a_run_of_another_model_is_refused(where):
    made(where)
    with pytest.raises(ValueError, match="holds the results of another model"):
        made(where, {"version": "2"})
    with pytest.raises(ValueError, match="version: missing"):
        made(where, {"version": ""})


def test_defenses_on_answers_are_put_before_it_and_others_are_refused(where):
    x = held_out(where)
    rounded = made(where, defense=[{"name": "rounding", "level": 0.25}]).target.view(Access.SCORES)
    np.testing.assert_allclose(np.asarray(rounded.answer(KEY, x[0])) % 0.25, 0, atol=1e-6)
    with pytest.raises(ValueError, match="defenses: mid would have to be trained"):
        made(where, defense=[{"name": "rounding"}, {"name": "mid"}])
    with pytest.raises(ValueError, match="controls: shuffled trains the target anew"):
        made(where, control="shuffled")


@pytest.mark.parametrize("kind", ["host", "weights"])
def test_a_permuted_target_answers_of_each_class_what_the_model_says_of_another(kind):
    weights = np.random.default_rng(3).normal(size=(36, CLASSES)).astype(np.float32)

    def logits(x):
        return x.reshape(len(x), -1) @ weights

    if kind == "host":
        whole = from_callable(logits, classes=CLASSES, answers="logits", identity="it")
    else:
        whole = from_function(lambda p, x: x.reshape(len(x), -1) @ p, weights, classes=CLASSES)
    mixed, order = own.permuted(whole, seed=0), None
    for x in MEANS:
        told, other = (np.asarray(target.view(Access.SCORES).answer(KEY, x)) for target in (whole, mixed))
        places = [int(np.argmin(np.abs(told - value))) for value in other]
        assert sorted(places) == list(range(CLASSES)) and all(place != c for c, place in enumerate(places))
        assert order in (None, places)
        order = places
        labels = [int(target.view(Access.LABELS).answer(KEY, x)) for target in (whole, mixed)]
        assert places[labels[1]] == labels[0]
        if kind == "weights":
            view = mixed.view(Access.WEIGHTS)
            np.testing.assert_allclose(view.apply(view.params, x).logits, (x.reshape(-1) @ weights)[places], rtol=1e-5)
    assert isinstance(whole, Target)
    for wrong in ([0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 3], [1, 1, 0, 2]):
        with pytest.raises(ValueError, match="order: .*legal is every class once"):
            whole.permuted(wrong)


def test_a_prior_of_the_user_s_own(where):
    (where / "mine.py").write_text(
        "from jaxmia import priors\n\ndef make(public):\n    return priors.eigen(public, 2)\n\n"
        "def none(public):\n    return 1\n"
    )
    public = scene(where).split.public.images.astype(np.float32) / 255
    prior = PRIORS["python"](public, None, make="mine.py:make")
    assert prior.decode(prior.init(KEY)).shape == SHAPE
    with pytest.raises(ValueError, match="make: mine.py:none returned a int; legal is a jaxmia.Prior"):
        PRIORS["python"](public, None, make="mine.py:none")


# The look at it


def test_answers_that_depend_on_the_batch_or_are_not_finite_are_refused():
    x = np.random.default_rng(0).random((FIRST, *SHAPE), np.float32)
    centered = from_callable(lambda x: np.eye(CLASSES)[[int(len(x) > 1)] * len(x)], classes=CLASSES, identity="i")
    with pytest.raises(ValueError, match="otherwise when it is asked alone, by up to 1"):
        examine(centered, x)
    nan = from_callable(lambda x: np.full((len(x), CLASSES), np.nan), classes=CLASSES, identity="i")
    with pytest.raises(ValueError, match="NaN or infinity"):
        examine(nan, x)

    def away(x):
        raise ConnectionError("the model is away")

    with pytest.raises(ConnectionError, match="^the model is away$"):
        examine(from_callable(away, classes=CLASSES, identity="i"), x)


def test_changing_answers_and_an_accuracy_of_chance_are_said():
    x, rng = np.random.default_rng(0).random((FIRST, *SHAPE), np.float32), np.random.default_rng(0)
    moody = from_callable(
        lambda x: np.full((len(x), CLASSES), 0.25) + 1e-5 * np.array([1, -1, 0, 0]) * rng.random(), classes=CLASSES,
        identity="i",
    )  # fmt: skip
    assert "differently each time" in examine(moody, x)[0]
    assert unlike_chance({"value": 0.9, "low": 0.7, "high": 1.0}, 4) == ()
    assert "not above chance (25%)" in unlike_chance({"value": 0.3, "low": 0.2, "high": 0.4}, 4)[0]


# Batteries


def test_a_battery_is_as_strong_as_the_access(where):
    def names(access, **more):
        target = {"name": "callable", "predict": "model.py:predict", "access": access, "version": "1"}
        return [section["name"] for section in battery.complete({"targets": target, **more})["attacks"]]

    assert names("labels") == ["image/brep_mi"]
    assert names("scores") == ["image/brep_mi", "image/evolution_strategy", "image/tb_mia"]
    assert "image/gmi" in [section["name"] for section in battery.complete({"targets": "mlp"})["attacks"]]
    assert names("scores", attacks=[{"name": "image/lokt"}]) == ["image/lokt"], "what is written stands"
    with pytest.raises(ValueError, match="battery: 'slow'; legal is one of quick, standard"):
        battery.complete({"battery": "slow", "targets": "mlp"})
    with pytest.raises(ValueError, match="targets: 2 of them"):
        battery.complete({"targets": ["mlp", "softmax"]})


# Verdicts


def cell(run, name, success, label):
    """A finished cell whose attack an evaluator finds in these classes; two evaluators, the second one kinder."""
    folder, values = run / "cells" / name, np.array(success, np.float32)
    folder.mkdir(parents=True)
    estimate = {"value": float(values.mean()), "low": 0.0, "high": 1.0, "unit": "share"}
    metrics = {f"attack_accuracy@1 [{judge}]": estimate for judge in "ab"}
    card = {"access": "SCORES"}
    (folder / "cell.json").write_text(json.dumps({"metrics": metrics, "label": label, "card": card}))
    arrays = {f"metric:{metric}": values for metric in metrics}
    n = np.arange(len(values))
    np.savez(folder / "candidates.npz", targets=n, case_ids=n, failed=n < 0, **arrays)
    (folder / "done.json").write_text("{}")


@pytest.mark.parametrize(
    ("attack", "control", "nearest", "said"),
    [
        ([1] * 18 + [0] * 2, [0] * 20, [0] * 19 + [1], "shown"),
        ([1, 0] * 10, [0] * 20, [0, 1] * 10, "undecided"),
        ([0] * 20, [0] * 19 + [1], [0] * 20, "not shown at this budget"),
        ([1] * 18 + [0] * 2, [0] * 20, [1] * 18 + [0] * 2, "undecided"),
    ],
)
def test_the_verdict_is_on_what_exceeds_the_strongest_control(attack, control, nearest, said, where):
    run = where / "run"
    cell(run, "callable--gmi", attack, "GMI")
    cell(run, "callable-permuted--gmi", control, "GMI with exchanged classes")
    cell(run, "baseline--nearest_public", nearest, "Nearest public image (no model)")
    config = {
        "modality": "image", "targets": [{"name": "callable"}], "defenses": [], "controls": ["callable-permuted"],
        "attacks": [{"name": "image/gmi"}],
    }  # fmt: skip
    table = verdicts.table(config, run)
    assert [row[-1] for row in table["rows"]] == [said] * 2
    strongest = "GMI with exchanged classes" if sum(control) > sum(nearest) else "Nearest public image (no model)"
    assert table["rows"][0][5] == strongest
    leaks = {"shown": True, "undecided": None}.get(said, False)
    assert table["verdict"]["leaks"] is leaks and table["verdict"]["text"].lower().startswith(said)
    assert verdicts.table({**config, "controls": []}, run) is None, "without a control nothing is decided"


# One audit


@pytest.mark.nightly
def test_an_audit_of_a_function_keeps_its_bill_and_asks_nothing_when_it_is_resumed(where, capsys):
    written = {
        "data": {"name": "folders", **{k: k for k in ("private", "held_out", "public")}, "size": 6, "channels": 1},
        "targets": {"name": "callable", "predict": "model.py:predict", "version": "1", "budget": 100_000},
        "evaluators": [{"name": "wide_mlp", "steps": 40}, {"name": "wide_mlp", "steps": 30, "width": 64}],
        "prior": {"name": "eigenfaces", "components": 8},
        "attacks": [{"name": "image/evolution_strategy", "steps": 30, "budget": 400}],
        "defenses": None,
    }
    (where / "audit.yaml").write_text(yaml.safe_dump(written))
    assert cli.main(["audit", "audit.yaml", "--out", "run"]) == 0, capsys.readouterr().err
    before = asked(where)
    queries = {}
    for done in (where / "run" / "cells").rglob("cell.json"):
        record = json.loads(done.read_text())
        queries[done.parent.name] = (record["queries"] or {"mean": 0})["mean"] * record["n"]
    looked = 3 * FIRST + 2 * len(held_out(where))  # at it, and for the accuracies of target and control
    assert before == sum(queries.values()) + looked
    table = json.loads((where / "run" / "tables.json").read_text())
    assert [one["title"] for one in table] == ["Verdicts", "Attacks that were not run"]
    assert cli.main(["audit", "audit.yaml", "--out", "run"]) == 0 and asked(where) == before
    written["targets"]["budget"] = 200_000  # an allowance, by which no answer changes
    (where / "audit.yaml").write_text(yaml.safe_dump(written))
    assert cli.main(["audit", "audit.yaml", "--out", "run"]) == 0 and asked(where) == before
    written["targets"]["budget"] = looked + 200
    (where / "audit.yaml").write_text(yaml.safe_dump(written))
    (where / "run" / "training" / "asked.txt").rename(where / "asked.txt")
    assert cli.main(["audit", "audit.yaml", "--out", "spent"]) == 2
    said = capsys.readouterr()
    assert "too many, so they were not asked" in said.err and "report:" in said.out
    assert "unfinished" in (where / "spent" / "report.html").read_text().lower()
    written["targets"]["version"] = "2"
    (where / "audit.yaml").write_text(yaml.safe_dump(written))
    capsys.readouterr()
    assert cli.main(["audit", "audit.yaml", "--out", "run"]) == 2 and "another" in capsys.readouterr().err


def test_a_host_model_is_never_granted_as_weights(where):
    with pytest.raises(ThreatModelError):
        made(where).target.view(Access.WEIGHTS)
