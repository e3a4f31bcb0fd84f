"""What goes between coordinator and sockets: a msgpack envelope, and after it the numpy columns that it names.

The envelope's length comes first, as 8 bytes; columns are int64, least byte first, and begin at multiples of 8.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from node.events import Ints

_WORD = 8
Packed = bytes | memoryview


def pack(message: dict[str, Any]) -> bytes:
    """A message of plain values and int64 arrays as bytes."""
    columns: list[memoryview] = []
    words = 0

    def placed(value: object) -> dict[str, Any]:
        nonlocal words
        if not isinstance(value, np.ndarray) or value.dtype != np.int64:
            raise TypeError(f"cannot go on the wire: {type(value).__name__}")
        columns.append(np.ascontiguousarray(value, dtype="<i8").reshape(-1).data)
        words += value.size
        return {"shape": list(value.shape), "int64": words - value.size}

    envelope: bytes = msgpack.packb(message, default=placed)
    padding = bytes(-len(envelope) % _WORD)
    return b"".join((len(envelope).to_bytes(_WORD, "little"), envelope, padding, *columns))


def unpack(data: Packed) -> dict[str, Any]:
    """The message back; keys may be integers. Arrays lie in ``data`` and cannot be written to.

    ``ValueError`` for one that was cut short.
    """
    data = memoryview(data).toreadonly()
    if len(data) % _WORD:
        raise ValueError(f"a message of {len(data)} bytes was cut short")
    end = _WORD + int.from_bytes(data[:_WORD], "little")
    columns: Ints = np.frombuffer(data[end + -end % _WORD :], dtype="<i8").astype(np.int64, copy=False)

    def found(value: dict[str, Any]) -> dict[str, Any] | Ints:
        if "int64" not in value:
            return value
        first, shape = value["int64"], value["shape"]
        return columns[first : first + int(np.prod(shape, dtype=np.int64))].reshape(shape)

    message: dict[str, Any] = msgpack.unpackb(data[_WORD:end], strict_map_key=False, object_hook=found)
    return message
