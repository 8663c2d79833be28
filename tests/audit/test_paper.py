"""The configurations of configs/paper on made-up pictures and weights: everything fits together, and small ones run."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image

from jaxmia import config
from jaxmia.audit import schema, targets
from jaxmia.audit.assembly import check
from jaxmia.audit.run import audit
from jaxmia.data import celeba, faces, identity_manifest
from jaxmia.data.splits import most_frequent
from jaxmia.modalities.image import data as scenes
from jaxmia.modalities.image import zoo
from jaxmia.modalities.image.priors import stylegan2
from jaxmia.models import face_networks
from jaxmia.models.face_networks import VGG16, IRNetwork
from jaxmia.models.pretrained import names, published, read
from jaxmia.models.stylegan2 import StyleGAN2
from tests.models.compiled import compiled

PAPER = pathlib.Path(__file__).parent.parent.parent / "configs" / "paper"
PEOPLE = {"zoe": 8, "adam": 10, "eva": 8, "max": 9}


def picture(path, rng, tint, rows, columns):
    """A colored face-like blob with noise."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    blob = np.exp(-(x**2 + y**2) * 3)[..., None] * tint
    pixels = np.clip(255 * (0.2 + 0.6 * blob) + 12 * rng.normal(size=(rows, columns, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save(module, shape, layout, path):
    """Random weights of a module, by their published names in PyTorch's shapes."""
    from safetensors.numpy import save_file

    variables, rng = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape))), np.random.default_rng(1)
    back, tensors = {4: (3, 2, 0, 1), 3: (2, 0, 1), 2: (1, 0)}, {}
    for name, leaf in zip(names(variables, layout), jax.tree.leaves(variables)):
        order = range(leaf.ndim) if name.endswith("noise_const") else back.get(leaf.ndim, range(leaf.ndim))
        tensors[name] = rng.uniform(0.05, 0.2, [leaf.shape[axis] for axis in order]).astype(np.float32)
    save_file(tensors, path)


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """One block a stage: of the published depths, which test_pretrained.py covers, all is traced and compiled for long."""
    with pytest.MonkeyPatch.context() as patch:
        for table in (face_networks._IR_BLOCKS, face_networks._RESNET_BLOCKS):
            for depth in table:
                patch.setitem(table, depth, (1, 1, 1, 1))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory, shallow):
    root, rng = tmp_path_factory.mktemp("paper"), np.random.default_rng(0)
    tints, row, lists = {name: rng.uniform(size=3) for name in PEOPLE}, 0, ([], [])
    for number, (name, photos) in enumerate(PEOPLE.items()):
        for photo in range(photos):
            picture(root / "data/facescrub" / name / f"{photo}.png", rng, tints[name], 40, 30)
            picture(root / "data/celeba_hd" / name / f"{photo}.png", rng, tints[name], 40, 40)
            row += 1
            picture(root / f"data/celeba/img_align_celeba/{row:06}.jpg", rng, tints[name], 218, 178)
            lists[0].append(f"{row:06}.jpg {number + 5}")
            lists[1].append(f"{row:06}.jpg {number % 3}")
    (root / "data/celeba/identity_CelebA.txt").write_text("\n".join(lists[0]))
    (root / "data/celeba/list_eval_partition.txt").write_text("\n".join(lists[1]))
    for photo in range(12):
        for folder in ("ffhq", "ffhq128"):
            picture(root / f"data/{folder}/0000{photo % 2}/{photo}.png", rng, rng.uniform(size=3), 128, 128)
    (root / "weights").mkdir()
    module = StyleGAN2(16, 3, 8, 2, 64, 8)
    save(module, (1, 8), "nvidia", root / "weights/ffhq.safetensors")
    save(IRNetwork(9, 50, 2), (1, 112, 112, 3), "evolve", root / "weights/ir50.safetensors")
    save(IRNetwork(9, 152, 2), (1, 112, 112, 3), "evolve", root / "weights/ir152.safetensors")
    save(VGG16(9, 2), (1, 64, 64, 3), "torchvision", root / "weights/vgg16_bn.safetensors")
    for depth in (18, 50, 152):
        module = zoo.TARGETS[f"resnet{depth}"](width=2).module(9, (32, 32, 3))
        save(module, (1, 32, 32, 3), "torchvision", root / f"weights/resnet{depth}.safetensors")
    return root


