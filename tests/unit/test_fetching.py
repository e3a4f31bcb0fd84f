"""Does a log say where results are, and do they arrive whole or not at all, whatever comes between?"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from cluster.jobs import fetching, send
from cluster.jobs.cluster_client import ClusterJobs
from cluster.jobs.fetching import MOST, fetch, results_of
from node.errors import InputError

# Where results are


class Jobs:
    """A cluster with one job that is over, or is not; a second one prints ``pieces``."""

    def __init__(self, log: str = "", status: JobStatus = JobStatus.SUCCEEDED, pieces: tuple[str, ...] = ()) -> None:
        self.text, self.status, self.pieces = log, status, pieces
        self.asked: list[Any] = []
        self.client = SimpleNamespace(
            submit_job=lambda **job: self.asked.append(job) or "second",
            stop_job=lambda job: self.asked.append(("stop", job)),
            delete_job=lambda job: self.asked.append(("delete", job)),
        )

    def info(self, job: str) -> Any:
        assert job in ("j", "second")
        return SimpleNamespace(status=self.status, driver_agent_http_address="http://10.1.2.3:52365")

    def log(self, _job: str) -> str:
        return self.text

    def follow(self, job: str) -> Iterator[str]:
        assert job == "second"
        yield from self.pieces

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        yield

    def cast(self) -> ClusterJobs:
        return self  # type: ignore[return-value]


STOPPED = (
    "coe: stopped by SIGTERM at virtual time 3 s, 1 of 2 requests done; to go on: coe run --resume /r/a b.partial\n"
)
FIRST = "note: to go on from the last checkpoint, should the run be lost: coe run --resume /r/a b.partial\n"


@pytest.mark.parametrize(
    ("log", "path"),
    [
        ("Running\n\nwritten to /tmp/runs/1-run\n", "/tmp/runs/1-run"),
        ("written to /first\nmore\nwritten to /second\nmore", "/second"),
        ("so much\n" + STOPPED, "/r/a b.partial"),
        (FIRST + "Killed\n", "/r/a b.partial"),
        (FIRST + "\nwritten to /r/a b\n", "/r/a b"),
    ],
)
def test_a_log_says_where_results_are(log: str, path: str) -> None:
    assert results_of(Jobs(log).cast(), "j") == PurePosixPath(path)


@pytest.mark.parametrize("log", ["", "written to runs/1-run\n", "it was written to /tmp\n", "coe: error: /tmp\n"])
def test_a_log_without_results_is_told(log: str) -> None:
    with pytest.raises(InputError, match="job 'j': has written nothing, by its log"):
        results_of(Jobs(log).cast(), "j")


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING])
def test_a_job_that_is_not_over_has_none(status: JobStatus) -> None:
    with pytest.raises(InputError, match=f"job 'j': is {status.value.lower()}, not over"):
        results_of(Jobs("written to /first\n", status).cast(), "j")


# From there to here


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of all sizes, and what is no file."""
    path, drawn = tmp_path / "it's results", random.Random(1)
    (path / "points" / "empty").mkdir(parents=True)
    for name, size in (("a", 0), ("b", 1), ("points/c", send.LINE), ("points/é", 3 * send.LINE + 5), (".d", 70_000)):
        (path / name).write_bytes(drawn.randbytes(size))
    (path / "link").symlink_to("/etc/passwd")
    return path


