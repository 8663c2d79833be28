"""Configuration: text in, checked keywords out, and every complaint at once."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import yaml
from jaxtyping import Array, Float

from jaxmia import attacks, config
from jaxmia.discovery import Method
from jaxmia.sections import Section


def descend(
    oracle: Any,
    prior: Any,
    *,
    steps: int = 500,
    rate: float | Float[Array, ""] = 0.1,
    weight: float = 1,
    restart: bool = False,
    momentum: tuple[float, float] = (0.5, 0.999),
    sizes: tuple[int, ...] = (),
    mode: Literal["paper", "released"] = "paper",
    limit: float | None = None,
    copy: str = "kept",
    process: Callable | None = None,
    loss=None,
) -> None: ...


def search(oracle: Any, *, budget: int = 1000) -> None: ...


def train(module: Any, *, epochs: int = 10, rate: float = 1e-3, model_width: int = 8) -> None: ...


METHODS = {"image/descend": descend, "image/search": search}
REGISTRY = SimpleNamespace(
    names=lambda: tuple(METHODS),
    get=lambda name: Method(name, None, METHODS[name]),  # type: ignore[arg-type]
)
SCHEMA = {
    "attack": Section(REGISTRY),
    "defense": Section({"round": search, "noise": descend}, None),
    "target": Section(train),
    "seed": Section(int, 0),
    "title": Section(str, ""),
}


def written(folder, text):
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder, text, *overrides, schema=SCHEMA):
    return config.load(written(folder, text), overrides, schema)


def complaints(folder, text, *overrides, schema=SCHEMA):
    with pytest.raises(ValueError) as caught:
        loaded(folder, text, *overrides, schema=schema)
    return [line.strip() for line in str(caught.value).split("\n")[1:]]


def test_section_has_the_factorys_own_defaults_and_only_its_configurable_keywords():
    model = config.section(descend)
    assert model().model_dump(by_alias=True) == {
        "steps": 500, "rate": 0.1, "weight": 1.0, "restart": False, "momentum": (0.5, 0.999), "sizes": (),
        "mode": "paper", "limit": None, "copy": "kept",
    }  # fmt: skip
    assert model.model_config["frozen"] and model.model_config["extra"] == "forbid"
    with pytest.raises(ValueError, match="frozen"):
        model().steps = 3
    assert config.section(descend) is model


def test_every_attack_has_a_section_that_its_factory_accepts():
    for name in attacks.names():
        method = attacks.get(name)
        keywords = config.section(method.factory)().model_dump(by_alias=True)
        assert keywords == {key: method.hyperparameters[key] for key in keywords}
        assert not set(keywords) & set(method.inputs)


def test_defaults_are_filled_in_and_types_coerced(tmp_path):
    got = loaded(tmp_path, "attack: {name: image/descend, steps: 1e3, weight: 2, momentum: [0, 1], sizes: [3]}")
    assert got["attack"]["steps"] == 1000 and isinstance(got["attack"]["steps"], int)
    assert isinstance(got["attack"]["weight"], float)
    assert got["attack"]["momentum"] == (0.0, 1.0) and got["attack"]["sizes"] == (3,)
    assert got["target"] == {"epochs": 10, "rate": 1e-3, "model_width": 8}
    assert got["defense"] is None and got["seed"] == 0 and got["title"] == ""


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "0.001", "'1e-3'", "+1e-3"])
def test_small_numbers_are_numbers(tmp_path, text):
    assert loaded(tmp_path, f"attack: {{name: image/descend, rate: {text}}}")["attack"]["rate"] == 1e-3
    assert loaded(tmp_path, "attack: image/descend", f"attack.rate={text}")["attack"]["rate"] == 1e-3


def test_yaml_surprises(tmp_path):
    for text, steps in (("010", 10), ("0x10", 16), ("0o10", 8), ("1_000", 1000)):
        assert loaded(tmp_path, f"attack: {{name: image/descend, steps: {text}}}")["attack"]["steps"] == steps
    for word in ("no", "on", "2026-11-24", "1:30"):
        assert loaded(tmp_path, f"attack: image/search\ntitle: {word}")["title"] == word
    for word, value in (("no", False), ("on", True), ("true", True), ("0", False)):
        assert loaded(tmp_path, "attack: image/descend", f"attack.restart={word}")["attack"]["restart"] is value
    assert yaml.safe_load("[no, 010, 1e-3]") == [False, 8, "1e-3"]  # what we do not want


def test_a_boolean_is_no_number_and_a_number_no_text(tmp_path):
    found = complaints(
        tmp_path, "attack: {name: image/descend, steps: true, rate: false, copy: 5, restart: 2}\ntitle: 010"
    )
    assert found == [
        "attack.steps: True; legal is a whole number",
        "attack.rate: False; legal is a number",
        "attack.restart: 2; legal is true or false",
        "attack.copy: 5; legal is text (in quotes where it reads as a number, true, false or null)",
        "title: 10; legal is text (in quotes where it reads as a number, true, false or null)",
    ]


def test_all_errors_at_once_with_paths_and_suggestions(tmp_path):
    found = complaints(
        tmp_path,
        """
        attack: {name: image/descend, stepz: 1, oracle: x, process: y, loss: z, mode: exact, sizes: 3, momentum: [1]}
        defense: [{name: rounds}, {name: noise, steps: 1.5}]
        titel: x
        target: {epochs: null}
        """,
    )
    assert found[0] == "titel: unknown section, did you mean title?"
    expected = [
        "attack.stepz: unknown key, did you mean steps?",
        "attack.oracle: cannot be set here, it is an input that the experiment supplies",
        "attack.process: cannot be set here, it is no plain value",
        "attack.loss: cannot be set here, it is no plain value",
        "attack.mode: 'exact'; legal is one of 'paper', 'released'",
        "attack.sizes: 3; legal is a list, each item a whole number",
        "attack.momentum: [1]; legal is a list of 2: a number, a number",
        "defense.0.name: there is no 'rounds', did you mean round?",
        "defense.1.steps: 1.5; legal is a whole number",
        "target.epochs: None; legal is a whole number",
    ]
    for line in expected:
        assert any(item.startswith(line) for item in found), line
    assert len(found) == len(expected) + 1


def test_missing_wrong_and_unnamed_sections(tmp_path):
    assert complaints(tmp_path, "seed: 1") == ["attack: missing, and it has no default"]
    assert complaints(tmp_path, "attack: {steps: 3}") == ["attack.name: missing, legal: image/descend, image/search"]
    assert complaints(tmp_path, "attack: 5") == [
        "attack: 5; legal is a name, a section with a name and keywords, or a list of such"
    ]
    assert "attack: []" in complaints(tmp_path, "attack: []")[0]
    assert complaints(tmp_path, "attack: image/search\ntarget: [1]") == ["target: [1]; legal is a section of keywords"]
    assert complaints(tmp_path, "attack: image/search\n1: x")[0].startswith("1: unknown section")


def test_a_list_of_sections_keeps_its_order(tmp_path):
    got = loaded(tmp_path, "attack: [image/search, {name: image/descend, steps: 2}]", "attack.0.budget=7")
    assert [item["name"] for item in got["attack"]] == ["image/search", "image/descend"]
    assert got["attack"][0]["budget"] == 7 and got["attack"][1]["steps"] == 2


def test_overrides(tmp_path):
    text = "attack: {name: image/descend, steps: 3}"
    assert loaded(tmp_path, text, "attack=image/search")["attack"] == {"name": "image/search", "budget": 1000}
    assert loaded(tmp_path, "attack: image/descend", "attack.steps=9")["attack"]["steps"] == 9
    assert loaded(tmp_path, text, "target.epochs=2", "target.epochs=4")["target"]["epochs"] == 4
    assert loaded(tmp_path, text, "title=a=b")["title"] == "a=b"
    assert loaded(tmp_path, text, "title=''")["title"] == ""
    assert loaded(tmp_path, text, "attack.sizes=[1, 2]")["attack"]["sizes"] == (1, 2)
    found = complaints(tmp_path, text, "attack.steps", "=3", "seed.deep=1", "attack.sizes=[")
    assert found[0] == "override 'attack.steps': legal is key=value with a dotted key"
    assert found[1] == "override '=3': legal is key=value with a dotted key"
    assert found[2].startswith("attack.sizes: '[' is not YAML")
    assert found[3].startswith("seed: {'deep': 1}; legal is a whole number")
    found = complaints(tmp_path, "attack: [image/search]\nseed: 1", "attack.budget=1", "attack.1.budget=1", "seed.x=1")
    assert found == [
        "attack.budget: attack is a list of 1; legal is attack.0 and so on, not .budget",
        "attack.1.budget: attack is a list of 1; legal is attack.0 and so on, not .1",
        "seed.x: seed is 1, no section",
    ]


SWEEP = """
attack: {name: image/descend}
sweep:
  attack.rate: [0.1, 1e-2]
  seed: [0, 1, 2]
  zip: {target.epochs: [5, 20], target.rate: [1e-2, 1e-3]}
