import hashlib
import importlib
import struct

import numpy as np
import pytest

from jaxmia.data import (
    REGISTRY,
    SOURCES,
    adult,
    brown,
    cora,
    faces,
    fair,
    karate,
    mnist,
    mutag,
    orl,
    planetoid,
    to_float,
)
from jaxmia.data.types import Column, Table

fetching = importlib.import_module("jaxmia.data.fetch")


def test_registry_covers_the_sources():
    assert REGISTRY.keys() == SOURCES.keys()


def test_to_float_maps_bytes_to_the_unit_interval():
    values = to_float(np.arange(256, dtype=np.uint8))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, np.arange(256) / 255, rtol=1e-6)


def test_table_position_names_the_legal_columns():
    table = Table((Column("age", ("young", "old")), Column("sex", ("f", "m"))), np.zeros((1, 2), np.int32))
    assert table.position("sex") == 1
    with pytest.raises(ValueError, match="'income' is not in the table; it has age, sex"):
        table.position("income")


@pytest.mark.needs_data
def test_orl_has_forty_people_and_the_known_pixels():
    faces40 = orl.load(112, 92)
    assert faces40.images.shape == (400, 112, 92, 1) and faces40.images.dtype == np.uint8
    assert hashlib.sha256(faces40.images.tobytes()).hexdigest() == orl.SHA256
    assert len(faces40.names) == 40 and (np.bincount(faces40.labels) == 10).all()
    small = orl.load()
    assert small.images.shape == (400, 56, 46, 1)
    # An antialiased half size is close to the mean of 2 x 2 pixels; picking every second pixel is not.
    mean = faces40.images[..., 0].reshape(400, 56, 2, 46, 2).mean((2, 4))
    assert np.abs(small.images[..., 0] - mean).mean() < 0.5 * np.abs(faces40.images[:, ::2, ::2, 0] - mean).mean()


@pytest.mark.needs_data
def test_orl_people_can_be_told_apart():
    data = orl.load()
    pixels = to_float(data.images).reshape(400, -1)
    private = data.labels < 20
    last = np.tile(np.arange(10), 40) >= 7
    known, new = pixels[private & ~last], pixels[private & last]
    distances = ((new[:, None] - known[None]) ** 2).sum(-1)
    nearest = data.labels[private & ~last][distances.argmin(1)]
    assert (nearest == data.labels[private & last]).mean() > 0.9


@pytest.mark.needs_data
def test_orl_refuses_other_photos_and_sizes(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="height: 113"):
        orl.load(113, 92)
    with pytest.raises(ValueError, match="width: 0"):
        orl.load(56, 0)
    monkeypatch.setattr(orl, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="expected 0000"):
        orl.load()


@pytest.mark.needs_data
def test_mnist_has_the_official_counts():
    digits = mnist.load()
    assert digits.images.shape == (70_000, 28, 28, 1) and digits.images.dtype == np.uint8
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(digits.labels[mnist.TRAIN]).tolist() == train
    assert np.bincount(digits.labels[mnist.TEST]).tolist() == test
    assert digits.names == tuple("0123456789")
    padded = mnist.load(32).images
    assert padded.shape == (70_000, 32, 32, 1)
    assert np.array_equal(padded[::97, 2:30, 2:30], digits.images[::97])
    assert padded.sum(dtype=np.int64) == digits.images.sum(dtype=np.int64)


def test_mnist_refuses_to_shrink_and_damaged_headers():
    with pytest.raises(ValueError, match="size: 16"):
        mnist.load(16)
    header = struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3)
    assert mnist._idx("toy", header + bytes(6)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"toy has 5 values, its header says \(2, 3\)"):
        mnist._idx("toy", header + bytes(5))
    with pytest.raises(ValueError, match="toy is not an IDX file"):
        mnist._idx("toy", b"\x1f\x8b" + header)


@pytest.mark.needs_data
def test_fair_has_the_known_counts():
    table = fair.load()
    assert table.codes.shape == (6366, 9)
    assert [column.name for column in table.columns][-1] == fair.SENSITIVE
    affair = table.codes[:, table.position(fair.SENSITIVE)]
    assert affair.sum() == 2053 and round(affair.mean(), 3) == 0.322
    rating = table.columns[table.position(fair.TARGET)]
    assert rating.levels == ("1", "2", "3", "4", "5")
    for column, codes in zip(table.columns, table.codes.T, strict=True):
        assert np.array_equal(np.unique(codes), np.arange(len(column.levels)))
    first = [column.levels[code] for column, code in zip(table.columns, table.codes[0], strict=True)]
    assert first == ["3", "32", "9", "3", "3", "17", "2", "5", "yes"]


