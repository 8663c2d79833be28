"""`jaxmia plan`: what programs need, on made-up data; nothing is read, fetched or run."""

import importlib
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from jaxmia import cli, config
from jaxmia.audit import modality_of, planning, schema
from jaxmia.data import faces

CONFIGS = pathlib.Path(__file__).parent.parent.parent / "configs"
SLICED = importlib.import_module("jaxmia.recipes.sliced")
ORL = """
data: {name: orl, height: 16, width: 16}
targets: {name: softmax, steps: 7}
evaluators: {name: wide_mlp, width: 8}
prior: {name: eigenfaces, components: 5}
decoder: {width: 4}
attacks:
  - {name: image/gmi, steps: 9, restarts: 2}
  - {name: image/tb_mia, steps: 3}
"""
FACES = """
data: {name: folder, root: nowhere, size: 16, private: 4, public_root: nowhere}
targets: {name: softmax, steps: 2}
evaluators: {name: wide_mlp, width: 8}
prior: {name: stylegan2, weights: absent.safetensors, resolution: 16, crop: 16, latent: 8, mapping_layers: 1,
        channel_base: 128, channel_max: 8}
attacks: {name: image/ppa, pool: 5000, starts: 1, steps: 2, views: 2}
"""


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch, tmp_path):
    def refuse(*arguments, **keywords):
        raise AssertionError("data, weights or surveys were asked for")

    for module, name in (("data.orl", "load"), ("data.mnist", "load"), ("data.fair", "load"), ("data.adult", "load")):
        monkeypatch.setattr(f"jaxmia.{module}.{name}", refuse)
    monkeypatch.setattr("jaxmia.models.pretrained.read", refuse)
    monkeypatch.setattr(faces, "load_weights", refuse)
    monkeypatch.setenv("JAXMIA_CACHE", str(tmp_path / "cache"))