"""


def test_sweep_is_the_product_times_the_zipped_rows(tmp_path):
    cells = config.expand(loaded(tmp_path, SWEEP), SCHEMA)
    got = [(c["attack"]["rate"], c["seed"], c["target"]["epochs"], c["target"]["rate"]) for c in cells]
    assert got == [
        (rate, seed, *pair) for rate in (0.1, 0.01) for seed in (0, 1, 2) for pair in ((5, 1e-2), (20, 1e-3))
    ]
    assert all("sweep" not in cell for cell in cells)
    assert len({config.digest(cell) for cell in cells}) == 12


def test_without_a_sweep_there_is_one_cell(tmp_path):
    got = loaded(tmp_path, "attack: image/search")
    assert config.expand(got, SCHEMA) == [got]


def test_sweep_over_methods_validates_each_cell(tmp_path):
    text = "sweep: {attack: [image/search, {name: image/descend, steps: 2}]}"
    names = [cell["attack"]["name"] for cell in config.expand(loaded(tmp_path, text), SCHEMA)]
    assert names == ["image/search", "image/descend"]
    text = "attack: {steps: 3}\nsweep: {attack.name: [image/search, image/descend]}"
    assert complaints(tmp_path, text) == ["attack.steps: unknown key, legal: budget"]


def test_sweep_errors(tmp_path):
    base = "attack: image/descend\n"
    for block, message in (
        ("sweep: [1]", "sweep: [1]; legal is a section"),
        ("sweep: {seed: 3}", "sweep.seed: 3; legal is a list"),
        ("sweep: {seed: []}", "sweep.seed: []; legal is a list"),
        ("sweep: {zip: 3}", "sweep.zip: 3; legal is a section"),
        ("sweep: {seed: [1], zip: {seed: [1]}}", "sweep.zip.seed: also in the grid"),
        ("sweep: {zip: {seed: [1, 2], title: [a]}}", "sweep.zip: seed has 2, title has 1"),
        ("sweep: {seed: [1, 1]}", "sweep: the cells {'seed': 1} and {'seed': 1} are the same"),
        ("sweep: {attack.rate: [1, 1.0]}", "sweep: the cells"),
        ("sweep: {sed: [1, 2]}", "sed: unknown section, did you mean seed?"),
        ("sweep: {attack.rat: [1, 2]}", "attack.rat: unknown key, did you mean rate?"),
    ):
        found = complaints(tmp_path, base + block)
        assert len(found) == 1 and found[0].startswith(message), (block, found)
    assert complaints(tmp_path, SWEEP, "seed=3") == [
        "seed: overridden and swept; write sweep.seed=[...] or drop it from the sweep"
    ]


def test_sweep_by_override(tmp_path):
    got = loaded(tmp_path, SWEEP, "sweep.attack.rate=[3]", "sweep.seed=[7]", "sweep.zip.target.epochs=[1, 2]")
    cells = config.expand(got, SCHEMA)
    assert [(c["attack"]["rate"], c["seed"], c["target"]["epochs"]) for c in cells] == [(3.0, 7, 1), (3.0, 7, 2)]


def test_digest_is_the_sha256_of_canonical_json_and_sees_defaults(tmp_path):
    assert config.digest({"b": (1, 2), "a": "é"}) == hashlib.sha256('{"a":"é","b":[1,2]}'.encode()).hexdigest()
    plain = config.digest(loaded(tmp_path, "attack: image/descend"))
    assert plain == config.digest(loaded(tmp_path, "seed: 0\nattack: {weight: 1.0, steps: 500, name: image/descend}"))
    assert plain != config.digest(loaded(tmp_path, "attack: image/descend", "attack.weight=1.1"))


@pytest.mark.parametrize("title", ["no", "1e-3", "010", "true", "null", "~", "", "2026-11-24", "a: b #", "é\n", "1_0"])
def test_dump_reads_back_the_same_here_and_elsewhere(tmp_path, title):
    schema = {**SCHEMA, "defense": SCHEMA["attack"]}
    cell = loaded(tmp_path, "attack: image/descend\ndefense: image/search", schema=schema)
    cell["title"] = title
    text = config.dump(cell)
    assert config.load(written(tmp_path, text), (), schema) == cell
    assert yaml.safe_load(text)["title"] == title  # another reader, by the older rules
    assert "&" not in text


def test_dump_keeps_a_sweep(tmp_path):
    got = loaded(tmp_path, SWEEP)
    assert config.expand(loaded(tmp_path, config.dump(got)), SCHEMA) == config.expand(got, SCHEMA)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml: no such configuration file"):
        config.load(tmp_path / "nowhere.yaml", (), SCHEMA)
    for text, message in (
        ("a: [", "not YAML"),
        ("- 1", "holds list; legal is a mapping"),
        ("", "holds NoneType; legal is a mapping"),
        ("seed: 1\nseed: 2", "key 'seed' is given twice"),
        ("attack:\n  steps: 1\n  steps: 1", "'steps' is given twice[^$]*line 3"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
    ):
        with pytest.raises(ValueError, match=message):
            loaded(tmp_path, text)
    (tmp_path / "latin.yaml").write_bytes(b"title: \xe9")
    with pytest.raises(ValueError, match="not YAML"):
        config.load(tmp_path / "latin.yaml", (), SCHEMA)


def test_merge_keys_still_work(tmp_path):
    text = "attack: &a {name: image/descend, steps: 3}\ndefense: {<<: *a, name: noise, steps: 4}"
    got = loaded(tmp_path, text)
    assert got["attack"]["steps"] == 3 and got["defense"]["steps"] == 4


def test_a_factory_default_against_its_own_annotation_is_told(tmp_path):
    def wrong(*, steps: int = "many"): ...  # type: ignore[assignment]

    found = complaints(tmp_path, "only: {}", schema={"only": Section(wrong)})
    assert found == ["only.steps: its default 'many' does not fit its own annotation"]


def test_importing_config_does_not_import_jax():
    code = "import sys, jaxmia.config; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