def sent(folder: Path, most: int = MOST) -> str:
    """What a second job prints."""
    command = [sys.executable, "-I", "-S", "-c", Path(send.__file__).read_text(), str(folder), str(most)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


def in_pieces(text: str, size: int) -> tuple[str, ...]:
    return tuple(text[at : at + size] for at in range(0, len(text), size))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("size", [1, 999, 20_000])
def test_what_is_sent_arrives(size: int, folder: Path, tmp_path: Path) -> None:
    noise = "2026-11-25 INFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job\n"
    jobs = Jobs(pieces=in_pieces(noise + sent(folder), size))
    fetch(jobs.cast(), "j", PurePosixPath(folder), tmp_path / "here")
    assert content(tmp_path / "here") == content(folder) and len(content(folder)) == 5
    assert jobs.asked[0]["entrypoint_resources"] == {"node:10.1.2.3": 0.001}
    assert jobs.asked[1:] == [("stop", "second"), ("delete", "second")]


def test_the_second_job_is_a_line_for_a_shell(folder: Path, tmp_path: Path) -> None:
    jobs = Jobs(pieces=(sent(folder),))
    fetch(jobs.cast(), "j", PurePosixPath(folder), tmp_path / "here")
    said = subprocess.run(jobs.asked[0]["entrypoint"], shell=True, capture_output=True, text=True, check=True, cwd="/")
    # not compared with another sending: a compressed archive has the second in it at which it was made
    fetch(Jobs(pieces=(said.stdout,)).cast(), "j", PurePosixPath(folder), tmp_path / "there")
    assert content(tmp_path / "there") == content(folder)


def test_more_than_may_be_sent_is_told(folder: Path, tmp_path: Path) -> None:
    size = sum(map(len, content(folder).values()))
    assert sent(folder, size).startswith(":")
    pieces = (sent(folder, size - 1),)
    with pytest.raises(
        InputError, match=f"job 'j': .*results has {size:,} bytes, and at most {size - 1:,} are sent so"
    ):
        fetch(Jobs(pieces=pieces).cast(), "j", PurePosixPath(folder), tmp_path / "here")


def test_results_that_are_gone_are_told(tmp_path: Path) -> None:
    gone = PurePosixPath(tmp_path / "gone")
    with pytest.raises(InputError, match=r"job 'j': .*gone is not there any more"):
        fetch(Jobs(pieces=(sent(Path(gone)),)).cast(), "j", gone, tmp_path / "here")


@pytest.mark.parametrize("damage", ["cut", "lost", "changed", "nothing", "no base64"])
def test_what_is_not_whole_is_told(damage: str, folder: Path, tmp_path: Path) -> None:
    lines = sent(folder).splitlines(keepends=True)
    changed = ":" + ("B" if lines[1][1] == "A" else "A") + lines[1][2:]
    damaged = {
        "cut": lines[:-1],
        "lost": [lines[0], *lines[2:]],
        "changed": [lines[0], changed, *lines[2:]],
        "nothing": [],
        "no base64": [lines[0], ":!" + lines[1][2:], *lines[2:]],
    }
    jobs = Jobs(pieces=("".join(damaged[damage]),))
    with pytest.raises(InputError, match="job 'j': what came of its results is not whole; try again"):
        fetch(jobs.cast(), "j", PurePosixPath(folder), tmp_path / "here")
    assert jobs.asked[-2:] == [("stop", "second"), ("delete", "second")] and not (tmp_path / "here").exists()


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "link"])
def test_nothing_is_written_elsewhere(name: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type = tarfile.SYMTYPE if name == "link" else tarfile.REGTYPE
        tar.addfile(member, io.BytesIO())
    lines = io.StringIO()
    with contextlib.redirect_stdout(lines):
        printing = send.Lines()
        printing.write(packed.getvalue())
        printing.close()
    assert lines.getvalue().endswith(f"={hashlib.sha256(packed.getvalue()).hexdigest()}\n")
    with pytest.raises(InputError, match="is no file of a folder of results"):
        fetch(Jobs(pieces=(lines.getvalue(),)).cast(), "j", PurePosixPath("/r"), tmp_path / "deep" / "here")
    assert not any(path.is_file() or path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_machine_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "START_LIMIT_S", 0.0)
    jobs = Jobs(status=JobStatus.PENDING)
    with pytest.raises(InputError, match=r"the machine of the results, 10\.1\.2\.3, does not answer"):
        fetch(jobs.cast(), "j", PurePosixPath("/r"), tmp_path)
    assert ("stop", "second") in jobs.asked