@pytest.fixture(autouse=True)
def inside(home, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(home)
    monkeypatch.setenv("JAXMIA_CACHE", str(home / "cache"))

    def nowhere():
        raise OSError("no face embedding in this test")

    monkeypatch.setattr(faces, "load_weights", nowhere)


def stages(attack):
    """As many as a generator of 16 pixels has blocks."""
    return [f"attacks.{attack}.steps=[2, 2, 2]", f"attacks.{attack}.radii=[9.0, 9.0, 9.0]"]


WIDTHS = ["targets.0.width=2", "targets.1.width=2", "evaluators.0.width=2", "data.size=32"]
AT_64 = ["data.private=2", "attacked_classes=1", "targets.2.width=2", "prior.batch_size=2"]
SMALL = {
    "celeba64.yaml": [*AT_64, "networks.width=2", "attacks.2.top=3"],
    "celeba64_black_box.yaml": AT_64,
    "ffhq_celeba64.yaml": [*AT_64, "networks.width=2", "attacks.2.top=3"],
    "facescrub224.yaml": ["data.private=4", *stages(1)],
    "facescrub224_mirror.yaml": ["data.private=4"],
    "celeba224.yaml": ["data.private=3", *stages(1)],
}
TINY_STYLEGAN2 = ["resolution=16", "crop=12", "latent=8", "mapping_layers=2", "channel_base=64", "channel_max=8"]


def load(name, *overrides):
    small = [*SMALL[name], *WIDTHS]
    if "224" in name:
        small += [f"prior.{one}" for one in TINY_STYLEGAN2]
    return config.load(PAPER / name, [*small, *overrides], schema)


def test_every_protocol_is_here():
    assert {path.name for path in PAPER.glob("*.yaml")} == SMALL.keys()


@pytest.mark.nightly
@pytest.mark.parametrize("name", SMALL)
def test_everything_fits_together(name):
    """Pictures and weights are read, and every training stage is traced."""
    checked = load(name)
    if name == "ffhq_celeba64.yaml":  # targets and attacks are those of celeba64.yaml
        checked |= {part: checked[part][:1] for part in ("targets", "attacks")}
    scene = check(checked)
    people = {"celeba64.yaml": ("6", "8"), "facescrub224.yaml": tuple(PEOPLE), "celeba224.yaml": ("adam", "max")}
    assert set(people.get(name, ())) <= set(scene.names)
    assert len(scene.split.public.labels) == (12 if "ffhq" in name or "224" in name else 16)
    assert scene.split.train.images.shape[1:] == (32, 32, 3) and len(scene.split.validation.labels) == 0


def attacks_of(name):
    return {(section["name"], section.get("base", {}).get("name")): section for section in load(name)["attacks"]}


@pytest.mark.parametrize(("name", "public"), [("celeba64.yaml", 30_000), ("ffhq_celeba64.yaml", 70_000)])
def test_lomma_is_that_of_its_paper(name, public):
    """z is clipped to 1 on KED-MI; surrogates learn for 20 epochs in batches of 64; 5,000 images for the moments."""
    batch = load(name)["public_batch"]
    assert batch == 64
    for base in ("image/gmi", "image/ked_mi"):
        section = attacks_of(name)["image/lomma", base]
        assert section["distill_steps"] == 20 * public // batch
        assert (section["moments_steps"] - 1) * batch < 5000 <= section["moments_steps"] * batch
        assert section["base"].get("bound") == (1.0 if base == "image/ked_mi" else None)


@pytest.mark.parametrize(("name", "latents"), [("facescrub224.yaml", 2000), ("celeba224.yaml", 5000)])
def test_pools_are_a_fiftieth_of_the_papers(name, latents):
    for attack in ("image/ppa", "image/if_gmi"):
        assert attacks_of(name)[attack, None]["pool"] == latents // 50
    assert f"best of a pool of\n# {latents // 50}" in (PAPER / name).read_text() or (
        f"best of a pool of {latents // 50}" in (PAPER / name).read_text()
    )


@pytest.mark.nightly
def test_a_small_run_from_published_weights(tmp_path):
    wanted = load(
        "facescrub224.yaml", "targets=[{name: resnet18, width: 2, weights: weights/resnet18.safetensors, steps: 3}]",
        "evaluators=[{name: resnet50, width: 2, size: 40, steps: 2}]", "candidates=1",
        "attacks=[{name: image/ppa, steps: 2, pool: 3, starts: 2, views: 2}]",
    )  # fmt: skip
    assert audit([(wanted, tmp_path)]) == {}
    record = json.loads((tmp_path / "cells/resnet18--ppa/cell.json").read_text())
    assert record["n"] == 4 and record["failed"] == 0
    with np.load(tmp_path / "cells/resnet18--ppa/candidates.npz", allow_pickle=False) as arrays:
        assert arrays["candidates"].shape == (4, 32, 32, 3)
    assert json.loads((tmp_path / "targets.json").read_text())[0]["dataset"].startswith("folder ")


@pytest.mark.nightly
def test_a_frozen_target_is_the_file_itself(home, tmp_path):
    from safetensors.numpy import load_file

    save(IRNetwork(2, 50, 2), (1, 32, 32, 3), "face", home / "weights/target.safetensors")
    wanted = load(
        "celeba64.yaml",
        "attacks=[image/gmi]",
        "targets=[{name: ir50, width: 2, weights: weights/target.safetensors, layout: face, frozen: true}]",
    )
    one = targets.train(wanted, tmp_path, check(wanted))[0].fitted
    tensors = load_file(home / "weights/target.safetensors")
    told = dict(zip(names(one.target.params, "face"), jax.tree.leaves(one.target.params)))
    assert told.keys() == tensors.keys()
    for name in ("fc_layer.weight", "feature.input_layer.1.running_mean"):
        np.testing.assert_array_equal(np.asarray(told[name]).T, tensors[name], err_msg=name)
    with pytest.raises(ValueError, match=r"targets \(ir50\): frozen"):
        check(load("celeba64.yaml", "attacks=[image/gmi]", "targets=[{name: ir50, width: 2, frozen: true}]"))
    with pytest.raises(ValueError, match=r"targets \(ir50\).*fc_layer.weight is \[2, 512\] and not \[3, 512\]"):
        prior = {**wanted["prior"], "batch_size": 1}  # fewer people are public
        check({**wanted, "prior": prior, "data": {**wanted["data"], "private": 3}})


def test_pictures_and_their_division_are_pinned_by_a_digest(home):
    images = celeba("data/celeba", 32)
    assert most_frequent(images.labels, images.names, 2) == ("6", "8")
    first = scenes.celeba(root="data/celeba", size=32, private=2)
    made = scenes.celeba(root="data/celeba", size=32, private=2, sha256=first.digest)
    assert made.name == f"celeba {first.digest[:12]}"
    with pytest.raises(ValueError, match="data.sha256: .* cut, resized or divided otherwise"):
        scenes.celeba(root="data/celeba", size=32, private=2, split_seed=1, sha256=first.digest)
    other = identity_manifest(
        images.labels, images.names, dataset="celeba", private=["5"], public=["7"], validation=0.2, test=0.2
    )
    other.write("division.json")
    read = scenes.celeba(root="data/celeba", size=32, manifest="division.json")
    assert read.names == ("5",) and len(read.split.public.labels) == 8 and len(read.split.validation.labels) == 2
    assert read.digest != first.digest
    with pytest.raises(FileNotFoundError, match="data.manifest: 'absent.json'"):
        scenes.celeba(root="data/celeba", size=32, manifest="absent.json")


def test_public_pictures_may_come_from_elsewhere(home):
    made = scenes.folder(
        root="data/facescrub", size=32, private=4, public_root="data/ffhq", public_crop=16, public_most=5
    )
    assert len(made.split.public.labels) == 5 and len(made.names) == 4
    whole = scenes.folder(root="data/facescrub", size=32, private=4, public_root="data/ffhq")
    assert len(whole.split.public.labels) == 12
    # The middle of a blob is brighter than the whole picture.
    assert made.split.public.images.mean() > whole.split.public.images.mean() + 20
    with pytest.raises(ValueError, match="data.private: 4; legal is 2 to 3, some people must stay public"):
        scenes.folder(root="data/facescrub", size=32, private=4)
    with pytest.raises(FileNotFoundError, match="data.public_root: 'absent'"):
        scenes.folder(root="data/facescrub", size=32, private=4, public_root="absent")


@pytest.mark.nightly
def test_weights_that_are_not_there_are_told_before_work():
    for change, message in (
        ("targets.0.weights=weights/absent.safetensors", "absent.safetensors"),
        ("prior.weights=weights/absent.safetensors", "prior.weights: 'weights/absent.safetensors'"),
        ("prior.weights=weights/vgg16_bn.safetensors", "prior: weights in the layout 'nvidia' do not fit"),
        ("prior.crop=17", "prior: crop: 17; legal is 1 to the resolution, 16"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            check(load("facescrub224.yaml", "attacks=[image/ppa]", change))


def test_with_a_cutoff_w_is_free_and_truncated_as_it_is_painted():
    """As MIRROR has it: w is drawn untruncated, and the image is that of w truncated in its first layers."""
    options = {key: int(value) for key, value in (pair.split("=") for pair in TINY_STYLEGAN2)}
    given = {"weights": "weights/ffhq.safetensors", "psi": 0.7, **options}
    made = stylegan2(np.zeros((1, 12, 12, 3)), None, cutoff=2, **given)
    whole = stylegan2(np.zeros((1, 12, 12, 3)), None, **given)
    module = StyleGAN2(16, 3, 8, 2, 64, 8)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8))))
    variables = published(shapes, read("weights/ffhq.safetensors"), "nvidia")
    key, mean = jax.random.key(1), np.asarray(variables["batch_stats"]["mapping"]["w_avg"])
    w, near = compiled(made.init)(key), compiled(whole.init)(key)
    np.testing.assert_allclose(near, mean + 0.7 * (np.asarray(w) - mean), atol=1e-5)
    assert np.abs(w - near).max() > 1e-3
    layers = jnp.stack([near] * 2 + [w] * 4)
    image = compiled(lambda w: module.apply(variables, w[None], method="synthesize"))(layers)[0, 2:14, 2:14]
    np.testing.assert_allclose(compiled(made.decode)(w), jnp.clip(image, 0, 1), atol=1e-5)


