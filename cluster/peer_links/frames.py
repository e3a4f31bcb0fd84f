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
from dataclasses import dataclass
from typing import Literal, cast

import msgpack
import numpy as np

from node.dataflow.meaning.operands import Array
from node.errors import InvariantError

VERSION = 1
PREFIX = struct.Struct(">BBHI")
BIN = struct.Struct(">BI")  # how a msgpack bin of up to 4 GiB starts: 0xc6 and its length
TAG = 16
HEADER_LIMIT = 2048
DTYPE, DIMENSIONS = "<f4", 8
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


@dataclass(frozen=True, slots=True)
class Frame:
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


class Sealer:
    """Makes the frames of one direction of a connection, numbered from 0."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)
        self._sequence = 0

    def seal(self, label: Label, array: Array) -> list[memoryview]:
        """The frame in parts, to be sent as they are: the payload is the array's own memory, if it is contiguous."""
        if array.dtype != np.dtype(DTYPE):
            raise InvariantError(f"{label[0]} brings an array of {array.dtype}: links carry float32")
        payload = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        fields: bytes = msgpack.packb((self._sequence, *label, DTYPE, array.shape))
        header = fields + BIN.pack(0xC6, len(payload))
        head = PREFIX.pack(VERSION, 0, len(header), len(payload)) + header
        self._sequence += 1
        return [memoryview(head), payload, memoryview(tag(self._mac, head, payload))]


class Opener:
    """Opens the frames of one direction of a connection; refuses all but the next."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)
        self._sequence = 0

    def open(self, prefix: Buffer, body: memoryview, header: int) -> Frame:
        """The frame of ``prefix`` and ``body``: ``header`` bytes of header, the payload, the tag."""
        if not hmac.compare_digest(tag(self._mac, prefix, body[:-TAG]), body[-TAG:]):
            raise FrameError("unauthenticated")
        payload = body[header:-TAG]
        start = header - BIN.size
        if start < 0 or body[start:header] != BIN.pack(0xC6, len(payload)):
            raise FrameError("malformed")
        sequence, label, shape = _fields(body[:start])
        if math.prod(shape) * np.dtype(DTYPE).itemsize != len(payload):
            raise FrameError("malformed")
        if sequence != self._sequence:
            raise FrameError("out of sequence")
        self._sequence += 1
        return Frame(label, np.frombuffer(payload, dtype=DTYPE).reshape(shape))


def tag(mac: hmac.HMAC, head: Buffer, rest: Buffer) -> bytes:
    """What proves that a frame was made by who has the key."""
    mac = mac.copy()
    mac.update(head)
    mac.update(rest)
    return mac.digest()[:TAG]


def _fields(data: Buffer) -> tuple[int, Label, list[int]]:
    fields = decoded(data)
    if [type(field) for field in fields] != FIELDS:
        raise FrameError("malformed")
    sequence, name, meaning, dtype, shape = cast(tuple[int, str, str, str, list[int]], tuple(fields))
    if dtype != DTYPE or len(shape) > DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
        raise FrameError("malformed")
    return sequence, (name, meaning), shape
