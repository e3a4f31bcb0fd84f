"""What a GGUF file says before its tensors: metadata and where each tensor lies.

The ``gguf`` package has a reader, too, but it makes an array of every word of the vocabulary: seconds and hundreds of
MB for each of many experts; and a file that ends too early is an ``IndexError`` there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from cluster.checkpoints.mapped import Data
from node.errors import InputError

VERSIONS = (2, 3)
ALIGNMENT = 32
FORMATS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
Metadata = dict[str, object]


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor in a GGUF file: ``shape`` as numpy has it (rows first), ``offset`` and ``size`` in bytes."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(data: Data, path: Path) -> tuple[Metadata, dict[str, Place]]:
    """Metadata and tensors of the file; raises ``InputError``."""
    cursor = _Cursor(data)
    if data[:4] != b"GGUF":
        raise InputError(f"{path}: is not a GGUF file: it begins with {data[:4]!r}")
    try:
        version, tensors, entries = cursor.numbers("4xIQQ")
        if version not in VERSIONS:
            raise InputError(
                f"{path}: GGUF version {version}: must be {' or '.join(map(str, VERSIONS))}, little-endian"
            )
        metadata = {cursor.text(): cursor.value() for _ in range(entries)}
        found = dict(cursor.tensor() for _ in range(tensors))
    except (struct.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: its header breaks off or is damaged at byte {cursor.at:,}: {error}") from None
    if len(found) != tensors:
        raise InputError(f"{path}: has {tensors} tensors, but {len(found)} names for them")
    align = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(align, int) or align < 1:
        raise InputError(f"{path}: general.alignment = {align!r}: must be a positive int")
    start = -(-cursor.at // align) * align
    for name, place in found.items():
        if start + place.offset + place.size > len(data):
            end = start + place.offset + place.size
            raise InputError(f"{path}: is cut off: {len(data):,} bytes, but tensor {name} ends at {end:,}")
    return metadata, {
        name: Place(place.kind, place.shape, start + place.offset, place.size) for name, place in found.items()
    }


class _Cursor:
    """Reads one thing after another; ``struct.error`` or ``ValueError`` where there is none."""

    def __init__(self, data: Data) -> None:
        self._data, self.at = data, 0

    def numbers(self, form: str) -> tuple[int, ...]:
        made = struct.unpack_from(f"<{form}", self._data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return made

    def text(self) -> str:
        (length,) = self.numbers("Q")
        if length > len(self._data) - self.at:
            raise ValueError(f"a text of {length:,} bytes")
        self.at += length
        return self._data[self.at - length : self.at].decode("utf-8")

    def value(self) -> object:
        """A value after its type."""
        (code,) = self.numbers("I")
        kind = GGUFValueType(code)
        if kind == GGUFValueType.ARRAY:
            code, count = self.numbers("IQ")
            return self._array(GGUFValueType(code), count)
        return self.text() if kind == GGUFValueType.STRING else self.numbers(FORMATS[kind])[0]

    def _array(self, kind: GGUFValueType, count: int) -> list[object]:
        if kind == GGUFValueType.STRING:
            return [self.text() for _ in range(count)]
        if kind not in FORMATS:
            raise ValueError("an array of arrays")
        item = np.dtype(FORMATS[kind]).newbyteorder("<")
        made = np.frombuffer(self._data, item, count, self.at) if count else np.zeros(0, item)
        self.at += made.nbytes
        return list(made.tolist())

    def tensor(self) -> tuple[str, Place]:
        name = self.text()
        (dimensions,) = self.numbers("I")
        sizes = self.numbers(f"{min(dimensions, 5)}Q")
        code, offset = self.numbers("IQ")
        kind = GGMLQuantizationType(code)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if sizes and sizes[0] % block:
            raise ValueError(f"tensor {name}: rows of {sizes[0]} in blocks of {block}")
        return name, Place(kind, tuple(reversed(sizes)), offset, prod(sizes) // block * block_bytes)
