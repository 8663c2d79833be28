"""What a user can get wrong: one plain message with field, value and what is legal, before long work, nothing lost.

Elsewhere: configuration files and overrides as such in test_config.py; downloads, archives, checksums, caches and full
disks of data sets in data/test_fetch.py; pictures and folders in data/test_folders.py; manifests and splits in
data/test_splits.py; damaged run folders in report/test_page.py; killed runs in test_survive_kill.py.
"""

import errno
import io
import os
import subprocess
import sys
import tarfile
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import checkpoint, cli, config, from_function, models
from jaxmia.adapters.linen import from_linen
from jaxmia.audit import assembly, folder, modalities, schema
from jaxmia.audit.assembly import check
from jaxmia.audit.modality import Fitted, Panel
from jaxmia.audit.run import _check_roles
from jaxmia.audit.targets import Job, Trained
from jaxmia.core import Attack, Process, Scenario, info
from jaxmia.data import identity_manifest
from jaxmia.data.fetch import read_member
from jaxmia.engine import Plan, fit, run, solve
from jaxmia.metrics.estimate import bootstrap
from jaxmia.modalities.image.judging import Judge
from jaxmia.oracle import Access, ThreatModelError
from tests.tiny import write_config, write_people

KEY = jax.random.key(0)
QUIET = Plan(chunk=2, block=2, save_seconds=0.0, progress=False)


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        where = tmp_path_factory.mktemp("configured")
        patch.setenv("JAXMIA_CACHE", str(where / "cache"))
        yield write_config(where)


