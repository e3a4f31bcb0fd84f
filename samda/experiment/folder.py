"""The folder of an experiment: each result from when it is there, so that a killed one goes on."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.output import check_output, result_folder, write_json
from node.errors import InputError

DEFINITION, RESULTS, SOURCES, MASKS = "definition.json", "results", "sources", "segmentations"

Result = dict[str, Any]


@dataclass(frozen=True)
class Name:
    """Of a result: a seed, so many shots (0: the source's expert as it is), an arm."""

    seed: int
    shots: int
    arm: str

    def __str__(self) -> str:
        return f"seed{self.seed}-shots{self.shots}-{self.arm}"


@dataclass(frozen=True)
class ExperimentFolder:
    """A folder that this process alone writes to."""

    path: Path

    def result(self, name: Name) -> Result | None:
        """A result that is there; None where it is not, or cannot be read and is to be made again."""
        try:
            found: Result = json.loads((self.path / RESULTS / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return found

    def add(self, name: Name, result: Mapping[str, object]) -> None:
        """Keep a result: all of it, or nothing."""
        write_json(self.path / RESULTS / f"{name}.json", result)

    def source(self, seed: int, arm: str) -> Path:
        """Where the source's expert of a seed is."""
        return self.path / SOURCES / f"seed{seed}-{arm}"

    def state(self, name: str) -> Path:
        """Where a training is kept while it goes on."""
        return self.path / f"{name}.training"

    def masks(self, name: Name) -> Path:
        """Where segmentations of the target's test images are."""
        return self.path / MASKS / str(name)


@contextlib.contextmanager
def experiment_folder(path: Path, record: Mapping[str, object]) -> Iterator[ExperimentFolder]:
    """The folder for the experiment that ``record`` describes: new, or as it was left.

    Raises ``InputError`` where it is another experiment's, none's, or another process is at work in it.
    """
    if not path.exists():
        check_output(str(path))
        with result_folder(str(path), "samda") as made:
            for name in (RESULTS, SOURCES, MASKS):
                (made.temporary / name).mkdir()
            write_json(made.temporary / DEFINITION, record)
    try:
        file = (path / DEFINITION).open()
    except OSError:
        raise InputError(f"--output {str(path)!r}: exists already and is no experiment's; name another one") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"--output {str(path)!r}: another coe samda experiment is at work in it") from None
        _compare(path, file.read(), json.loads(json.dumps(record)))
        yield ExperimentFolder(path)


def _compare(path: Path, text: str, after: Mapping[str, object]) -> None:
    try:
        before = dict(json.loads(text))
    except (ValueError, TypeError):
        raise InputError(f"{path / DEFINITION}: is damaged; name another folder, or remove this one") from None
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            raise InputError(
                f"--output {str(path)!r}: holds another experiment: {key} was {before.get(key)}, is {after.get(key)}; "
                "name another folder, or remove this one"
            )
