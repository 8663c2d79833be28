"""The audit of image classifiers: attacks that build on others, that observe batches of labels, or smashed features."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmia import Access, cli, config, from_linen, models
from jaxmia.audit import folder, modality_of, run, schema, targets
from jaxmia.audit.assembly import assemble, check
from jaxmia.audit.inputs import Inputs
from jaxmia.audit.modality import Fitted
from jaxmia.core import Process, info
from jaxmia.data import minibatches, to_float
from jaxmia.modalities import image
from jaxmia.modalities.image import inputs as supplied
from jaxmia.modalities.image.inputs import INPUTS
from jaxmia.modalities.image.priors import PRIORS, eigenfaces
from tests.tiny import write_config

ATTACKS = """attacks:
  - {name: image/align_mi, neighbors: 2, base: {name: image/gmi, steps: 3, restarts: 1}}
  - {name: image/lomma, feature: inner/penultimate, distill_steps: 3, moments_steps: 1, base: {name: image/gmi, steps: 3}}
  - {name: image/deep_inversion, steps: 3, warmup: 1, jitter: 1, moments: 0.0}
  - {name: image/rmle, steps: 3}
  - {name: image/inverse_network, steps: 3}
split: inner/penultimate
networks: {width: 4, surrogates: [softmax]}
attacked_classes: 2
"""


def written(folder, attacks=ATTACKS):
    path = write_config(folder)
    text = path.read_text(encoding="utf-8").split("attacks:")[0]
    path.write_text(f"{text}candidates: 2\n{attacks}", encoding="utf-8")
    return path


@pytest.mark.nightly
def test_each_kind_of_observation_ends_in_one_picture_per_case(tmp_path, monkeypatch):
    for name in ("JAXMIA_CACHE", "PATH"):  # no npm, hence no face embedding, which takes its time
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    checked = config.load(written(tmp_path), [], schema)
    where = folder.open_run(tmp_path / "run", checked, "test", check(checked).contents)
    assert run.audit([(checked, where)]) == {}
    cells = {path.parent.name.partition("--")[2]: path.parent for path in where.glob("cells/softmax--*/cell.json")}
    assert set(cells) == {"align_mi_gmi", "lomma_gmi", "deep_inversion", "rmle", "inverse_network"}
    for name, cell in cells.items():
        with np.load(cell / "candidates.npz", allow_pickle=False) as arrays:
            assert arrays["candidates"].shape == (4, 12, 12, 3)
            assert arrays["targets"].tolist() == [0, 1, 0, 1]
            assert ("pairs" in arrays.files) == (name in ("rmle", "inverse_network"))
            # Two candidates of a class are two cases, with random numbers or victims of their own.
            assert np.abs(arrays["candidates"][:2] - arrays["candidates"][2:]).max() > 1e-5, name
    record = json.loads(
        (cells["inverse_network"] / "cell.json").read_text()
    )  # three minibatches of the 12 public images
    assert record["queries"] == {"mean": 0.0, "max": 0, "training": 36}
    record = json.loads((cells["align_mi_gmi"] / "cell.json").read_text())
    assert record["queries"] is None
    assert record["hyperparameters"]["base"]["name"] == "image/gmi"
    assert record["hyperparameters"]["base"]["steps"] == 3


def test_defenses_act_together_and_a_guard_is_fitted_to_validation_pictures_once(tmp_path, monkeypatch):
    for name in ("JAXMIA_CACHE", "PATH"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    together = "defenses: [[{name: label_smoothing, alpha: -0.01}, stealthy_shield], {name: rounding, level: 2.0}]\n"
    checked = config.load(
        written(tmp_path, together + "attacks: {name: image/gmi, steps: 3, restarts: 1}\n"), [], schema
    )
    where = folder.open_run(tmp_path / "run", checked, "test", check(checked).contents)
    assert run.audit([(checked, where)]) == {}
    record = {entry["name"]: entry for entry in json.loads((where / "targets.json").read_text())}
    assert set(record) == {"softmax", "softmax+label_smoothing_and_stealthy_shield", "softmax+rounding"}
    assert record["softmax+label_smoothing_and_stealthy_shield"]["defense"] == "label_smoothing and stealthy_shield"
    trained = next(where.rglob("softmax+label_smoothing_and_stealthy_shield"))
    assert (trained / "guard").is_dir()
    # Every confidence rounds to nothing, so that it is class 0 that is served: accuracy is of what is served.
    assert record["softmax"]["test_accuracy"]["value"] > 0.9
    np.testing.assert_allclose(record["softmax+rounding"]["test_accuracy"]["value"], 1 / 3)
    with pytest.raises(ValueError, match="dp_sgd takes gradients example by example, and bido ties"):
        check(config.load(written(tmp_path, "defenses: [[bido, dp_sgd]]\nattacks: image/mi_face\n"), [], schema))


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        ("{name: image/align_mi}", "attacks.base.name: missing"),
        ("{name: image/align_mi, base: image/gmmi}", "attacks.base.name: there is no 'image/gmmi', did you mean image/gm"),
        ("{name: image/align_mi, base: {name: image/gmi, stesp: 1}}", "attacks.base.stesp: unknown key, did you mean st"),
        ("{name: image/gmi, base: image/gmi}", "attacks.base: unknown key"),
        ("{name: image/lomma, base: image/mi_face}", "attacks (image/lomma): base: it takes no objective"),
        ("image/informed_adversary", "observes other_records, which an audit of modality image does not show; it sh"),
        ("image/rmle\nsplit: block9", "feature: 'block9'; the target shows inner/penultimate"),
        ("image/mi_face\nnetworks: {surrogates: [lenet]}", "networks: surrogates: lenet; legal is some of softmax"),
        ("image/secret_gen", "attacks (image/secret_gen): feature: 'penultimate'; the target shows inner/penultimate"),
        ("image/deep_inversion", "moments: 'batch_norm/<i>/<path>'; the target shows inner/penultimate"),
        ("image/mi_face\nnetworks: {width: 0}", "networks: width: 0; legal is 1 or more"),
        ("image/mi_face\nattacked_classes: 4", "attacked_classes: 4; legal is 1 to the 3 private classes, or 0 for all"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_anything_is_trained(attack, told, tmp_path, capsys):
    path = written(tmp_path, f"attacks: {attack}\n")
    assert cli.main(["attack", str(path), "--out", str(tmp_path / "run")]) == 2
    assert told in capsys.readouterr().err


def test_reconstruction_starts_at_the_image_that_the_targets_mean_takes_to_zero(tmp_path):
    checked = config.load(written(tmp_path, "attacks: image/kkt\n"), [], schema)
    plain = models.SoftmaxRegression(3)
    given = Inputs(modality_of(checked), checked, check(checked), lambda *_: pytest.fail("trained"))
    for module, center in ((models.CenteredInput(plain), 0.5), (plain, 0.0)):
        variables = module.init(jax.random.key(0), jax.numpy.zeros((1, 12, 12, 3)))
        fitted = Fitted(from_linen(module, variables, classes=3), module)
        attack, access = assemble(checked["attacks"], given.of(fitted))
        assert access == Access.WEIGHTS
        state = attack.solve(()).init(jax.random.key(1), np.zeros(8, np.int32))
        assert abs(float(np.mean(state.x)) - center) < 0.01


SHOWN = """attacks:
  - {name: image/xai_aware, steps: 2}
  - {name: image/data_free_split, steps: 2, batch: 2}
  - {name: image/unsplit, rounds: 1, image_steps: 2, clone_steps: 2, rate: 0.1}
  - {name: image/secret_gen, gan_steps: 2, gan_batch: 2, latents: 3, patches: 2, steps: 2}