@pytest.mark.needs_data
def test_fair_refuses_another_table(monkeypatch):
    monkeypatch.setattr(fair, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="expected 0000"):
        fair.load()


@pytest.mark.needs_data
def test_adult_has_the_known_counts_and_bins():
    table = adult.load()
    assert table.codes.shape == (32_561 + 16_281, 13)
    assert len(table.codes[adult.TRAIN]) == 32_561 and len(table.codes[adult.TEST]) == 16_281

    def level(name, row):
        index = table.position(name)
        return table.columns[index].levels[table.codes[row, index]]

    def count(name, value):
        index = table.position(name)
        return int((table.codes[:, index] == table.columns[index].levels.index(value)).sum())

    assert count("marital_status", "Married-civ-spouse") == 22_379
    assert count("income", ">50K") == 7841 + 3846 and count("workclass", "unknown") == 2799
    assert table.columns[table.position("income")].levels == ("<=50K", ">50K")
    education = table.columns[table.position("education")].levels
    assert education[0] == "Preschool" and education[8:10] == ("HS-grad", "Some-college")
    assert education[-1] == "Doctorate"
    # first line: 39, State-gov, Bachelors, Never-married, capital gain 2174, 40 hours
    assert [level(name, 0) for name in ("age", "workclass", "education", "capital_gain", "hours_per_week")] == [
        "35-44",
        "State-gov",
        "Bachelors",
        "1-4999",
        "40",
    ]
    assert level("age", 32_561) == "25-34"  # first line of the test file: 25 years old
    assert abs(count("capital_gain", "0") / 48_842 - 0.9174) < 1e-4
    unknown = (table.codes == [len(c.levels) - 1 if c.levels[-1] == "unknown" else -1 for c in table.columns]).any(1)
    assert unknown[adult.TRAIN].sum() == 2399
    for column, codes in zip(table.columns, table.codes.T, strict=True):
        assert np.array_equal(np.unique(codes), np.arange(len(column.levels))), column.name


@pytest.mark.needs_data
def test_cora_has_the_known_counts():
    graph = cora.load()
    assert graph.features.shape == (2708, 1433) and graph.features.dtype == np.float32
    assert set(np.unique(graph.features)) == {0.0, 1.0} and abs(graph.features.sum(1).mean() - 18.2) < 0.05
    assert sorted(np.bincount(graph.labels).tolist()) == sorted([298, 418, 818, 426, 217, 180, 351])
    assert graph.edges.shape == (5278, 2) and graph.edges.dtype == np.int32
    assert (graph.edges[:, 0] < graph.edges[:, 1]).all()
    assert len(np.unique(graph.edges, axis=0)) == 5278
    left, right = graph.labels[graph.edges].T
    assert round((left == right).mean(), 2) == 0.81


def _well_formed(graph):
    """The graph, whose edges are what `Graph` says."""
    assert graph.features.dtype == np.float32 and graph.edges.dtype == np.int32 and graph.labels.dtype == np.int32
    assert (graph.edges[:, 0] < graph.edges[:, 1]).all()
    assert np.array_equal(np.unique(graph.edges, axis=0), graph.edges) and graph.edges.min() == 0
    assert graph.edges.max() < len(graph.labels) == len(graph.features)
    return graph


@pytest.mark.needs_data
def test_citeseer_has_the_known_counts():
    graph = _well_formed(planetoid.citeseer())
    assert graph.features.shape == (3327, 3703) and graph.edges.shape == (4552, 2)
    assert set(np.unique(graph.features)) == {0.0, 1.0} and int(graph.features.sum()) == 105_165
    assert np.bincount(graph.labels + 1).tolist() == [15, 249, 590, 668, 701, 596, 508]
    # These are in the files by number alone.
    unknown = graph.labels < 0
    assert np.array_equal(unknown, graph.features.sum(1) == 0)
    degrees = np.bincount(graph.edges.ravel(), minlength=3327)
    assert (degrees == 0).sum() == 48 and degrees.max() == 99
    # Rows of the test part are out of order in the files; in another order labels and words would not go with edges.
    left, right = graph.labels[graph.edges[~unknown[graph.edges].any(1)]].T
    assert round((left == right).mean(), 3) == 0.738
    late = graph.edges[(graph.edges >= 2312).all(1) & ~unknown[graph.edges].any(1)]
    assert (graph.labels[late[:, 0]] == graph.labels[late[:, 1]]).mean() > 0.6
    shared = (graph.features[late[:, 0]] * graph.features[late[:, 1]]).sum(1).mean()
    assert shared > 2 * (graph.features[late[:, 0]] * graph.features[np.roll(late[:, 1], 7)]).sum(1).mean()


