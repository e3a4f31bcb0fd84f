"""Files whose bytes are read as they are looked at: a model may be larger than the host's memory."""

from __future__ import annotations

import mmap
from pathlib import Path

from node.errors import InputError

Data = mmap.mmap


def map_file(path: Path) -> Data:
    """The file's bytes; raises ``InputError``."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
