"""The vocabulary between those who decide and those who do: commands (what to do), and what came of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from node.units import Bytes, Picoseconds

Ints = npt.NDArray[np.int64]


class Kind(IntEnum):
    """What a command tells a socket to do."""

    ALLOCATE = 0
    FREE = 1
    COPY = 2
    PREFILL = 3
    DECODE = 4
    LOAD = 5
    SWAP = 6
    SEND = 7
    RECEIVE = 8
    IMAGE = 9


TRANSFERS = (Kind.COPY, Kind.SWAP, Kind.SEND, Kind.RECEIVE, Kind.IMAGE)  # what DMA does


class Tier(IntEnum):
    """Where."""

    DDR = 0
    HBM = 1


class Command(NamedTuple):
    """One command to every socket of a group, issued at ``issued`` ps; all fields are integers.

    ALLOCATE, FREE: ``symbol`` at ``address`` in ``tier``, ``size`` bytes reserved (the largest shard of the group).
    LOAD: an ALLOCATE at deployment, whose content is there at once.
    COPY: ``symbol`` from DDR ``source`` to HBM ``address``. SWAP: ``size`` bytes of KV cache between pages of HBM and
    ``symbol`` at DDR ``address``; ``tier`` is where to. SEND, RECEIVE: ``symbol`` at DDR ``address``, to the socket of
    the same rank in another group, or from there. IMAGE: as COPY, ``size`` bytes of a compiled program. PREFILL,
    DECODE: ``program`` with the weights ``symbol`` at ``address``, its image being the symbol ``source`` (0: it needs
    none); one pass over (``tokens``, ``pairs``, ``context``, ``sequences``), or ``steps`` decode steps whose context
    grows by ``growth`` each.
    """

    sequence: int
    group: int
    kind: int
    issued: Picoseconds
    tier: int = 0
    symbol: int = 0
    address: int = 0
    size: Bytes = 0
    source: int = 0
    program: int = 0
    tokens: int = 0
    pairs: int = 0
    context: int = 0
    sequences: int = 0
    growth: int = 0
    steps: int = 0


COLUMNS = Command._fields
ROW = {name: index for index, name in enumerate(COLUMNS)}  # of each field in an array of columns


def to_columns(commands: Iterable[Command]) -> Ints:
    """Commands as one int64 array of shape (fields, commands): a row per field, in the order of ``COLUMNS``."""
    rows = list(commands)
    table = np.array(rows, dtype=np.int64).reshape(len(rows), len(COLUMNS))
    return np.ascontiguousarray(table.T)


class Serving(NamedTuple):
    """A request that a run is for: its number, the tokens generated so far, the symbol of its KV range."""

    request: int
    generated: int
    kv: int


class Performed(NamedTuple):
    """What came of a run with content: the steps that were done, and whose answers ended with the last of them."""

    steps: int = 0
    ended: Collection[int] = ()