@pytest.mark.needs_data
def test_pubmed_has_the_known_counts():
    graph = _well_formed(planetoid.pubmed())
    assert graph.features.shape == (19_717, 500) and graph.edges.shape == (44_324, 2)
    assert np.bincount(graph.labels).tolist() == [4103, 7739, 7875]
    assert 0 <= graph.features.min() and round(float(graph.features.max()), 4) == 1.2633
    assert int((graph.features > 0).sum()) == 988_031
    left, right = graph.labels[graph.edges].T
    assert round((left == right).mean(), 2) == 0.80


def test_karate_club_has_the_known_degrees_and_sides():
    graph = _well_formed(karate.load())
    assert graph.edges.shape == (78, 2) and np.array_equal(graph.features, np.eye(34))
    degrees = [16, 9, 10, 6, 3, 4, 4, 4, 5, 2, 3, 1, 2, 5, 2, 2, 2, 2, 2, 3, 2, 2, 2, 5, 3, 3, 2, 4, 3, 4, 4, 6, 12, 17]
    assert np.bincount(graph.edges.ravel()).tolist() == degrees
    adjacency = np.zeros((34, 34), int)
    adjacency[graph.edges[:, 0], graph.edges[:, 1]] = 1
    adjacency += adjacency.T
    assert np.trace(adjacency @ adjacency @ adjacency) == 6 * 45  # triangles
    assert np.bincount(graph.labels).tolist() == [17, 17] and graph.labels[[0, 8, 33]].tolist() == [0, 0, 1]
    assert (graph.labels[graph.edges[:, 0]] != graph.labels[graph.edges[:, 1]]).sum() == 11


@pytest.mark.needs_data
def test_mutag_has_the_known_counts():
    graphs = mutag.load()
    assert graphs.adjacency.shape == (188, 28, 28) and graphs.features.shape == (188, 28, 7)
    sizes = graphs.mask.sum(1)
    assert sizes.min() == 10 and sizes.max() == 28 and sizes.sum() == 3371
    assert np.array_equal(graphs.mask, np.arange(28) < sizes[:, None])
    assert np.array_equal(graphs.features.sum(2), graphs.mask)
    assert graphs.features.sum((0, 1)).tolist() == [2395, 345, 593, 12, 1, 23, 2]  # C, N, O, F, I, Cl, Br
    assert graphs.adjacency.sum() == 2 * 3721 and set(np.unique(graphs.adjacency)) == {0.0, 1.0}
    assert np.array_equal(graphs.adjacency, graphs.adjacency.transpose(0, 2, 1))
    assert not np.einsum("gii->gi", graphs.adjacency).any()
    assert not (graphs.adjacency.sum(2) * (1 - graphs.mask)).any()
    assert np.bincount(graphs.labels).tolist() == [63, 125] and graphs.names[1] == "mutagenic"
    # Every compound has a nitro group: a nitrogen that is bound to two oxygens.
    oxygens = graphs.adjacency @ graphs.features[..., 2:3]
    assert ((oxygens[..., 0] == 2) & (graphs.features[..., 1] == 1)).any(1).sum() > 180


@pytest.mark.needs_data
def test_brown_has_the_known_documents_and_no_tags():
    corpus = brown.load()
    assert len(corpus.documents) == len(corpus.genres) == 500
    assert len(set(corpus.genres)) == 15 and corpus.genres.count("learned") == 80
    assert sum(len(document.split()) for document in corpus.documents) == 1_161_192
    assert 6.1e6 < sum(map(len, corpus.documents)) < 6.16e6
    assert corpus.documents[0].startswith("The Fulton County Grand Jury said Friday an investigation of Atlanta's")
    assert corpus.documents[0].splitlines()[0].endswith("any irregularities took place .")
    assert brown._untagged("\n\n\tand/or/cc 1/2/cd ,/,\n") == "and/or 1/2 ,"


@pytest.mark.needs_data
def test_face_weights_are_complete_and_restored():
    weights = faces.load_weights()
    assert len(weights) == 117
    assert all(tensor.dtype == np.float32 and np.isfinite(tensor).all() for tensor in weights.values())
    assert weights["fc"].shape == (256, 128)
    assert 5.5e6 < sum(tensor.size for tensor in weights.values()) < 5.7e6
    first = weights["conv32_down/conv/filters"]
    assert first.shape == (7, 7, 3, 32)
    # quantized: few distinct values, both signs, of the size of a filter
    assert len(np.unique(first)) <= 256 and first.min() < 0 < first.max() and np.abs(first).max() < 2