def refused(capsys, *words):
    """The message of a command that must be refused."""
    assert cli.main([str(word) for word in words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith(f"jaxmia {words[0]}: ") and "Traceback" not in told.err
    return told.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("targetz=softmax", "targetz: unknown section, did you mean targets"),
        ("attacks.0.alfa=3", "attacks.0.alfa: unknown key, did you mean alpha"),
        ("seed=often", "seed: 'often'; legal is a whole number"),
        ("targets.rate=.nan", "targets.rate: nan; legal is a number"),
        ("modality=video", f"modality: 'video'; legal is one of {', '.join(sorted(modalities()))}"),
        ("attacks=image/mi_fase", "attacks.name: there is no 'image/mi_fase', did you mean image/mi_face"),
        ("plan.mapper=vmap", "plan.mapper: 'vmap'; legal is one of 'shard_map', 'pmap'"),
        ("plan.chunk=0", "plan.chunk: 0; legal is 1 or more"),
        ("plan.block=0", "plan.block: 0; legal is 1 or more"),
        ("seed=-1", "seed: -1; legal is 0 or more"),
        ("candidates=0", "candidates: 0; legal is 1 or more"),
        ("controls=[mlp]", "controls: mlp: not among the targets; legal is softmax"),
        (
            "controls=[softmax-unseen]",
            "softmax-unseen: not among the targets; legal is softmax, or NAME-untrained, or NAM",
        ),
        ("attacks=text/secret_sharer", "attacks: text/secret_sharer is for text; legal are attacks on image"),
        ("defenses=edge_rand", "defenses: edge_rand is for graph; legal are defenses of image, or of any"),
        ("data.root=/nowhere", "data.root: '/nowhere' is no folder"),
        ("data.private=1", "data.private: 1; legal is 2 to 4"),
        ("data.private=5", "data.private: 5; legal is 2 to 4"),
        ("data.split_seed=-1", "data.split_seed: -1; legal is 0 or more"),
        ("targets.steps=-1", "targets (softmax): steps: -1; legal is 1 or more"),
        ("evaluators.batch_size=0", "evaluators (wide_mlp): batch_size: 0; legal is 1 or more"),
        ("evaluators={name: vgg_hard, widths: []}", "evaluators (vgg_hard): widths: (); legal is a list of numbers"),
        ("evaluators={name: vgg_hard, widths: [2, 2, 2, 2]}", "evaluators (vgg_hard): stages: 4 halvings of an image"),
        ("prior.components=12", "prior: components: 12; legal is 1 to 11 with 12 images"),
        ("prior=wgan", "prior: batch_size: 320 is out of range, it must be 1 to 12"),
        (
            "attacks={name: image/brep_mi, budget: 32}",
            "attacks (image/brep_mi): budget: 32; legal is at least one step",
        ),
        ("attacks={name: image/gmi, steps: -1}", "attacks (image/gmi): steps: -1; legal is 0 or more"),
        ("attacks={name: image/gmi, restarts: 0}", "attacks (image/gmi): restarts: 0; legal is 1 or more"),
        ("attacks={name: image/tb_mia, steps: 0}", "attacks (image/tb_mia): steps: 0; legal is 1 or more"),
        ("defenses={name: bido, layers: [block9]}", "defenses (bido): layers: ['block9']; legal is one or more of"),
        ("defenses={name: rounding, level: 0}", "defenses (rounding): level: 0.0; legal is finite and above 0"),
        ("sweep.seed=[1, 2]", "sweep: has several cells; use `jaxmia sweep`"),
    ],
)
def test_a_run_is_refused_before_anything_is_trained(configured, override, message, tmp_path, capsys):
    told = refused(capsys, "attack", configured, "--out", tmp_path / "run", "--set", override)
    assert message in told
    assert not (tmp_path / "run" / "training").exists() and not (tmp_path / "run" / "cells").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "attacks.weighting=equal",
            "attacks (tabular/attribute_inversion): weighting: 'equal'; legal is confusion, none",
        ),
        ("attacks=image/gmi", "attacks: image/gmi is for image; legal are attacks on tabular"),
        ("targets.width=0", "targets (mlp): width: 0; legal is 1 or more"),
        ("controls=[softmax]", "controls: softmax: not among the targets; legal is mlp"),
        (
            "targets=[mlp,decision_tree] controls=[decision_tree-untrained]",
            "control untrained: is for networks, and this",
        ),
        (
            "targets=decision_tree defenses=rounding",
            "defenses (rounding): defense rounding: is for networks, and this targ",
        ),
        ("evaluators=wide_mlp", "evaluators: unknown section"),
        ("data.members=1", "data.members: 1; among the training records the wanted attribute is"),
        ("data.public=1", "data.public: 1; among the public records the wanted attribute is"),
    ],
)
def test_a_run_on_records_is_refused_likewise(overrides, message, tmp_path, capsys):
    text = "{modality: tabular, data: {name: fair, members: 150, public: 300}, targets: {name: mlp}, "
    (tmp_path / "run.yaml").write_text(text + "attacks: {name: tabular/attribute_inversion}}\n")
    words = ["attack", tmp_path / "run.yaml", "--out", tmp_path / "run", "--set", *overrides.split()]
    assert message in refused(capsys, *words)
    assert not (tmp_path / "run" / "training").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("attack {missing} --out {run}", "missing.yaml: no such configuration file"),
        ("attack {tmp}/twice.yaml --out {run}", "key 'seed' is given twice"),
        ("attack {tmp}/broken.yaml --out {run}", "not YAML"),
        ("sweep {config} --out {run}", "sweep: missing, so there is one cell; use `jaxmia attack`"),
        (
            "sweep {config} --out {run} --set sweep.attacks.0.alpha=[5,0]",
            "cell attacks.0.alpha=0: attacks (image/mi_fa",
        ),
        ("attack {config} --out {tmp}/twice.yaml", "twice.yaml: is a file; name a folder"),
        ("attack {config} --out {tmp}/twice.yaml/run", "cannot be written (Not a directory); name one that can"),
        ("attack {config} --out /proc/run", "run folder /proc/run: cannot be written"),
        ("report {run}", "run: no such run folder"),
        ("evaluate {run}", "run: no such run folder"),
        (
            "evaluate {tmp} --set data.size=9",
            "data.size: cannot change for candidates that are there; legal is evaluators",
        ),
        ("evaluate {tmp}", "config.yaml: no such configuration file"),
        ("data fetch cor", "name: 'cor' is not a data set; known are orl, mnist"),
    ],
)
def test_a_command_is_refused(configured, words, message, tmp_path, capsys):
    (tmp_path / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    (tmp_path / "broken.yaml").write_text("seed: [\n")
    names = {"config": configured, "missing": tmp_path / "missing.yaml", "tmp": tmp_path, "run": tmp_path / "run"}
    assert message in refused(capsys, *(word.format(**names) for word in words.split()))
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS: 'cuda'; JAX finds no such device here; legal is cpu, or"),
        pytest.param(
            "JAX_PLATFORMS",
            "gpuu",
            "JAX_PLATFORMS: 'gpuu'; JAX finds no such device here (Unable to initialize",
            marks=pytest.mark.nightly,
        ),
        ("JAX_ENABLE_X64", "1", "jax_enable_x64: True; legal is False, since jaxmia computes in 32 bits"),
    ],
)
def test_what_jax_is_told_wrong_is_one_sentence(configured, name, value, message, tmp_path):
    words = [sys.executable, "-m", "jaxmia.cli", "attack", str(configured), "--out", str(tmp_path / "run")]
    done = subprocess.run(words, env={**os.environ, name: value}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"jaxmia attack: {message}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_processes_that_cannot_be_joined(configured, tmp_path, capsys):
    words = ["attack", configured, "--out", tmp_path / "run", "--num-processes", 2, "--process-id", 0]
    for address in ("localhost", "localhost:port", "localhost:99999"):
        assert f"at {address}: legal is a coordinator host:port" in refused(capsys, *words, "--coordinator", address)


@pytest.mark.parametrize("where", [[], ["--debug"]])
def test_a_fault_of_jaxmia_is_one_sentence_that_says_so(where, configured, tmp_path, capsys, monkeypatch):
    def faulty(*_):
        raise KeyError("penultimate")

    monkeypatch.setattr(assembly, "assemble", faulty)
    words = ["attack", str(configured), "--out", str(tmp_path / "run")]
    if where:
        for placed in ([*where, *words], [*words, *where]):
            with pytest.raises(KeyError, match="penultimate"):
                cli.main(placed)
        return
    assert cli.main(words) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == (
        "jaxmia attack: attacks (image/mi_face): KeyError: 'penultimate'; this is a fault of jaxmia: --debug shows the "
        "traceback, please report it\n"
    )


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ThreatModelError("image/gmi needs access WEIGHTS"), 2, "image/gmi needs access WEIGHTS"),
        (MemoryError("8 GiB"), 2, "out of memory; a smaller plan.chunk"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 2, "out of memory; a smaller plan.chunk"),
        (jax.errors.JaxRuntimeError("INTERNAL: lost"), 1, "JaxRuntimeError: INTERNAL: lost; this is a fault of JAX"),
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), 2, "a.csv: No space left on device"),
        (TypeError("two\nlines"), 1, "TypeError: two; this is a fault of jaxmia"),
        (AssertionError(), 1, "AssertionError; this is a fault of jaxmia"),
        (ValueError(), 1, "ValueError; this is a fault of jaxmia"),
    ],
)
def test_every_error_is_one_sentence(error, status, message, capsys, monkeypatch):
    def fails(_):
        raise error

    monkeypatch.setitem(cli._VERBS, "list", fails)
    assert cli.main(["list", "attacks"]) == status
    shown = capsys.readouterr().err
    assert shown.startswith(f"jaxmia list: {message}") and shown.count("\n") == 1