def checked(text, tmp_path, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return config.load(path, overrides, schema)


@pytest.mark.nightly
def test_the_verb_prints_and_keeps_every_program(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(ORL)
    command = ["plan", str(tmp_path / "config.yaml"), "--json", str(tmp_path / "plan.json")]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    head, *lines = [re.split("  +", line) for line in out.splitlines()]
    assert head[0] == "part"
    assert [row[:2] for row in lines] == [
        ["target softmax", "init"], ["target softmax", "step"],
        ["evaluator wide_mlp", "init"], ["evaluator wide_mlp", "step"],
        ["gmi on softmax", "init"], ["gmi on softmax", "step"], ["gmi on softmax", "read"],
        ["tb_mia on softmax", "stage 1 init"], ["tb_mia on softmax", "stage 1 step"],
        ["tb_mia on softmax", "init"], ["tb_mia on softmax", "read"],
    ]  # fmt: skip
    assert err.count("compiling: ") == 4
    stored = json.loads((tmp_path / "plan.json").read_text())
    rows = [planning.Row(**row) for part in stored["parts"].values() for row in part]
    assert {row.steps for row in rows if row.program == "step"} == {7, 800, 9}
    assert all(row.bytes > 0 and row.seconds is None for row in rows) and stored["backend"] == "cpu"
    assert all(row.chunk == 20 for row in rows if " on " in row.part and "stage" not in row.program)
    assert cli.main(command) == 0
    again, err = capsys.readouterr()
    assert again == out and "compiling" not in err
    assert cli.main([*command, "--limit", "40"]) == 2
    assert "plan.json: is of cpu, jax" in capsys.readouterr().err
    (tmp_path / "plan.json").write_text("[]")
    assert cli.main(command) == 2 and "plan.json: is no plan" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--limit", "0"], ["--public", "-3"]])
def test_refuses(wrong, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(ORL)
    assert cli.main(["plan", str(tmp_path / "config.yaml"), *wrong]) == 2
    assert f"{wrong[0]}: {float(wrong[1]) if wrong[0] == '--limit' else wrong[1]}; legal" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_pool_at_once_is_over_the_limit_and_in_slices_it_fits(tmp_path, monkeypatch):
    """A pool of 5,000 images; weights and pictures are nowhere, and not missed."""
    limit, init = 50_000_000, {}
    for name, most in (("at once", 2**40), ("sliced", 2**23)):
        monkeypatch.setattr(SLICED, "SLICE_BYTES", most)
        rows = planning.plan(checked(FACES, tmp_path), limit=limit)
        init[name] = next(row for row in rows if row.part == "ppa on softmax" and row.program == "init")
        fits = [cells[3] for cells in planning.table([init[name]], limit)]
        assert fits == [{"at once": "no", "sliced": "yes"}[name]], init[name]
    assert init["at once"].slices == 1 and init["sliced"].slices > 10
    assert init["sliced"].flops == init["at once"].flops > 0


@pytest.mark.nightly
def test_weights_of_a_target_are_made_up(tmp_path):
    wanted = "targets=[{name: vgg16, width: 2, weights: absent.safetensors, frozen: true}]"
    written = checked(FACES, tmp_path, wanted, "data.size=32")
    parts = {part: work for part, _, work in planning._parts(written, False, planning.LIMIT, planning.PUBLIC)}
    init, step = parts["target vgg16"]()
    assert step.program == "step" and step.steps == 21000 and step.bytes > init.bytes


@pytest.mark.nightly
def test_with_time_two_steps_are_run(tmp_path):
    rows = planning.plan(checked(ORL, tmp_path, "attacks=[{name: image/tb_mia, steps: 3}]"), timed=True)
    assert all(row.seconds is not None and row.seconds > 0 for row in rows)


def test_operations_are_counted_in_loops_as_often_as_they_run():
    x, kernel = jnp.ones((5, 7)), jnp.ones((3, 3, 2, 4))
    matrix = jnp.ones((7, 11))
    image = jnp.ones((1, 8, 8, 2))

    def flops(fn, *arguments):
        return planning._walk(jax.make_jaxpr(fn)(*arguments).jaxpr)[1]

    assert flops(jnp.matmul, x, matrix) == 2 * 5 * 7 * 11
    assert flops(lambda x: jax.lax.scan(lambda c, _: (c, x @ matrix), 0, None, length=6)[1], x) == 6 * 2 * 5 * 7 * 11
    dimensions = ("NHWC", "HWIO", "NHWC")
    convolved = lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)  # noqa: E731
    assert flops(convolved, image) == 2 * 64 * 4 * 9 * 2
    branches = lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ matrix, lambda: jnp.zeros((5, 11)))  # noqa: E731
    assert flops(branches, x) == 2 * 5 * 7 * 11
    assert flops(jax.jit(lambda x: x + 1), x) == 0


@pytest.mark.nightly
def test_seeds_are_one_cell_and_settings_are_several(tmp_path):
    swept = checked(ORL + "sweep: {seed: [0, 1, 2], data.split_seed: [0, 1]}\n", tmp_path)
    assert len(planning._cells(swept)) == 1
    swept = checked(ORL + "sweep: {seed: [0, 1], attacks.0.restarts: [1, 3]}\n", tmp_path)
    assert len(planning._cells(swept)) == 2


@pytest.mark.nightly
@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_has_a_plan(path):
    if path.stem == "particular_images":  # of a script, and no audit's
        return
    told = config.load(path, [], schema)
    for cell in planning._cells(told)[:1]:
        parts = [part for part, _, _ in planning._parts(cell, False, planning.LIMIT, planning.PUBLIC)]
        attacks = cell["attacks"] if isinstance(cell["attacks"], list) else [cell["attacks"]]
        assert sum(" on " in part for part in parts) % len(attacks) == 0 and len(set(parts)) == len(parts)


def test_made_up_data_has_the_shapes_of_the_configuration():
    """Programs see minibatches of public pictures; a gallery is as large as they are many, and takes room when touched."""
    for name, public in (("ffhq_celeba64", 70_000), ("celeba64", 30_000)):
        told = config.load(CONFIGS / "paper" / f"{name}.yaml", [], schema)
        made = modality_of(told).made_up(told, 70_000)
        pictures = made.data.split.public.images
        assert made.inputs["gallery"].shape == (public, 64, 64, 3) and len(made.data.names) == 1000
        assert pictures.shape[1:] == (64, 64, 3) and 300 < len(pictures) <= public
        assert pictures.base.size == 1 or pictures.strides == (0, 0, 0, 0)
    told = config.load(CONFIGS / "demo_records.yaml", [], schema)
    made = modality_of(told).made_up(told, 70_000)
    real = [told["data"]["members"], told["data"]["members"], told["data"]["public"]]
    assert [len(part) for part in made.data.parts] == real and len(made.data.codes) == sum(real)
