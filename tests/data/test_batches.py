import ast
import doctest
import pathlib
import sys
from typing import NamedTuple

import numpy as np
import pytest

import jaxmia.data
from jaxmia.data import batches, minibatches, types


class Pair(NamedTuple):
    x: np.ndarray
    y: np.ndarray


def test_same_step_gives_the_same_batch_in_any_order():
    data = np.arange(23)
    forward = minibatches(data, 5, seed=7)
    in_order = [forward(step) for step in range(40)]
    other = minibatches(data, 5, seed=7)
    for step in np.random.default_rng(0).permutation(40):
        np.testing.assert_array_equal(other(step), in_order[step])


def test_every_epoch_is_a_new_permutation_without_the_partial_batch():
    batch = minibatches(np.arange(23), 5, seed=0)
    epochs = [np.concatenate([batch(4 * epoch + i) for i in range(4)]) for epoch in range(50)]
    for epoch, rows in enumerate(epochs):
        assert len(set(rows.tolist())) == 20
        order = np.random.default_rng((0, epoch)).permutation(23)
        np.testing.assert_array_equal(rows, order[:20])
    assert len({tuple(rows) for rows in epochs}) == 50
    assert set(np.concatenate(epochs).tolist()) == set(range(23))  # what one epoch drops, another has


def test_seeds_differ():
    one, two = (minibatches(np.arange(100), 100, seed=seed)(0) for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_containers_keep_their_form_and_rows_stay_together():
    x = np.arange(12).reshape(6, 2)
    data = {"pair": Pair(x, x[:, 0] // 2), "more": (x + 100, [x.astype(np.float32)])}
    got = minibatches(data, 4, seed=0)(0)
    assert isinstance(got["pair"], Pair) and isinstance(got["more"], tuple) and isinstance(got["more"][1], list)
    rows = got["pair"].y
    np.testing.assert_array_equal(got["pair"].x, x[rows])
    np.testing.assert_array_equal(got["more"][0], x[rows] + 100)
    assert got["more"][1][0].dtype == np.float32


def test_memmaps_are_gathered_into_memory(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(40, dtype=np.uint8).reshape(10, 4))
    data = np.load(tmp_path / "rows.npy", mmap_mode="r")
    got = minibatches((data, np.arange(10)), 3, seed=1)(5)
    assert type(got[0]) is np.ndarray and got[0].shape == (3, 4)
    np.testing.assert_array_equal(got[0], np.asarray(data)[got[1]])


@pytest.mark.parametrize(
    "arrays, size, seed, message",
    [
        (np.zeros(5), 6, 0, "batch_size: 6 is out of range, it must be 1 to 5"),
        (np.zeros(5), 0, 0, "batch_size: 0"),
        (np.zeros(5), 1, -1, "seed: -1"),
        ({"x": np.zeros(5), "y": np.zeros(4)}, 1, 0, r"arrays\['x'\] 5, arrays\['y'\] 4"),
        ((), 1, 0, "holds no array"),
        ((np.zeros(5), "names"), 1, 0, r"arrays\[1\]: is a str"),
        (np.float64(3), 1, 0, "arrays: is a float64"),
        (np.array(3), 1, 0, "at least one axis"),
    ],
)
def test_bad_arguments_are_refused_at_once(arrays, size, seed, message):
    with pytest.raises(ValueError, match=message):
        minibatches(arrays, size, seed)


def test_negative_steps_are_refused():
    with pytest.raises(ValueError, match="step: -1"):
        minibatches(np.zeros(5), 1, 0)(-1)


def test_docstring_examples_hold():
    for module in (batches, types):
        result = doctest.testmod(module)
        assert result.attempted > 0 and result.failed == 0


def test_data_layer_imports_only_numpy_and_itself():
    allowed = set(sys.stdlib_module_names) | {"numpy", "jaxtyping"}
    for file in pathlib.Path(jaxmia.data.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("jaxmia.data"), (file.name, name)