def test_what_is_no_run_folder_is_said(configured, tmp_path, capsys):
    solve(counting(), KEY, CASES, folder=tmp_path / "solved", plan=QUIET)
    run(Attack(lambda _: counting()), KEY, Scenario(softmax(), CASES), folder=tmp_path / "mine", plan=QUIET)
    for name in ("solved", "mine"):
        told = refused(capsys, "report", tmp_path / name)
        assert f"{tmp_path / name}: holds what jaxmia.run computed, whose result is what it returns; pages" in told
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: holds no run; pages are made of" in refused(capsys, "report", tmp_path / "empty")


def test_a_run_folder_that_lost_its_configuration_is_no_sweep(configured, tmp_path, capsys):
    checked = config.load(configured, (), schema)
    where = folder.open_run(tmp_path / "run", checked, "jaxmia attack run.yaml", {})
    folder.write_json(where / "targets.json", [])
    (where / "cells").mkdir()
    (where / "results.csv").write_text("cell,state\n")
    (where / "config.yaml").unlink()
    assert f"{where / 'config.yaml'}: missing" in refused(capsys, "report", where)
    assert f"{where / 'config.yaml'}: no such configuration file" in refused(capsys, "evaluate", where)


def test_a_sweep_is_not_evaluated_as_a_whole(tmp_path, capsys):
    (tmp_path / "0123456789ab").mkdir()
    told = refused(capsys, "evaluate", tmp_path)
    assert f"{tmp_path}: is a sweep, which is not evaluated as a whole; evaluate one of its run folders" in told