def test_mirror_is_that_of_its_paper():
    """Eight runs from a pool of 100,000; w is truncated by 0.7 in its first eight layers, as it is painted."""
    section, prior = (
        attacks_of("facescrub224_mirror.yaml")["image/mirror", None],
        load("facescrub224_mirror.yaml")["prior"],
    )
    assert (section["starts"], section["pool_steps"] * section["pool_draws"]) == (8, 100_000)
    assert (section["steps"], section["rate"], prior["psi"], prior["cutoff"]) == (20_000, 0.25, 0.7, 8)


def test_blocks_of_the_stylegan2_are_its_image():
    options = dict(one.split("=") for one in TINY_STYLEGAN2)
    options = {key: int(value) for key, value in options.items()}
    made = stylegan2(np.zeros((1, 12, 12, 3)), None, weights="weights/ffhq.safetensors", **options)
    w = compiled(made.init)(jax.random.key(1))
    module = StyleGAN2(16, 3, 8, 2, 64, 8)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8))))
    variables = published(shapes, read("weights/ffhq.safetensors"), "nvidia")
    image = compiled(lambda w: module.apply(variables, w[None], method="synthesize"))(w)[0, 2:14, 2:14]
    assert len(made.blocks) == 3
    np.testing.assert_allclose(compiled(made.decode)(w), jnp.clip(image, 0, 1), atol=1e-5)


def test_the_black_box_protocol_says_how_many_it_attacks_and_lets_them_end():
    text = (PAPER / "celeba64_black_box.yaml").read_text("utf-8")
    section = yaml.safe_load(text)
    assert f"{section['attacked_classes']} of the 1,000 people" in text.replace("\n# ", " ")
    brep_mi, rlb_mi = section["attacks"]
    assert brep_mi["budget"] == 10_000 * (brep_mi["points"] + 1)
    assert rlb_mi["budget"] == 3 * rlb_mi["steps"]


@pytest.mark.parametrize("name", ["celeba64", "facescrub224", "ffhq_celeba64"])
def test_a_plan_reads_no_weights_of_targets_evaluators_or_priors(name):
    written = config.load(PAPER / f"{name}.yaml", [], schema)
    assert any(section["weights"] for section in written["evaluators"] + written["targets"])
    planned = scenes.made_up(written, 1000).config
    assert all("weights" not in section for section in planned["evaluators"] + planned["targets"])
    assert (planned["prior"] or {}).get("weights", scenes.MADE_UP) == scenes.MADE_UP
