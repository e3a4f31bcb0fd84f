"""Result folders: all there, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from node.errors import InputError

RUNS = Path("runs")
EVENTS = 50_000
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the entrypoint of a job


@dataclass(frozen=True)
class Written:
    """How a run's results are to be written, where the user says so."""

    output: str | None = None
    requests_format: str | None = None
    events: int | None = None

    @property
    def table(self) -> str:
        """The format of the table of requests."""
        return self.requests_format or "parquet"

    @property
    def most_events(self) -> int:
        """Of the timeline."""
        return EVENTS if self.events is None else self.events


def check_output(output: str | None) -> None:
    """``InputError`` where the folder asked for exists, or cannot be made: before anything runs."""
    if output is None:
        return
    try:
        os.lstat(output)
    except FileNotFoundError as error:
        above = Path(output).absolute().parent
        while not above.exists():
            above = above.parent
        if output and above.is_dir() and os.access(above, os.W_OK):
            return
        reason = f"{above} cannot be written to" if output else str(error.strerror)
        raise InputError(f"--output {output!r}: cannot be made: {reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--output {output!r}: cannot be made: {reason}") from None
    raise InputError(f"--output {output!r}: exists already; name a folder that does not, or remove it")


@dataclass
class ResultFolder:
    """``temporary``: where to write; ``final``: where it is afterwards."""

    temporary: Path
    final: Path | None = None


@contextlib.contextmanager
def result_folder(output: str | None, command: str) -> Iterator[ResultFolder]:
    """A temporary folder that gets its name when the block ends well, and is gone otherwise.

    Its name is ``output``, which must not exist, or a new one under ``runs/``.
    """
    parent = RUNS if output is None else Path(output).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".coe.", dir=parent))
    except OSError as error:
        raise InputError(f"--output {output or str(RUNS)!r}: cannot be made: {error.strerror}") from None
    folder = ResultFolder(temporary)
    try:
        yield folder
        temporary.chmod(0o755)
        folder.final = _named(temporary, output, command)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def shown(path: Path) -> Path:
    """A path as the user is told it: absolute in a Ray job, whose log is read elsewhere."""
    return path.absolute() if IN_JOB in os.environ else path


def new_folder(command: str, suffix: str = "") -> Path:
    """Make a new folder under ``runs/``."""
    return _first_free(_new_names(command, suffix))


def _named(temporary: Path, output: str | None, command: str) -> Path:
    return temporary.rename(_first_free([Path(output)] if output else _new_names(command)))


def _new_names(command: str, suffix: str = "") -> list[Path]:
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{command}"
    return [RUNS / (f"{stem}{suffix}" if n == 0 else f"{stem}-{n}{suffix}") for n in range(1000)]


def _first_free(names: Sequence[Path]) -> Path:
    """The first name that is free; a name is taken by making the folder, which two cannot both do."""
    for name in names:
        try:
            name.parent.mkdir(parents=True, exist_ok=True)
            name.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"--output {str(name)!r}: cannot be made: {error.strerror}") from None
        return name
    raise InputError(f"--output {str(names[0])!r}: came into being while the command ran; nothing was written")


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write JSON for people and programs: to a temporary name, then renamed."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_file(path: Path) -> None:
    """``InputError`` where a file cannot be written: before anything runs."""
    if path.is_dir() or not path.parent.is_dir():
        reason = os.strerror(errno.EISDIR if path.is_dir() else errno.ENOENT)
        raise InputError(f"{path}: cannot be written: {reason}")


def write_text(path: Path, text: str) -> None:
    """Write text to a temporary name, then rename it; ``InputError`` where that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