def test_one_private_class_is_refused_before_anything_is_trained(configured, tmp_path, capsys):
    told = refused(capsys, "attack", configured, "--out", tmp_path / "run", "--set", "data.private=1")
    assert "data.private: 1; legal is 2 to 4" in told
    one = identity_manifest(
        np.repeat(np.arange(5), 6), ("p0", "p1", "p2", "p3", "p4"), dataset="folder", private=["p0"],
        public=["p1", "p2", "p3", "p4"], validation=0.1, test=0.2, seed=0,
    )  # fmt: skip
    one.write(tmp_path / "one.json")
    words = ["attack", configured, "--out", tmp_path / "other", "--set", f"data.manifest={tmp_path / 'one.json'}"]
    assert "data: p0 alone is private; legal is 2 or more" in refused(capsys, *words)
    assert not list(tmp_path.glob("*/training"))


def test_show_of_what_is_neither_a_file_nor_a_method(capsys):
    told = refused(capsys, "show", "image/gmii")
    assert (
        "image/gmii: neither a configuration file nor a name that `jaxmia list` knows; did you mean image/gmi" in told
    )
    assert "--set: changes configurations, and image/gmi is a method" in refused(
        capsys, "show", "image/gmi", "--set", "seed=1"
    )
    assert "configs/none.yaml: no such configuration file" in refused(capsys, "show", "configs/none.yaml")


def test_a_truncated_picture_is_named_before_anything_is_trained(configured, tmp_path, capsys):
    write_people(tmp_path / "people")
    picture = tmp_path / "people" / "p3" / "2.png"
    picture.write_bytes(picture.read_bytes()[:-40])
    words = ["attack", configured, "--out", tmp_path / "run", "--set", f"data.root={tmp_path / 'people'}"]
    assert f"picture {picture}" in refused(capsys, *words)
    assert not (tmp_path / "run" / "training").exists()


def test_a_run_folder_of_another_configuration_is_left_alone(configured, tmp_path, capsys):
    other = config.load(configured, ["seed=7"], schema)
    where = folder.open_run(tmp_path / "run", other, "jaxmia attack other.yaml", check(other).contents)
    (where / "cells").mkdir()
    before = {file: file.read_bytes() for file in where.rglob("*") if file.is_file()}
    told = refused(capsys, "attack", configured, "--out", where)
    assert f"run folder {where}: holds a run of another configuration" in told and "--out" in told
    assert {file: file.read_bytes() for file in where.rglob("*") if file.is_file()} == before
    assert "seed is another; name another folder" in told
    (where / "config.yaml").write_bytes(configured.read_bytes())
    assert "config.yaml: is not what the run was made with" in refused(capsys, "evaluate", where)


