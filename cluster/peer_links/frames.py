"""Frames of a peer link: an array with the collective it belongs to, sealed by one socket and opened by its peer.

On the wire: a prefix (version, 0, bytes of the header: 2, of the payload: 4, big-endian); the header, a msgpack array
[sequence, operator, meaning, dtype, shape] and the start of a msgpack bin; the payload, which is that bin's content;
a tag: the first 16 bytes of the HMAC-SHA256 of all before it, by the key of this direction of this connection.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import msgpack
import numpy as np

from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

VERSION = 1
PREFIX = struct.Struct(">BBHI")
BIN = struct.Struct(">BI")  # how a msgpack bin of up to 4 GiB starts: 0xc6 and its length
TAG = 16
HEADER_LIMIT = 2048
ALIKE = 64  # headers kept: a socket's frames of one collective have the same
DTYPE, DIMENSIONS = np.dtype("<f4"), 8
FIELDS = [int, str, str, str, list]  # exactly: a bool is no number
Buffer = bytes | bytearray | memoryview
Label = tuple[str, str]  # name and meaning of a collective
Reason = Literal[
    "version", "too long", "truncated", "malformed", "unauthenticated", "out of sequence", "unexpected", "silent"
]


class FrameError(ValueError):
    """A frame that is refused, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"frame refused: {reason}")
        self.reason = reason


class Frame(NamedTuple):
    """What a peer sent; ``array`` lies in a buffer that the connection's next frame overwrites."""

    label: Label
    array: Array


def lengths(prefix: Buffer, header_limit: int, payload_limit: int) -> tuple[int, int]:
    """Bytes of header and payload that a frame announces; refuses other versions and what is above a limit."""
    version, zero, header, payload = PREFIX.unpack(prefix)
    if (version, zero) != (VERSION, 0):
        raise FrameError("version")
    if header > header_limit or payload > payload_limit:
        raise FrameError("too long")
    return header, payload


def decoded(data: Buffer) -> list[object]:
    """The msgpack array that ``data`` is, of plain values or whatever a stranger put there."""
    try:
        fields = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException):
        raise FrameError("malformed") from None
    if not isinstance(fields, list):
        raise FrameError("malformed")
    return fields


class Parcel(NamedTuple):
    """What is sent to any number of peers; ``payload`` is an array's own memory, if it is contiguous."""

    label: Label
    shape: tuple[int, ...]
    payload: memoryview

    @classmethod
    def of(cls, label: Label, array: Array) -> Parcel:
        """An array for the collective ``label``."""
        if array.dtype != DTYPE:
            raise InvariantError(f"{label[0]} brings an array of {array.dtype}: links carry float32")
        payload = np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
        return cls(label, array.shape, payload)


class Sealer:
    """Makes the frames of one direction of a connection, numbered from 0."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)
        self._sequence = 0

    def seal(self, parcel: Parcel) -> list[Buffer]:
        """The frame in parts, to be sent as they are."""
        head, payload = _head(self._sequence, parcel.label, parcel.shape), parcel.payload
        self._sequence += 1
        return [head, payload, tag(self._mac, head, payload)]


class Opener:
    """Opens the frames of one direction of a connection; refuses all but the next."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)
        self._sequence = 0

    def open(self, frame: memoryview, header: int) -> Frame:
        """The frame of these bytes: the prefix, ``header`` bytes of header, the payload, the tag."""
        head, payload = frame[: PREFIX.size + header], frame[PREFIX.size + header : -TAG]
        if not hmac.compare_digest(tag(self._mac, head, payload), frame[-TAG:]):
            raise FrameError("unauthenticated")
        sequence, label, shape = _fields(bytes(head[PREFIX.size :]), len(payload))
        if sequence != self._sequence:
            raise FrameError("out of sequence")
        self._sequence += 1
        return Frame(label, np.frombuffer(payload, dtype=DTYPE).reshape(shape))


def tag(mac: hmac.HMAC, head: Buffer, payload: Buffer) -> bytes:
    """What proves that a frame was made by who has the key."""
    mac = mac.copy()
    mac.update(head)
    mac.update(payload)
    return mac.digest()[:TAG]


@lru_cache(maxsize=ALIKE)
def _head(sequence: int, label: Label, shape: tuple[int, ...]) -> bytes:
    """Prefix and header of a frame."""
    size = math.prod(shape) * DTYPE.itemsize
    fields: bytes = msgpack.packb((sequence, *label, DTYPE.str, shape))
    header = fields + BIN.pack(0xC6, size)
    return PREFIX.pack(VERSION, 0, len(header), size) + header


@lru_cache(maxsize=ALIKE)
def _fields(header: bytes, size: int) -> tuple[int, Label, tuple[int, ...]]:
    """Sequence, label and shape that an authentic header says of a payload of ``size`` bytes."""
    start = len(header) - BIN.size
    if start < 0 or header[start:] != BIN.pack(0xC6, size):
        raise FrameError("malformed")
    fields = decoded(header[:start])
    if [type(field) for field in fields] != FIELDS:
        raise FrameError("malformed")
    sequence, name, meaning, dtype, shape = cast(tuple[int, str, str, str, list[int]], tuple(fields))
    if dtype != DTYPE.str or len(shape) > DIMENSIONS or not all(type(part) is int and part >= 0 for part in shape):
        raise FrameError("malformed")
    if math.prod(shape) * DTYPE.itemsize != size:
        raise FrameError("malformed")
    return sequence, (name, meaning), tuple(shape)
