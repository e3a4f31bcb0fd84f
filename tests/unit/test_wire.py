"""Does a message come back as it was sent, and is everything else kept off the wire?"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cluster.wire import pack, unpack

INT64 = st.integers(-(2**63), 2**63 - 1)
ARRAYS = hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5), elements=INT64)
TEXT = st.text("aé \0", max_size=4)
PLAIN = st.none() | st.booleans() | INT64 | TEXT | st.binary(max_size=5) | st.floats(allow_nan=False)
VALUES = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(INT64 | st.sampled_from("abc"), inner, max_size=4),
    max_leaves=8,
)


def same(sent: object, found: object) -> bool:
    if isinstance(sent, np.ndarray):
        alike = isinstance(found, np.ndarray) and found.dtype == np.int64 and found.shape == sent.shape
        return alike and np.array_equal(sent, found)
    if isinstance(sent, list):
        return isinstance(found, list) and len(sent) == len(found) and all(map(same, sent, found))
    if isinstance(sent, dict):
        return isinstance(found, dict) and list(sent) == list(found) and all(same(sent[k], found[k]) for k in sent)
    return type(sent) is type(found) and sent == found


@given(st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3))
def test_plain_values_and_columns_come_back_as_they_were(message: dict[str, Any]) -> None:
    assert same(message, unpack(pack(message)))


@given(ARRAYS)
def test_the_bytes_of_an_array_do_not_depend_on_how_it_lies_in_memory(array: np.ndarray) -> None:
    fortran = np.asfortranarray(array).reshape(array.shape)
    spread = np.repeat(array[..., None], 2, axis=-1)[..., 0]
    assert pack({"a": fortran}) == pack({"a": spread}) == pack({"a": array})
    assert same(array, unpack(pack({"a": spread}))["a"])


def test_arrays_go_as_little_endian_words_behind_the_envelope_which_says_where_and_in_what_shape() -> None:
    data = pack({"a": np.array([[1, -2]], dtype=np.int64), "b": [np.array(3, dtype=np.int64)]})
    size = int.from_bytes(data[:8], "little")
    assert msgpack.unpackb(data[8 : 8 + size]) == {"a": {"shape": [1, 2], "int64": 0}, "b": [{"shape": [], "int64": 2}]}
    assert data[8 + size :].lstrip(b"\0") == b"\1" + b"\0" * 7 + b"\xfe" + b"\xff" * 7 + b"\3" + b"\0" * 7
    assert len(data) % 8 == 0


@pytest.mark.parametrize("shift", range(8))
def test_it_comes_back_from_wherever_it_lies(shift: int) -> None:
    data = pack({"a": np.arange(5)})
    there = np.zeros(len(data) + 8, dtype=np.uint8)
    there[shift : shift + len(data)] = np.frombuffer(data, dtype=np.uint8)
    found = unpack(there.data[shift : shift + len(data)])["a"]
    assert found.tolist() == [0, 1, 2, 3, 4] and not found.flags.writeable


def test_what_comes_back_is_not_copied_and_so_not_to_be_written_to() -> None:
    found = unpack(pack({"a": np.zeros(3, dtype=np.int64)}))["a"]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.zeros(2), "ndarray"),
        (np.zeros(2, dtype=np.int32), "ndarray"),
        (np.zeros(2, dtype=np.uint64), "ndarray"),
        (np.zeros(2, dtype=bool), "ndarray"),
        (np.zeros(2, dtype=object), "ndarray"),
        (np.zeros(2, dtype=">i8"), "ndarray"),
        (np.int64(3), "int64"),
        ({1, 2}, "set"),
        (object(), "object"),
        (1 + 2j, "complex"),
        (2**64, "int"),
        (-(2**63) - 1, "int"),
    ],
)
def test_what_is_no_plain_value_and_no_int64_array_is_kept_off_the_wire(value: object, named: str) -> None:
    with pytest.raises(TypeError, match=f"cannot go on the wire: {named}$"):
        pack({"a": [value]})


@given(st.dictionaries(st.sampled_from("xy"), VALUES, min_size=1, max_size=2), st.data())
def test_a_message_cut_short_is_no_message(message: dict[str, Any], data: st.DataObject) -> None:
    packed = pack(message)
    with pytest.raises(ValueError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])