def test_a_run_without_candidates_is_not_evaluated(configured, tmp_path, capsys):
    checked = config.load(configured, (), schema)
    where = folder.open_run(tmp_path / "run", checked, "", check(checked).contents)
    assert "has no finished cell to evaluate; run `jaxmia attack` first" in refused(capsys, "evaluate", where)
    assert not (where / "training").exists()


@pytest.mark.parametrize(
    ("target", "defense", "message"),
    [
        pytest.param("convnet", "dp_sgd", "defenses (dp_sgd)", marks=pytest.mark.nightly),  # BatchNorm
        ("autoencoder", "dp_sgd", "dp_sgd: guards no pre-training"),
    ],
)
def test_a_defense_that_would_not_hold_is_refused(configured, target, defense, message, tmp_path, capsys):
    words = ["attack", configured, "--out", tmp_path / "run", "--set", f"targets={target}", f"defenses={defense}"]
    assert message in refused(capsys, *words)
    assert not (tmp_path / "run" / "training").exists()


# The engine and its folder


def counting(scale=1.0):
    """A process that adds `scale` times the case at each step."""

    def step(key, state, case):
        return state + jnp.float32(scale) * case, info(jnp.sum(state))

    return Process(lambda key, case: jnp.zeros_like(case), step, lambda state: state, 6)


CASES = np.arange(8, dtype=np.float32)


