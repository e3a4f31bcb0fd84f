"""``NAME.partial``: the folder of a run that is not over, with its last checkpoint.

The checkpoint is one file: a line of JSON for people and for checks, a pickle, and the SHA-256 of both. Whoever reads a
pickle runs what it says, so a checkpoint is for the user who made it, and for nobody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.config import Config
from cluster.output import Written
from cluster.resuming.made_with import check_made_with, made_with
from cluster.workload import Workload
from node.deployment import Deployment
from node.errors import InputError

SUFFIX = ".partial"
CHECKPOINT = "checkpoint"
FORMAT = "coe checkpoint 1"
DIGEST = hashlib.sha256
MOST_HEADER = 2**16  # bytes
BLOCK = 2**20


@dataclass(frozen=True)
class Begun:
    """A run: its input as prepared, how it is written, and the ``state`` that it goes on from, if any.

    ``metered``: how many experts have metrics, None without metrics.
    """

    config: Config
    prepared: tuple[Deployment, Workload]
    written: Written
    metered: int | None
    state: bytes | None = None


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, DIGEST()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def write_checkpoint(folder: Path, begun: Begun, how_far: Mapping[str, object]) -> None:
    """Put a checkpoint in place of the one before, all of it or nothing; ``InputError`` where it cannot be written."""
    temporary = folder / f".{CHECKPOINT}.{os.getpid()}"
    header = {"format": FORMAT, "made_with": made_with(), "how_far": how_far}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            hashed = _Hashed(file)
            hashed.write(json.dumps(header).encode() + b"\n")
            pickle.dump(begun, hashed, protocol=pickle.HIGHEST_PROTOCOL)
            file.write(hashed.digest.digest())
        temporary.replace(folder / CHECKPOINT)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{folder}: no checkpoint can be written: {error.strerror}") from None


def read_checkpoint(folder: Path) -> Begun:
    """The run as it was put aside in ``folder``; ``InputError`` where there is none that this code can go on from."""
    where = f"--resume {str(folder)!r}"
    try:
        with (folder / CHECKPOINT).open("rb") as file:
            header = _header(file.readline(MOST_HEADER))
            if header is None:
                raise InputError(f"{where}: what is there is no checkpoint of coe run")
            check_made_with(header, where)
            _check_whole(file, where)
            file.readline()
            begun = pickle.load(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        allowed = f"a folder NAME{SUFFIX} that coe run left"
        raise InputError(f"{where}: no checkpoint there: {reason}; allowed: {allowed}") from None
    assert isinstance(begun, Begun)
    return begun


def _header(line: bytes) -> Mapping[str, str] | None:
    """What made a checkpoint, by its first line."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("made_with"), dict):
        return None
    return {str(name): str(value) for name, value in found["made_with"].items()}


def _check_whole(file: BinaryIO, where: str) -> None:
    """``InputError`` where the file is not what was written; else it is at its beginning."""
    digest, size = DIGEST(), file.seek(0, os.SEEK_END) - DIGEST().digest_size
    file.seek(0)
    while block := file.read(max(0, min(BLOCK, size - file.tell()))):
        digest.update(block)
    if file.read() != digest.digest():
        raise InputError(f"{where}: the checkpoint is damaged")
    file.seek(0)