split: block2
networks: {width: 2}
public_batch: 2
candidates: 1
"""


@pytest.mark.nightly
def test_explanations_blocks_and_masked_images_are_shown(tmp_path, monkeypatch):
    for name in ("JAXMIA_CACHE", "PATH"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    path = written(tmp_path, SHOWN)
    text = path.read_text(encoding="utf-8").replace("size: 12", "size: 32").replace("candidates: 2\n", "")
    target = "targets: {name: convnet, widths: [2, 3, 2], hidden: 4, steps: 2}"
    path.write_text(text.replace("targets: {name: softmax, steps: 30, rate: 0.1}", target), encoding="utf-8")
    checked = config.load(path, [], schema)
    where = folder.open_run(tmp_path / "run", checked, "test", check(checked).contents)
    assert run.audit([(checked, where)]) == {}
    images = {}
    for cell in where.glob("cells/convnet--*"):
        with np.load(cell / "candidates.npz", allow_pickle=False) as arrays:
            images[cell.name.partition("--")[2]] = arrays["candidates"]
            pairs = arrays["pairs"]
    assert set(images) == {"xai_aware", "data_free_split", "unsplit", "secret_gen"}
    assert all(found.shape == pairs.shape == (3, 32, 32, 3) for found in images.values())
    hidden = np.any(images["secret_gen"] != pairs, (0, 3))
    assert hidden[8:24, 8:24].mean() > 0.9 and hidden.sum() == hidden[8:24, 8:24].sum()


def counted(public, train, *, steps: int = 3):
    """A prior that trains something."""
    process = Process(lambda key, batch: jnp.zeros(()), lambda key, x, batch: (x, info(0.0)), lambda x: x, steps)
    train(process, minibatches({"x": public}, 4, 0), "counted")
    return eigenfaces(public, None, components=3)


def made_with(folder, monkeypatch, attacks, prior="prior: counted"):
    monkeypatch.setitem(PRIORS, "counted", counted)
    path = written(folder, attacks)
    path.write_text(path.read_text(encoding="utf-8").replace("prior: {name: eigenfaces, components: 3}", prior))
    return config.load(path, [], schema)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("attack", "trained"),
    [
        ("image/mi_face", False),
        ("{name: image/gmi, steps: 2, restarts: 1}", True),
        ("{name: image/align_mi, neighbors: 2, base: {name: image/gmi, steps: 2, restarts: 1}}", True),
        ("{name: image/ppa, steps: 2, pool: 3, starts: 2, views: 2}", True),
    ],
)
def test_a_prior_is_trained_only_where_an_attack_asks_for_one(attack, trained, tmp_path, monkeypatch):
    checked = made_with(tmp_path, monkeypatch, f"attacks: {attack}\n")
    data = check(checked)
    where = folder.open_run(tmp_path / "run", checked, "test", data.contents)
    run.train(checked, [where], data=data)
    assert bool(list((where / "training").glob("counted-*"))) == trained


def test_a_prior_that_nobody_asks_for_may_be_left_out(tmp_path, monkeypatch):
    checked = made_with(tmp_path, monkeypatch, "attacks: image/mi_face\n", prior="")
    assert checked["prior"] is None and check(checked).names
    checked = made_with(tmp_path, monkeypatch, "attacks: [image/mi_face, image/gmi]\n", prior="")
    with pytest.raises(ValueError, match=r"attacks \(image/gmi\): prior: missing, .* legal is one of eigenfaces, wgan"):
        check(checked)


def test_each_input_is_made_when_asked_for_and_once(tmp_path, monkeypatch):
    checked = made_with(tmp_path, monkeypatch, "attacks: image/mi_face\n", prior="")
    scene, asked = check(checked), []
    for name, make in INPUTS.items():
        monkeypatch.setitem(INPUTS, name, lambda given, name=name, make=make: asked.append(name) or make(given))
    given = Inputs(modality_of(checked), checked, scene, lambda *_: pytest.fail("trained"))
    assert asked == [] and "prior" in given and "proir" not in given and len(given) == len(INPUTS)
    assert given["surrogate"] is given["surrogates"][0] and given["mask"] is given["mask"]
    assert asked == ["surrogate", "surrogates", "networks", "classes", "shape", "mask"]
    below = given.of(Fitted(from_linen(models.SoftmaxRegression(3), {}, classes=3), models.SoftmaxRegression(3)))
    assert below["mask"] is given["mask"] and below["decoder"] is given["decoder"] and below["center"] == 0.0
    assert asked[6:] == ["decoder"] and "center" in below and "center" not in given
    assert set(below) == {*INPUTS, *supplied.TARGET_INPUTS} and len(below) == len(set(below))


@pytest.mark.nightly
def test_public_pictures_are_converted_once_for_all_attacks_and_targets(tmp_path, monkeypatch):
    attacks = "attacks: [{name: image/tb_mia, steps: 2}, {name: image/gmi, steps: 2, restarts: 1}]\n"
    more = "controls: [softmax]\npublic_batch: 5\n"
    checked = made_with(tmp_path, monkeypatch, attacks + more, prior="prior: {name: eigenfaces, components: 3}")
    public, whole = check(checked).split.public.images, []

    def watched(images):
        whole.extend([1] if np.array_equal(images, public) else [])
        return to_float(images)

    for module in (supplied, image):
        monkeypatch.setattr(module, "to_float", watched)
    data = check(checked)
    where = folder.open_run(tmp_path / "run", checked, "test", data.contents)
    assert run.audit([(checked, where)], data=data) == {}
    assert len(whole) == 2  # when all is put together on zeros, and when it is run
    batch = Inputs(modality_of(checked), checked, check(checked), lambda *_: None)["batches"](3)["x"]
    expected = minibatches({"x": to_float(public)}, 5, checked["seed"])(3)["x"]
    assert batch.dtype == np.float32 and np.array_equal(batch, expected)


def test_a_control_starts_from_other_weights(tmp_path):
    path = written(tmp_path, "attacks: image/mi_face\ncontrols: [mlp]\n")
    text = path.read_text(encoding="utf-8")
    target = "targets: {name: mlp, width: 20, steps: 1, weight_decay: 0.0}"
    path.write_text(text.replace("targets: {name: softmax, steps: 30, rate: 0.1}", target), encoding="utf-8")
    checked = config.load(path, [], schema)
    trained = targets.train(checked, tmp_path / "training", check(checked))
    assert [one.job.control for one in trained] == ["", "shuffled"]
    kernels = [max(jax.tree.leaves(one.fitted.target.params), key=np.size).ravel() for one in trained]
    assert kernels[0].shape == kernels[1].shape and abs(np.corrcoef(*kernels)[0, 1]) < 0.2
