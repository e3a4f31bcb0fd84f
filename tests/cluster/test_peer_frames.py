"""Is a frame opened as it was sealed, and everything else refused?"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Callable

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.peer_links.connection import AHEAD, Connection, LinkError
from cluster.peer_links.frames import PREFIX, TAG, Frame, FrameError, Opener, Parcel, Sealer, lengths, tag
from cluster.peer_links.handshake import Agreed
from cluster.peer_links.links import Links, Post
from node.errors import InvariantError
from tests.functional import Array
from tests.peers import joined

KEY = bytes(32)
LABEL = ("name", "meaning")
ONE = np.ones(3, np.float32)


def _open(data: bytes, opener: Opener | None = None) -> Frame:
    view = memoryview(data)
    header, payload = lengths(view[: PREFIX.size], 2048, 1 << 20)
    assert len(data) == PREFIX.size + header + payload + TAG
    return (opener or Opener(KEY)).open(view, header)


def _sealed(fields: object, payload: bytes = b"", start: bytes | None = None, key: bytes = KEY) -> bytes:
    """A frame of whatever, authentic."""
    header = msgpack.packb(fields) + (struct.pack(">BI", 0xC6, len(payload)) if start is None else start)
    head = PREFIX.pack(1, 0, len(header), len(payload)) + header
    sealer = Sealer(key)
    return head + payload + tag(sealer._mac, head, payload)


@given(st.lists(st.integers(0, 5), max_size=4), st.text(max_size=30), st.integers(0, 2**32 - 1))
def test_frames_are_opened_as_they_were_sealed(shape: list[int], name: str, seed: int) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for brought in (array, array.T):
        frame = _open(b"".join(sealer.seal(Parcel.of((name, "sum"), brought))), opener)
        assert frame.label == (name, "sum") and frame.array.dtype == np.float32
        np.testing.assert_array_equal(frame.array, brought, strict=True)


@given(st.binary(min_size=1, max_size=4), st.integers(0, 200))
def test_a_byte_altered_anywhere_is_refused(change: bytes, where: int) -> None:
    data = bytearray(b"".join(Sealer(KEY).seal(Parcel.of(LABEL, ONE))))
    where %= len(data) - len(change)
    altered = bytes(data[:where]) + change + bytes(data[where + len(change) :])
    if altered != data:
        with pytest.raises((FrameError, AssertionError)):
            _open(altered)


GOOD = [0, *LABEL, "<f4", [3]]
MALFORMED = {
    "a map": {"sequence": 0},
    "a number": 7,
    "too few fields": GOOD[:4],
    "an ext type": [msgpack.ExtType(4, b"x"), *GOOD[1:]],
    "a timestamp": [msgpack.Timestamp(1), *GOOD[1:]],
    "a bool for a number": [False, *GOOD[1:]],
    "bytes for a name": [0, b"name", *GOOD[2:]],
    "dtype of objects": [0, *LABEL, "|O", [3]],
    "dtype of doubles": [0, *LABEL, "<f8", [3]],
    "shape of too many": [0, *LABEL, "<f4", [4]],
    "negative shape": [0, *LABEL, "<f4", [-1, -3]],
    "shape of floats": [0, *LABEL, "<f4", [3.0]],
    "too many dimensions": [0, *LABEL, "<f4", [3, *[1] * 8]],
    "no shape": [0, *LABEL, "<f4", None],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_authentic_frames_of_another_form_are_refused(fields: object) -> None:
    with pytest.raises(FrameError, match="malformed"):
        _open(_sealed(fields, ONE.tobytes()))


@pytest.mark.parametrize("start", [b"", b"\xc6\0\0\0\x0d", b"\xc4\0\0\0\x0c"])
def test_a_payload_that_is_no_bin_of_its_length_is_refused(start: bytes) -> None:
    with pytest.raises(FrameError, match="malformed"):
        _open(_sealed(GOOD, ONE.tobytes(), start))


@given(st.binary(max_size=100))
def test_authentic_garbage_is_refused(garbage: bytes) -> None:
    head = PREFIX.pack(1, 0, len(garbage), 0) + garbage
    with pytest.raises(FrameError, match="malformed"):
        _open(head + tag(Sealer(KEY)._mac, head, b""))


def test_an_array_of_another_type_is_not_sent() -> None:
    with pytest.raises(InvariantError, match="name brings an array of float64: links carry float32"):
        Parcel.of(LABEL, np.zeros(3))  # type: ignore[arg-type]


def _raw(links: Links) -> Callable[[bytes], None]:
    return links._connections[1, 0]._socket.sendall


def _frames(links: Links, count: int) -> list[bytes]:
    sealer = links._connections[1, 0]._sealer
    return [b"".join(sealer.seal(Parcel.of(LABEL, ONE))) for _ in range(count)]


def _replayed(links: Links) -> None:
    (data,) = _frames(links, 1)
    _raw(links)(data * 2)


def _skipped(links: Links) -> None:
    first, _, third = _frames(links, 3)
    _raw(links)(first + third)


def _altered(links: Links) -> None:
    first, second = _frames(links, 2)
    _raw(links)(first + second[:-30] + b"?" + second[-29:])


def _truncated(links: Links) -> None:
    first, second = _frames(links, 2)
    _raw(links)(first + second[:-5])
    links.close()


def _long(links: Links) -> None:
    _raw(links)(*_frames(links, 1))
    _raw(links)(PREFIX.pack(1, 0, 50, 2**32 - 1))


def _long_header(links: Links) -> None:
    _raw(links)(_frames(links, 1)[0] + PREFIX.pack(1, 0, 2049, 0))


def _other_version(links: Links) -> None:
    first, second = _frames(links, 2)
    _raw(links)(first + b"\2" + second[1:])


def _from_a_connection_of_another_run(links: Links) -> None:
    (data,) = _frames(links, 1)
    other, same = joined([[0], [1]])
    _raw(links)(data + _frames(same, 2)[1])
    other.close()
    same.close()


BAD = {
    _replayed: "out of sequence",
    _skipped: "out of sequence",
    _altered: "unauthenticated",
    _truncated: "truncated",
    _long: "too long",
    _long_header: "too long",
    _other_version: "version",
    _from_a_connection_of_another_run: "unauthenticated",
}


@pytest.mark.parametrize(("send", "reason"), BAD.items(), ids=[send.__name__[1:] for send in BAD])
def test_a_bad_frame_of_a_peer_ends_the_run_and_names_both(send: Callable[[Links], None], reason: str) -> None:
    """After one that is good."""
    good, bad = joined([[0], [1]], limit_s=5.0)
    send(bad)
    post = {0: Post(LABEL, {}, [1])}
    np.testing.assert_array_equal(good.swap(post)[0][1], ONE)
    with pytest.raises(LinkError, match=f"^link of socket 0 to socket 1: frame refused: {reason}$"):
        good.swap(post)
    assert good.refused == {reason: 1} and not good._connections[0, 1].open
    bad.close()


def test_more_than_the_limit_is_not_sent() -> None:
    links = joined([[0], [1]], payload_limit=100)
    array: Array = np.zeros(26, np.float32)
    with pytest.raises(LinkError, match="socket 0 to socket 1: name would send 104 bytes, above the limit of 100"):
        links[0].swap({0: Post(LABEL, {1: array}, [])})
    for one in links:
        one.close()


def test_a_reason_is_told_to_all_peers() -> None:
    links = joined([[0], [1], [2]])
    links[0].stop(ValueError(os.urandom(300).hex()))
    for one in links[1:]:
        with pytest.raises(LinkError, match=r"^socket \d: socket 0 stopped: [0-9a-f]{256}$"):
            one.swap({one.here[0]: Post(LABEL, {}, [0])})
        one.close()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 3, 577, AHEAD // 4 - 30, AHEAD // 4, 3 * AHEAD]), min_size=1, max_size=5),
    name=st.text(min_size=1, max_size=5),
    pieces=st.lists(st.sampled_from([1, 7, 8, 9, 100, AHEAD - 1, AHEAD]), min_size=1, max_size=9),
)
def test_frames_are_the_same_however_they_come(sizes: list[int], name: str, pieces: list[int]) -> None:
    """Many at once or a byte at a time, with headers of any length."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs:
        agreed = Agreed((0, 1), Sealer(KEY), Opener(KEY))
        link, sealer = Connection(0, 1, ours, agreed, 1 << 24), Sealer(KEY)
        arrays = [np.arange(size, dtype=np.float32) for size in sizes]
        labels = [(name * count, "sum") for count in range(1, len(sizes) + 1)]
        parcels = [Parcel.of(label, array) for label, array in zip(labels, arrays, strict=True)]
        data = b"".join(b"".join(sealer.seal(parcel)) for parcel in parcels)
        came = 0
        for piece in itertools.cycle([*pieces, AHEAD]):
            theirs.sendall(data[:piece])
            data = data[piece:]
            while came < len(arrays) and (frame := link.pull()) is not None:
                assert frame.label == labels[came]
                np.testing.assert_array_equal(frame.array, arrays[came], strict=True)
                assert frame.array.flags.aligned
                came += 1
            if not data and came == len(arrays):
                break


def test_one_frame_is_kept_until_the_next_is_asked_for() -> None:
    """Though both came at once."""
    links = joined([[0], [1]])
    _raw(links[1])(b"".join(_frames(links[1], 2)))
    first = links[0].swap({0: Post(LABEL, {}, [1])})[0][1]
    np.testing.assert_array_equal(first, ONE)
    assert first.flags.aligned
    second = links[0].swap({0: Post(LABEL, {}, [1])})[0][1]
    np.testing.assert_array_equal(second, ONE)
    assert second.flags.aligned
    for one in links:
        one.close()
