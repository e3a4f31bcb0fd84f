"""Buffers behind the tiers of functional mode: HBM in memory, DDR in a file mapped into it.

Both are as large as the machine's tiers; what is never touched takes no memory and no room on disk. So DDR may hold
more than there is memory: pages go to the file and come back.
"""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import numpy as np

from node.errors import InputError
from node.functional.store import ELEMENT, Array, Store
from node.spec import Machine
from node.units import Bytes

NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux: pages are promised only when they are used


def tiers_of(machine: Machine, socket: int, folder: Path) -> tuple[Store, Store]:
    """DDR (a file without a name in ``folder``) and HBM of a socket; raises ``InputError`` where there is no room."""
    try:
        ddr = _file(machine.ddr.capacity, folder)
        hbm = mmap.mmap(-1, _bytes(machine.hbm.capacity), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"the tiers of socket {socket} cannot be made: {reason}; lower machine.ddr.capacity or machine.hbm.capacity"
        ) from None
    return Store(f"DDR of socket {socket}", _array(ddr)), Store(f"HBM of socket {socket}", _array(hbm))


def _file(capacity: Bytes, folder: Path) -> mmap.mmap:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(_bytes(capacity))
        return mmap.mmap(file.fileno(), _bytes(capacity))


def _bytes(capacity: Bytes) -> int:
    """A float32 for each element of the machine's."""
    return capacity // ELEMENT * np.dtype(np.float32).itemsize


def _array(buffer: mmap.mmap) -> Array:
    return np.frombuffer(buffer, dtype=np.float32)
