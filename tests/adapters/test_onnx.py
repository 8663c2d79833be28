"""A target from an ONNX file: it answers what numpy computes, and refuses files that are something else."""

import re

import jax
import numpy as np
import pytest

from jaxmia import Access, Plan, Process, ThreatModelError, from_onnx, info, packages, solve

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KEY, CLASSES, FEATURES, SHAPE = jax.random.key(0), 4, 5, (6, 7, 3)
RNG = np.random.default_rng(0)
WEIGHTS, BIAS = (RNG.normal(size=size).astype(np.float32) for size in ((FEATURES, CLASSES), (CLASSES,)))
FILTERS = RNG.normal(size=(CLASSES, 3, 3, 3)).astype(np.float32)
RECORDS, IMAGES = RNG.random((9, FEATURES), np.float32), RNG.random((3, *SHAPE), np.float32)


def softmax(logits):
    likely = np.exp(logits - logits.max(1, keepdims=True))
    return likely / likely.sum(1, keepdims=True)


def convolved(images):
    """The largest answer of each filter to `[n, height, width, 3]`, without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,kcij->nhwk", windows, FILTERS).max((1, 2))


def save(path, nodes, sizes, outputs=(("scores", "FLOAT", ["n", CLASSES]),), dtype="FLOAT", more=(), **how):
    """A file with an input "x" of `sizes`; its weights are in `dtype` as well."""
    kind = getattr(onnx.TensorProto, dtype)
    weights = {"weights": WEIGHTS, "bias": BIAS, "filters": FILTERS}
    used = {name for node in nodes for name in node.input} & set(weights)
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info(name, kind, sizes) for name in ("x", *more)],
        [onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, of), size) for name, of, size in outputs],
        [
            onnx.numpy_helper.from_array(weights[name].astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), name)
            for name in sorted(used)
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path, **how)
    return path


def node(*words, **how):
    kind, inputs, output = words
    return onnx.helper.make_node(kind, inputs.split(), [output], **how)


def linear(last="Softmax"):
    nodes = [node("MatMul", "x weights", "product"), node("Add", "product bias", "logits")]
    return [*nodes, node(last, "logits", "scores")]


def record_file(path, sizes=("n", FEATURES), **how):
    return save(path / "records.onnx", linear(), sizes, **how)


def image_file(path, sizes=("n", 3, *SHAPE[:2]), before=()):
    conv = node("Conv", "y filters" if before else "x filters", "maps")
    nodes = [*before, conv, node("GlobalMaxPool", "maps", "tops"), node("Flatten", "tops", "scores")]
    return save(path / "images.onnx", nodes, sizes)


def answers(target, x):
    return np.asarray(jax.vmap(target.view(Access.SCORES).answer, (None, 0))(KEY, x))


def test_records_are_answered_as_numpy_does(tmp_path):
    target = from_onnx(record_file(tmp_path), classes=CLASSES, example=RECORDS)
    np.testing.assert_allclose(answers(target, RECORDS), softmax(RECORDS @ WEIGHTS + BIAS), rtol=1e-5)


@pytest.mark.parametrize("channels", ["first", "last"])
def test_an_image_reaches_the_model_in_its_own_layout(channels, tmp_path):
    if channels == "first":
        file = image_file(tmp_path)
    else:
        file = image_file(tmp_path, ("n", *SHAPE), [node("Transpose", "x", "y", perm=[0, 3, 1, 2])])
    how = {"classes": CLASSES, "answers": "logits", "channels": channels}
    mean, deviation = np.array([0.1, 0.2, 0.3], np.float32), 0.5
    target = from_onnx(file, preprocess=(mean, deviation), **how)
    np.testing.assert_allclose(answers(target, IMAGES), softmax(convolved((IMAGES - mean) / deviation)), rtol=1e-4)
    with pytest.raises(
        ValueError, match=r"the model reads \[n, .*\], and was given \[n, .*\], of images with channels="
    ):
        from_onnx(file, example=IMAGES.transpose(0, 2, 3, 1), **how)


def test_a_batch_axis_of_one_is_asked_one_by_one(tmp_path):
    free = from_onnx(record_file(tmp_path), classes=CLASSES)
    fixed = from_onnx(
        record_file(tmp_path, (1, FEATURES), outputs=[("scores", "FLOAT", [1, CLASSES])]), classes=CLASSES
    )
    np.testing.assert_allclose(answers(fixed, RECORDS), answers(free, RECORDS), rtol=1e-6)


@pytest.mark.parametrize(("dtype", "near"), [("FLOAT16", 3e-3), ("DOUBLE", 1e-5)])
def test_a_model_of_another_precision_is_asked_in_it(dtype, near, tmp_path):
    file = record_file(tmp_path, dtype=dtype, outputs=[("scores", dtype, ["n", CLASSES])])
    target = from_onnx(file, classes=CLASSES)
    np.testing.assert_allclose(answers(target, RECORDS), softmax(RECORDS @ WEIGHTS + BIAS), rtol=near, atol=near)


def test_one_of_several_outputs_is_served(tmp_path):
    nodes = [*linear(), node("ArgMax", "logits", "label", axis=1, keepdims=0)]
    outputs = [("scores", "FLOAT", ["n", CLASSES]), ("label", "INT64", ["n"])]
    file = save(tmp_path / "two.onnx", nodes, ["n", FEATURES], outputs)
    with pytest.raises(ValueError, match="output: the model of .* has scores, label; legal is one of these"):
        from_onnx(file, classes=CLASSES)
    with pytest.raises(ValueError, match="output: 'labels'; legal for .* is scores, label"):
        from_onnx(file, classes=CLASSES, output="labels")
    labels = from_onnx(file, classes=CLASSES, output="label", granted=Access.LABELS).view(Access.LABELS)
    found = jax.vmap(labels.answer, (None, 0))(KEY, RECORDS)
    np.testing.assert_array_equal(found, (RECORDS @ WEIGHTS + BIAS).argmax(1))
    assert len(set(found.tolist())) > 1, "all labels are the same: nothing is shown"


def test_it_is_known_by_its_bytes_and_what_is_done_to_them(tmp_path):
    file = record_file(tmp_path)
    here = from_onnx(file, classes=CLASSES).identity
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(file.read_bytes())
    assert from_onnx(moved, classes=CLASSES).identity == here
    assert from_onnx(file, classes=CLASSES, preprocess=(0.5, 0.5)).identity != here
    moved.write_bytes(file.read_bytes().replace(WEIGHTS.tobytes(), (WEIGHTS + 1).tobytes()))
    assert from_onnx(moved, classes=CLASSES).identity != here


def test_a_run_in_a_folder_finds_its_results_again(tmp_path):
    file = record_file(tmp_path)

    def found():
        oracle = from_onnx(file, classes=CLASSES).view(Access.SCORES)

        def step(key, state, case):
            scores = oracle.answer(key, state)
            return state * 0.9, info(-scores[case], queries=1)

        start = Process(lambda key, case: jax.random.uniform(key, (FEATURES,)), step, lambda state: state, 3)
        return solve(start, KEY, np.arange(3), plan=Plan(progress=False), folder=tmp_path / "run")

    first = found()
    jax.tree.map(np.testing.assert_array_equal, found(), first)
    file.write_bytes(file.read_bytes().replace(BIAS.tobytes(), (BIAS + 1).tobytes()))
    with pytest.raises(ValueError, match="another program"):
        found()


@pytest.mark.parametrize("here", [True, False], ids=["beside it", "gone"])
def test_weights_in_another_file_are_refused_wherever_they_are(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look for them
    file = record_file(tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size >= WEIGHTS.nbytes
    if not here:
        (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match="keeps its weights in other files; legal is one file that holds all"):
        from_onnx(file, classes=CLASSES)


def refused(path, **changed):
    how = {"classes": CLASSES, "answers": "probabilities"}
    return lambda: from_onnx(path, **{**how, **changed})


BAD = {
    "no file": (lambda at: refused(at / "gone.onnx"), FileNotFoundError, "path: .* does not exist; legal is"),
    "folder": (lambda at: refused(at), IsADirectoryError, "path: .* is no file; legal is"),
    "html": (
        lambda at: (at / "page.onnx").write_text("<html>") and refused(at / "page.onnx"),
        ValueError,
        "onnxruntime cannot load it .*; legal is an ONNX file",
    ),
    "two inputs": (
        lambda at: refused(save(at / "m.onnx", linear(), ["n", FEATURES], more=["mask"])),
        ValueError,
        r"has 2 inputs \(x, mask\); legal is one",
    ),
    "whole numbers": (
        lambda at: refused(
            save(
                at / "m.onnx",
                [node("Cast", "x", "scores", to=1)],
                ["n", CLASSES],
                dtype="INT64",
            )
        ),
        ValueError,
        r"input 'x' is tensor\(int64\); legal is tensor\(float\), .* put a Cast before it",
    ),
    "no batch": (
        lambda at: refused(
            save(at / "m.onnx", [node("Identity", "x", "scores")], [CLASSES], [("scores", "FLOAT", [CLASSES])])
        ),
        ValueError,
        r"input 'x' is \[4\]; legal is a batch axis",
    ),
    "fixed batch": (
        lambda at: refused(record_file(at, (8, FEATURES), outputs=[("scores", "FLOAT", [8, CLASSES])])),
        ValueError,
        r"is \[8, 5\], a batch of exactly 8; legal is",
    ),
    "strings": (
        lambda at: refused(
            save(
                at / "m.onnx",
                [node("Cast", "x", "scores", to=8)],
                ["n", CLASSES],
                [("scores", "STRING", ["n", CLASSES])],
            )
        ),
        ValueError,
        r"output: 'scores' of .* is tensor\(string\); legal is a tensor of numbers",
    ),
    "width": (
        lambda at: refused(record_file(at), classes=7),
        ValueError,
        r"classes: 7, but output 'scores' of .* is \[n, 4\]; legal is 4",
    ),
    "channels": (lambda at: refused(record_file(at), channels="middle"), ValueError, "channels: 'middle'; legal is"),
    "preprocess": (lambda at: refused(record_file(at), preprocess=(0.5, 0)), ValueError, "preprocess: .*; legal is"),
    "record": (
        lambda at: refused(record_file(at), example=RECORDS[:, :2]),
        ValueError,
        r"the model reads \[n, 5\], and was given \[n, 2\]$",
    ),
    "logits": (
        lambda at: refused(save(at / "m.onnx", linear("Identity"), ["n", FEATURES]), example=RECORDS),
        ValueError,
        "where probabilities were declared",
    ),
    "weights": (lambda at: refused(record_file(at), granted=Access.WEIGHTS), ThreatModelError, "no weights to show"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_asked_is_one_sentence(case, tmp_path):
    make, error, words = BAD[case]
    with pytest.raises(error, match=words) as found:
        make(tmp_path)()
    assert "\n" not in str(found.value)


def test_a_model_that_fails_on_a_batch_says_so_in_one_sentence(tmp_path):
    shape = onnx.helper.make_node("Constant", [], ["shape"], value_ints=[1, CLASSES])
    nodes = [*linear("Identity")[:2], shape, node("Reshape", "logits shape", "scores")]
    target = save(tmp_path / "m.onnx", nodes, ["n", FEATURES])
    with pytest.raises(ValueError, match=re.escape("onnxruntime cannot answer [2, 5] (")) as found:
        from_onnx(target, classes=CLASSES, answers="anything", example=RECORDS[:2])
    assert "\n" not in str(found.value)


def test_without_onnxruntime_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="the package onnxruntime is missing: pip install"):
        from_onnx(record_file(tmp_path), classes=CLASSES)
