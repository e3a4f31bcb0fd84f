"""Tensors of a safetensors file: a length, a table in JSON, then the numbers.

Forty lines, since the package of that name reads a bfloat16 into PyTorch but not into numpy, which has none.
"""

from __future__ import annotations

import json
import struct
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cluster.checkpoints.checkpoint import Stored
from cluster.checkpoints.mapped import Data, map_file
from node.errors import InputError
from node.models.weights import Array

KINDS: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
START = 8  # bytes of the length
MOST = 100_000_000  # bytes of a header, as the package allows


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors by name, without those of integers, which are no weights; raises ``InputError``."""
    data = map_file(path)
    try:
        (length,) = struct.unpack_from("<Q", data)
        if length > MOST:
            raise ValueError(f"a header of {length:,} bytes")
        table = dict(json.loads(data[START : START + length]))
        table.pop("__metadata__", None)
        entries = {
            name: (entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"]) for name, entry in table.items()
        }
        floats = {name: entry for name, entry in entries.items() if "F" in entry[0]}
        return {name: _stored(data, START + length, path, name, *entry) for name, entry in floats.items()}
    except InputError:
        raise
    except (struct.error, ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{path}: is no safetensors file, or its header is damaged: {error!r}") from None


def _stored(data: Data, start: int, path: Path, name: str, kind: str, shape: tuple[int, ...], *at: int) -> Stored:
    if kind not in KINDS:
        raise InputError(f"{path}: tensor {name} is {kind}: must be one of {', '.join(KINDS)}")
    begin, end = at
    if end - begin != prod(shape) * np.dtype(KINDS[kind]).itemsize or min(begin, *shape, 0) < 0:
        raise InputError(f"{path}: tensor {name}: {end - begin:,} bytes do not hold {shape} in {kind}")
    if start + end > len(data):
        raise InputError(f"{path}: is cut off: {len(data):,} bytes, but tensor {name} ends at {start + end:,}")
    return Stored(shape, partial(_read, data, start + begin, kind, shape))


def _read(data: Data, offset: int, kind: str, shape: tuple[int, ...]) -> Array:
    raw = np.frombuffer(data, np.dtype(KINDS[kind]), prod(shape), offset).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32, copy=False)