@pytest.mark.parametrize(
    ("cases", "options", "message"),
    [
        (CASES[:0], {}, "cases: there are none; give at least one case"),
        ({"a": CASES, "b": CASES[:3]}, {}, r"cases: leaves have leading axes \[\(3,\), \(8,\)\]"),
        (np.float32(1.0), {}, "cases: leaves have leading axes"),
        (CASES, {"ids": [0, 1]}, r"ids: shape \(2,\)"),
        (CASES, {"steps": -1}, "steps: -1; legal is 0 or more"),
        (CASES, {"plan": Plan(chunk=0)}, "plan.chunk: 0; legal is 1 or more"),
        (CASES, {"plan": Plan(microbatch=0)}, "plan.microbatch: 0; legal is 1 or more"),
        (CASES, {"plan": Plan(chunk=6, microbatch=4)}, "plan.chunk: 6; legal is 2, 3 or more times plan.microbatch, 4"),
        (CASES, {"plan": Plan(chunk=4, microbatch=4)}, "plan.chunk: 4; legal is 2, 3 or more times plan.microbatch, 4"),
        (
            CASES,
            {"plan": Plan(training="all")},
            "plan.training: 'all'; legal is one of one_device, data_parallel, fully",
        ),
        (CASES, {"plan": Plan(block=0)}, "plan.block: 0; legal is 1 or more"),
        (CASES, {"plan": Plan(mapper="vmap")}, "plan.mapper: 'vmap'; legal is one of shard_map, pmap"),
        (CASES, {"plan": Plan(loop="while")}, "plan.loop: 'while'; legal is one of auto, host, scan"),
    ],
)
def test_solve_refuses(cases, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        solve(counting(), KEY, cases, folder=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_64_bit_mode_is_refused(tmp_path):
    attack, batches = Attack(lambda fitted: counting()), lambda step: CASES
    with jax.enable_x64(True):
        for call in (
            lambda **how: solve(counting(), KEY, CASES, **how),
            lambda **how: fit(counting(), KEY, batches, **how),
            lambda **how: run(attack, KEY, Scenario(softmax(), CASES), **how),
        ):
            with pytest.raises(ValueError, match="jax_enable_x64: True; legal is False, since jaxmia computes in 32"):
                call(folder=tmp_path / "run", plan=QUIET)
            assert not (tmp_path / "run").exists()
            with jax.enable_x64(False):
                call(plan=QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps: 0; legal is 1 or more"), ({"plan": Plan(block=0)}, "plan.block: 0; legal is 1 or more")],
)
def test_fit_refuses(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(counting(), KEY, lambda step: CASES, folder=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_training_that_goes_non_finite_says_at_which_step():
    def step(key, state, batch):
        return state + 1, info(jnp.where(state >= 3, jnp.nan, 0.0))

    process = Process(lambda key, batch: jnp.zeros(()), step, lambda state: state, 10)
    with pytest.raises(FloatingPointError, match="fit: the loss is nan at step 4; lower the learning rate"):
        fit(process, KEY, lambda step: CASES, plan=QUIET)


def softmax(weights=None, **options):
    weights = np.eye(4, dtype=np.float32) if weights is None else weights
    return from_function(lambda w, x: x @ w, weights, classes=4, **options)


@pytest.mark.parametrize("labels", [[0, 4], [-1, 0]])
def test_a_label_that_the_target_does_not_have(labels):
    attack = Attack(lambda fitted: counting())
    with pytest.raises(ValueError, match=f"cases: label {max(labels, key=abs)}; legal is 0 to 3"):
        run(attack, KEY, Scenario(softmax(), np.array(labels, np.int32)))


FOUR = "a class index a case, 0 to 3"


@pytest.mark.parametrize(
    ("observes", "cases", "message"),
    [
        ("label", np.arange(4)[:, None], rf"cases: shape \(4, 1\); legal is {FOUR}"),
        ("label", [[0], [1]], rf"cases: shape \(2, 1\); legal is {FOUR}"),
        ("label", [0.0, 1.0], rf"cases: 0.0 \(float32\); legal is {FOUR}, an integer"),
        ("label", [True, False], rf"cases: True \(bool\); legal is {FOUR}, an integer"),
        ("label", 2, r"cases: leaves have leading axes \[\(\)\]"),
        ("label", [], "cases: there are none"),
        ("label", [0, 4], "cases: label 4; legal is 0 to 3"),
        ("label", {"label": [0]}, f"cases: dict; legal is one array, {FOUR}"),
        ("labels", [0, 1], r"cases: shape \(2,\); legal is a row of class indices a case, 0 to 3"),
        ("labels", [[0, 4]], "cases: label 4; legal is 0 to 3"),
        ("scores", ["anna", "ben"], r"cases: np.str_\('anna'\); legal is numbers, and for a class its index"),
        ("", [None, 1], "cases: None; legal is numbers"),
        ("", [[0, 1], [2]], r"cases: list is no array \(.*\); legal is numbers"),
        ("", [2**40], f"cases: {2**40}; legal is numbers of 32 bits"),
    ],
)
def test_cases_that_cannot_be_meant(observes, cases, message):
    attack = Attack(
        lambda fitted: pytest.fail("it ran"), (lambda fitted: pytest.fail("it trained"),), observes=observes
    )
    with pytest.raises(ValueError, match=message) as error:
        run(attack, KEY, Scenario(softmax(), cases, public=lambda step: None))
    assert "\n" not in str(error.value)


def test_a_target_of_one_class():
    with pytest.raises(ValueError, match="classes: 1; legal is a whole number, 2 or more"):
        from_function(lambda w, x: x @ w, np.eye(1, dtype=np.float32), classes=1)


def same():
    """A process of no steps that reads out the case."""
    return Process(lambda key, case: case * 1, lambda key, state, case: (state, info(0.0)), lambda state: state)


class Tensor:
    """What another library hands over: an array by `__array__`, or an error where it cannot be one."""

    def __init__(self, array, error=None):
        self._array, self._error, self.ndim = array, error, array.ndim

    def __array__(self, dtype=None, copy=None):
        if self._error is not None:
            raise self._error
        return self._array


@pytest.mark.nightly
def test_labels_in_every_legal_form_are_the_same_cases():
    forms = ([0, 2, 1], (0, 2, 1), np.array([0, 2, 1]), np.array([0, 2, 1], np.uint8), jnp.array([0, 2, 1]))
    for cases in (*forms, Tensor(np.array([0, 2, 1])), [np.int64(0), 2, 1]):
        for observes in ("label", ""):
            found = run(Attack(lambda fitted: same(), observes=observes), KEY, Scenario(softmax(), cases), plan=QUIET)
            assert found.output.tolist() == [0, 2, 1]
        assert solve(same(), KEY, cases, plan=QUIET).output.tolist() == [0, 2, 1]
    bad = Tensor(np.arange(3), RuntimeError("Can't call numpy() on Tensor that requires grad."))
    with pytest.raises(
        ValueError, match=r"cases: Tensor is no array \(Can't call .*\); legal is numbers, a row a case"
    ):
        solve(same(), KEY, bad, plan=QUIET)


def test_cases_that_are_no_classes_may_be_any_number():
    attack = Attack(lambda fitted: same(), observes="client_index")
    assert run(attack, KEY, Scenario(softmax(), np.arange(9)), plan=QUIET).output.tolist() == list(range(9))


def test_a_target_with_nan_weights():
    with pytest.raises(ValueError, match="params: the target has NaN or infinite weights; retrain it"):
        softmax(np.full((4, 4), np.nan, np.float32))


def test_more_access_than_granted():
    with pytest.raises(ThreatModelError, match="image/gmi needs access WEIGHTS; the target grants SCORES") as error:
        softmax(granted=Access.SCORES).view(Access.WEIGHTS, "image/gmi")
    assert "jaxmia list attacks" in str(error.value)


def test_a_host_callable_that_answers_another_shape():
    # JAX carries the error out of the callback as its own and repeats it when Python ends: in a process of its own.
    code = """if True:
        import jax, numpy as np
        from jaxmia import Access, Process, from_callable, info, solve
        answer = from_callable(lambda x: np.zeros((len(x), 3)), classes=4).view(Access.SCORES).answer
        step = lambda key, state, case: (state, info(answer(key, state)[0]))
        solve(Process(lambda key, case: jax.numpy.zeros(4), step, lambda state: state, 2), jax.random.key(0), np.arange(1))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "ValueError: predict: answered shape (1, 3), legal is [n, 4]" in done.stderr


def test_an_evaluator_that_is_a_target():
    module = models.SoftmaxRegression(4)
    target = from_linen(module, module.init(KEY, jnp.zeros((1, 4))), classes=4)
    one = Trained(Job("softmax", {"name": "softmax"}, None, ""), Fitted(target, module), {})
    accuracy = bootstrap(np.ones(4), np.arange(4))
    judge = Judge("twin", target.digest, np.asarray, np.asarray, np.zeros((4, 4)), np.arange(4), accuracy)
    with pytest.raises(ValueError, match="evaluators: twin has the parameters of target softmax .* another network"):
        _check_roles([one], Panel([judge]))
    _check_roles([one], Panel([judge._replace(digest="0" * 64)]))


def files(where):
    return {file: file.read_bytes() for file in where.rglob("*") if file.is_file()}


def stopped(where, at):
    """A solve that runs into a full disk at its part number `at`: what it leaves is what an interruption leaves."""
    save, saved = checkpoint.save_part, []

    def full(*arguments):
        saved.append(arguments)
        if len(saved) == at:
            raise OSError(errno.ENOSPC, "no space")
        save(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_part", full)
        with pytest.raises(OSError, match="no space"):
            solve(counting(), KEY, CASES, folder=where, plan=QUIET._replace(devices=tuple(jax.devices()[:1])))


def resumed(where):
    return solve(counting(), KEY, CASES, folder=where, plan=QUIET._replace(devices=tuple(jax.devices()[:1])))


@pytest.mark.parametrize(
    "damage", ["array", *(pytest.param(how, marks=pytest.mark.nightly) for how in ("manifest", "missing"))]
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(damage, tmp_path):
    stopped(tmp_path, at=2)
    newest, before = checkpoint.saved_steps(tmp_path)[:2]
    if damage == "manifest":
        (tmp_path / f"step-{newest}.json").write_text('{"version": 1, "st')
    else:
        for file in [file for file in (tmp_path / f"step-{newest}").rglob("*") if file.is_file()]:
            file.write_bytes(b"") if damage == "array" else file.unlink()
    with pytest.warns(UserWarning, match=f"step-{newest} cannot be used .*; trying the one before"):
        result = resumed(tmp_path)
    np.testing.assert_array_equal(result.output, 6 * CASES)
    assert before == newest - 1


def test_a_damaged_part_is_told_and_its_cases_run_again(tmp_path):
    stopped(tmp_path, at=3)
    first, second = sorted(tmp_path.glob("part-*.npz"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    kept = second.stat().st_mtime_ns
    with pytest.warns(UserWarning, match=f"{first.name} is damaged .* its cases run again"):
        result = resumed(tmp_path)
    np.testing.assert_array_equal(result.output, 6 * CASES)
    assert second.stat().st_mtime_ns == kept
    assert first.with_suffix(".damaged").read_bytes() == bytes(content)


@pytest.mark.parametrize("work", ["solve", "fit"])
def test_a_folder_of_other_work_is_refused_and_left_alone(work, tmp_path):
    def work_on(process):
        if work == "solve":
            return solve(process, KEY, CASES, folder=tmp_path, plan=QUIET)
        return fit(process, KEY, lambda step: CASES, folder=tmp_path, plan=QUIET)

    work_on(counting())
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"folder {tmp_path}: holds .* name an empty folder, or delete this one"):
        work_on(counting(scale=2.0))
    assert files(tmp_path) == before


def test_a_damaged_owner_mark_is_named(tmp_path):
    stopped(tmp_path, at=2)
    (tmp_path / "run.json").write_text('{"finge')
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}/run.json: damaged .* delete {tmp_path}"):
        resumed(tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there_and_names_the_file(call, tmp_path, monkeypatch):
    path = tmp_path / "cell.json"
    checkpoint.write_atomically(path, b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=rf"{path}: cannot be written \(No space left on device\)") as error:
        checkpoint.write_atomically(path, b"after")
    assert error.value.errno == errno.ENOSPC
    assert files(tmp_path) == {path: b"before"}


def test_a_full_disk_during_a_solve_loses_no_finished_case(tmp_path):
    stopped(tmp_path, at=3)
    parts = {part: part.stat().st_mtime_ns for part in tmp_path.glob("part-*.npz")}
    assert len(parts) == 2
    np.testing.assert_array_equal(resumed(tmp_path).output, 6 * CASES)
    assert {part: part.stat().st_mtime_ns for part in parts} == parts


def test_a_checkpoint_that_does_not_fit_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    tree = {"a": np.arange(1000.0)}
    checkpoint.save(tmp_path, 1, tree, identity={"program": "mine"})
    before = files(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=7999))
    with pytest.raises(OSError, match=rf"checkpoint {tmp_path}/step-2: cannot be written \(7 KiB free, 7 KiB needed\)"):
        checkpoint.save(tmp_path, 2, tree, identity={"program": "mine"})
    assert files(tmp_path) == before
    loaded = checkpoint.load_newest(tmp_path, tree, identity={"program": "mine"})
    assert loaded is not None and loaded[0] == 1


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_an_archive_writes_nothing_outside_or_anywhere(suffix, tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    archive, members = inside / f"a{suffix}", {"../escaped.txt": b"x", f"{tmp_path}/absolute.txt": b"y", "good": b"z"}
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            for name, content in members.items():
                target.writestr(name, content)
    else:
        with tarfile.open(archive, "w:gz") as target:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                target.addfile(member, io.BytesIO(content))
    monkeypatch.chdir(inside)
    for name, content in members.items():
        assert read_member(archive, name, limit_bytes=9) == content
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_a_zip_bomb_is_refused_without_unpacking_it(tmp_path):
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("zeros", bytes(1 << 24))
    assert archive.stat().st_size < 1 << 16
    with pytest.raises(ValueError, match="member 'zeros' of .* is larger than the limit of 1024 bytes"):
        read_member(archive, "zeros", limit_bytes=1024)
