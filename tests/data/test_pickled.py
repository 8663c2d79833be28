"""Pickles that are read as data: what comes out, and that nothing in them happens."""

import struct

import numpy as np
import pytest

from jaxmia.data.pickled import Made, Name, array, read, sparse_rows


def text(value):
    """A string."""
    data = value if isinstance(value, bytes) else value.encode()
    return b"T" + struct.pack("<i", len(data)) + data


def number(value):
    return b"J" + struct.pack("<i", value)


def name(value):
    return b"c" + value.replace(" ", "\n").encode() + b"\n"


def several(*parts):
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def numbers(values, kind="i4", order="<", shape=None, fortran=b"\x89", maker="numpy.core.multiarray _reconstruct"):
    """As numpy wrote arrays under Python 2."""
    made = name(maker) + several(name("numpy ndarray"), several(number(0)), text("b")) + b"R"
    dtype = name("numpy dtype") + several(text(kind), number(0), number(1)) + b"R"
    dtype += several(number(3), text(order), b"N", b"N", b"N", number(-1), number(-1), number(0)) + b"b"
    values = np.asarray(values, f"{order}{kind}")
    sizes = several(*map(number, values.shape if shape is None else shape))
    return made + several(number(1), sizes, dtype, fortran, text(values.tobytes())) + b"b"


def matrix(indptr, indices, data, shape):
    """As scipy wrote sparse matrices."""
    items = text("_shape") + several(*map(number, shape)) + text("indptr") + numbers(indptr) + text("indices")
    items += numbers(indices) + text("data") + numbers(data, "f4")
    return name("scipy.sparse.csr csr_matrix") + b")\x81}(" + items + b"ub"


def whole(body):
    return b"\x80\x02" + body + b"."


def test_arrays_come_out_as_they_went_in():
    found = array(read(whole(numbers([[1, -2, 3], [4, 5, 6]]))), "i4", 2)
    assert found.dtype == np.int32 and found.tolist() == [[1, -2, 3], [4, 5, 6]]
    found = array(read(whole(numbers([0.5, 1e-3], "f4"))), "f4", 1)
    assert found.dtype == np.float32 and found.tolist() == np.float32([0.5, 1e-3]).tolist()


def test_sparse_rows_come_out_dense():
    found = sparse_rows(read(whole(matrix([0, 2, 2, 3], [1, 3, 0], [1.0, 0.5, 2.0], (3, 4)))))
    assert found.tolist() == [[0, 1, 0, 0.5], [0, 0, 0, 0], [2, 0, 0, 0]]


def test_lists_by_key_and_what_was_kept_for_later():
    lists = name("collections defaultdict") + name("__builtin__ list") + b"\x85R"
    lists += b"(" + number(3) + b"]q\x01(" + number(1) + number(2) + b"e" + number(4) + b"]" + number(5) + b"a"
    found = read(whole(several(lists + b"u", b"h\x01")))
    assert found[0].name == "collections defaultdict" and found[0].items == {3: [1, 2], 4: [5]}
    assert found[1] is found[0].items[3]


def test_nothing_in_a_pickle_is_called(tmp_path):
    path = tmp_path / "made"
    found = read(whole(name("os mkdir") + several(text(str(path))) + b"R"))
    assert found == Made(Name("os mkdir"), (str(path),)) and not path.exists()
    with pytest.raises(ValueError, match="'os mkdir' where array is wanted; legal is 'numpy.core.multiarray"):
        array(found, "i4", 1)
    with pytest.raises(ValueError, match="'os mkdir' where matrix is wanted"):
        sparse_rows(found)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "pickle"),
        (b"\x80\x02", "pickle"),
        (whole(numbers([1, 2]))[:-20], "pickle"),
        (whole(b"t"), "pickle: cannot be read as data"),
        (whole(b"h\x07"), "pickle: cannot be read as data"),
        (whole(number(1) + number(2) + b"b"), "int where .*Made.* is wanted"),
        (whole(name("os system") + number(1) + b"R"), "int where .*tuple.* is wanted"),
        (whole(text("os") + b")R"), "str where .*Name.* is wanted"),
        (whole(b"}()" + number(1) + b"u"), "tuple where .* is wanted"),
        (whole(b"(ios\nsystem\n"), "operation INST at byte 3 is none that is read"),
        (whole(b"\x8c\x02os\x8c\x06system\x93"), "operation SHORT_BINUNICODE"),
        (whole(b"Pid\n"), "operation PERSID"),
    ],
)
def test_what_is_no_plain_data_is_refused(data, complaint):
    with pytest.raises(ValueError, match=complaint):
        read(data)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (numbers([1, 2], "i8"), "an array of .*'i8'"),
        (numbers([1, 2], order=">"), "an array of .*'>'"),
        (numbers([1, 2], fortran=b"\x88"), "an array of .*True"),
        (numbers([1, 2], shape=(3,)), r"2 numbers for shape \(3,\)"),
        (numbers([1, 2], shape=(-1,)), r"shape \(-1,\)"),
        (numbers([1, 2], shape=(1, 2)), r"shape \(1, 2\); legal is 1 axes"),
        (numbers([1, 2], maker="numpy frombuffer"), "'numpy frombuffer' where array is wanted"),
        (number(7), "'int' where array is wanted"),
    ],
)
def test_another_array_than_the_one_wanted_is_refused(body, complaint):
    with pytest.raises(ValueError, match=complaint):
        array(read(whole(body)), "i4", 1)


@pytest.mark.parametrize(
    "parts",
    [
        ([0, 1], [4], [1.0], (1, 4)),
        ([0, 1], [-1], [1.0], (1, 4)),
        ([0, 2], [0], [1.0], (1, 4)),
        ([0, 1, 0], [0], [1.0], (2, 4)),
        ([1, 1], [0], [1.0], (1, 4)),
        ([0, 1], [0], [1.0, 2.0], (1, 4)),
        ([0, 1], [0], [1.0], (2, 4)),
        ([0, 1], [0], [1.0], (1 << 20, 1 << 20)),
        ([0, 1], [0], [1.0], (1, 4, 1)),
    ],
)
def test_a_matrix_with_numbers_outside_of_it_is_refused(parts):
    with pytest.raises(ValueError, match="pickle: .* (do not fit into|matrix of shape)"):
        sparse_rows(read(whole(matrix(*parts))))
