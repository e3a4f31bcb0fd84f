"""The results of a job brought here, by nothing but the dashboard's HTTP: a second job prints them, where they are.

That is the one way out of a cluster of which only the dashboard's port can be reached. It costs room: the text, 4/3 of
the compressed files, stays in that job's log on the cluster until Ray's session is over.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from ray.job_submission import JobStatus

from cluster.jobs import send
from cluster.jobs.cluster_client import ClusterJobs
from node.errors import InputError

MOST = 512 << 20  # bytes of files
START_LIMIT_S = 60.0  # until the second job runs
_WHERE = re.compile(r"(?:^|\n)(?:written to |(?:note|coe): .*coe run --resume )(/[^\n]+)")


def results_of(jobs: ClusterJobs, job: str) -> PurePosixPath:
    """Where a job that is over left its results, or a checkpoint; ``InputError`` where it left none."""
    info = jobs.info(job)
    if not info.status.is_terminal():
        raise InputError(f"job {job!r}: is {info.status.value.lower()}, not over; ray job stop ends it")
    found = _WHERE.findall(jobs.log(job))
    if not found:
        raise InputError(f"job {job!r}: has written nothing, by its log (ray job logs {job})")
    return PurePosixPath(found[-1].rstrip())


def fetch(jobs: ClusterJobs, job: str, source: PurePosixPath, target: Path) -> None:
    """Bring the files of the folder ``source`` of a job's machine into ``target``; ``InputError`` where that fails.

    After an error or an interruption ``target`` may have some of them.
    """
    host = urlsplit(str(jobs.info(job).driver_agent_http_address)).hostname
    text = Path(send.__file__).read_text()
    python = "$(command -v python || command -v python3)"
    with jobs.told():
        second = jobs.client.submit_job(
            entrypoint=f"{python} -c {shlex.quote(text)} {shlex.quote(str(source))} {MOST}",
            entrypoint_resources={f"node:{host}": 0.001},  # where the results are
            metadata={"job_name": f"coe fetch {job}"},
        )
    try:
        _wait(jobs, second, str(host))
        with tempfile.TemporaryFile() as packed:
            _receive(jobs.follow(second), packed, f"job {job!r}")
            _unpack(packed, target)
    finally:
        _remove(jobs, second)


def _wait(jobs: ClusterJobs, job: str, host: str) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while jobs.info(job).status == JobStatus.PENDING:
        if time.monotonic() > limit:
            raise InputError(f"the machine of the results, {host}, does not answer; it may be gone")
        time.sleep(0.2)


def _receive(pieces: Iterable[str], packed: IO[bytes], what: str) -> None:
    """Write what ``send`` prints; ``InputError`` where that is not whole."""
    digest, whole = hashlib.sha256(), False
    for line in _lines(pieces):
        mark, rest = line[:1], line[1:]
        if mark == "!":
            raise InputError(f"{what}: {rest}")
        if mark == "=":
            whole = rest == digest.hexdigest()
        if mark == ":":
            with contextlib.suppress(binascii.Error):
                data = base64.b64decode(rest, validate=True)
                digest.update(data)
                packed.write(data)
    if not whole:
        raise InputError(f"{what}: what came of its results is not whole; try again")


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    if rest:
        yield rest


def _unpack(packed: IO[bytes], target: Path) -> None:
    packed.seek(0)
    with tarfile.open(fileobj=packed, mode="r:gz") as tar:
        for member in tar:
            path, file = PurePosixPath(member.name), tar.extractfile(member) if member.isreg() else None
            if file is None or path.is_absolute() or ".." in path.parts:
                raise InputError(f"{member.name!r}: is no file of a folder of results")
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            with (target / path).open("wb") as copy:
                shutil.copyfileobj(file, copy)


def _remove(jobs: ClusterJobs, job: str) -> None:
    """Forget the second job; one that still runs is stopped, and stays in the list of jobs."""
    with contextlib.suppress(InputError), jobs.told():
        if not jobs.client.stop_job(job):
            jobs.client.delete_job(job)
