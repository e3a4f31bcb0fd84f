"""What goes between coordinator and sockets: numpy columns in a msgpack envelope."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from node.events import Ints


def pack(message: dict[str, Any]) -> bytes:
    """A message of plain values and int64 arrays as bytes."""
    packed: bytes = msgpack.packb(message, default=_array)
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """The message back; keys may be integers. Arrays lie in ``data`` and cannot be written to."""
    message: dict[str, Any] = msgpack.unpackb(data, strict_map_key=False, object_hook=_from_array)
    return message


def _array(value: object) -> dict[str, Any]:
    if not isinstance(value, np.ndarray) or value.dtype != np.int64:
        raise TypeError(f"cannot go on the wire: {type(value).__name__}")
    return {"shape": list(value.shape), "int64": value.astype("<i8").tobytes()}


def _from_array(value: dict[str, Any]) -> dict[str, Any] | Ints:
    if "int64" not in value:
        return value
    return np.frombuffer(value["int64"], dtype="<i8").reshape(value["shape"]).astype(np.int64, copy=False)
